"""Small networks of every kind, and what either engine makes of one.

Each builder returns a `Network`: the function, its parameters, a batch, and which rule each leaf
falls under. Parameters are drawn by NumPy, since running a module's own `init` takes longer.
"""

import functools
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import mas_jax
from mas_jax import trees
from mas_jax.fused.engine import fused_engine, trace
from mas_jax.fused.plan import Plan, make_plan
from mas_jax.options import MAGNITUDES
from mas_jax.per_sample import BatchSums, sample_value_fn, vmap_engine

FALLS_BACK = "falls back"
UNUSED = "unused"
DENSE = "dense"
POSITIONS = "dense over positions"
CONVOLUTION = "convolution"
DEPTHWISE = "depthwise convolution"
EMBEDDING = "embedding"

COMPILER_OPTIONS = {"xla_backend_optimization_level": 0}
"""Compiling is most of what these tests take, and the numbers are the same without."""


class Results(NamedTuple):
    """What the engines make of a network and a batch, by magnitude."""

    fused: dict[str, BatchSums]
    vmap: dict[str, BatchSums]


class Network(NamedTuple):
    """A function, parameters, a batch for it, and the rule that each leaf falls under."""

    apply_fn: Callable[[Any, Any], Any]
    params: Any
    batch: Any
    rules: Mapping[str, str]  # regular expression for leaf paths -> rule; no match: falls back
    mask: Any = None
    objective: Callable[[Any], Any] = mas_jax.squared_l2_norm

    def expected_rules(self) -> dict[str, str]:
        """The rule for each covered leaf, by path."""
        covered = trees.covered(self.params, self.mask)
        paths = trees.leaves_by_path(trees.select(self.params, covered))
        return {name: self._expected_rule(name) for name in map(trees.path_name, paths)}

    def _expected_rule(self, name: str) -> str:
        """That of the first expression that the leaf's path matches."""
        matches = (rule for pattern, rule in self.rules.items() if re.search(pattern, name))
        return next(matches, FALLS_BACK)


def plan_of(network: Network) -> tuple[list[str], Plan]:
    """The covered leaves' paths, and the fused engine's plan for them."""
    selected = trees.select(network.params, trees.covered(network.params, network.mask))
    value_fn = sample_value_fn(network.apply_fn, network.objective)
    traced = trace(value_fn, network.params, selected, network.batch)
    names = [trees.path_name(path) for path in trees.leaves_by_path(selected)]
    return names, make_plan(traced.closed, len(traced.leaves))


def rules_of(network: Network) -> dict[str, str]:
    """The rule that the plan has for each covered leaf, by path."""
    names, plan = plan_of(network)
    without_rule = {True: FALLS_BACK, False: UNUSED}
    return {
        name: leaf.rule.name if leaf.rule else without_rule[leaf.falls_back]
        for name, leaf in zip(names, plan.leaves, strict=True)
    }


def compiled(
    network: Network,
    magnitudes: Sequence[str] = ("abs",),
    engines: Sequence[str] = ("fused", "vmap"),
    **options: Any,
) -> Callable[[Any, Any], Results]:
    """(batch, weights) -> what the engines make of it. All in one, since compiling takes long."""
    covered = trees.covered(network.params, network.mask)

    def run(params: Any, batch: Any, weights: jax.Array) -> Results:
        def sums(engine: Any, magnitude: str, **options: Any) -> BatchSums:
            built = engine(network.apply_fn, network.objective, MAGNITUDES[magnitude], **options)
            return built(params, covered, batch, weights)

        return Results(
            {
                name: sums(fused_engine, name, **options)
                for name in magnitudes
                if "fused" in engines
            },
            {name: sums(vmap_engine, name) for name in magnitudes if "vmap" in engines},
        )

    run = jax.jit(run, compiler_options=COMPILER_OPTIONS)
    return lambda batch, weights: run(network.params, batch, jnp.asarray(weights))


def assert_close(got: Any, wanted: Any, tolerance: float = 1e-5) -> None:
    """Leaf by leaf: the largest error, relative to the leaf's largest entry."""
    wanted_leaves = trees.leaves_by_path(wanted)
    got_leaves = trees.leaves_by_path(got)
    assert list(got_leaves) == list(wanted_leaves)
    for path, wanted_leaf in wanted_leaves.items():
        wide = complex if np.iscomplexobj(wanted_leaf) else np.float64
        wanted_leaf, got_leaf = (np.asarray(x, wide) for x in (wanted_leaf, got_leaves[path]))
        assert got_leaf.shape == wanted_leaf.shape, trees.path_name(path)
        assert np.isfinite(wanted_leaf).all(), trees.path_name(path)
        error = np.abs(got_leaf - wanted_leaf).max(initial=0)
        largest = np.abs(wanted_leaf).max(initial=0)
        # Not `error > …`: a NaN must fail, too.
        assert error <= tolerance * largest, f"{trees.path_name(path)}: {error} of {largest}"


def assert_engines_agree(
    network: Network,
    weights: Any = None,
    magnitudes: Sequence[str] = ("abs", "square"),
    **options: Any,
) -> None:
    """The same sums, flags and outputs, by the expected rules; of weights that differ."""
    assert rules_of(network) == network.expected_rules()
    weights = np.linspace(0.5, 2, size_of(network.batch)) if weights is None else weights
    results = compiled(network, magnitudes, **options)(network.batch, weights)
    for magnitude, fused in results.fused.items():
        assert_close(fused.sums, results.vmap[magnitude].sums)
        np.testing.assert_array_equal(fused.finite, results.vmap[magnitude].finite)
        assert_close(fused.outputs, results.vmap[magnitude].outputs)


def size_of(batch: Any) -> int:
    """How many samples a batch has."""
    return len(jax.tree.leaves(batch)[0])


def batch_of(*shape: int, seed: int = 0) -> np.ndarray:
    """A batch of normally distributed numbers."""
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def tokens_of(*shape: int, vocabulary: int, seed: int = 0) -> np.ndarray:
    """A batch of token sequences with repetitions."""
    return np.random.default_rng(seed).integers(0, vocabulary, shape).astype(np.int32)


def drawn_like(shapes: Any, seed: int = 1) -> Any:
    """Arrays like `shapes`: kernels that keep a signal's size, biases and scales near 0 and 1."""
    rng = np.random.default_rng(seed)

    def draw(path: Any, shape: Any) -> jax.Array:
        name = trees.path_name(path)
        values = rng.normal(size=shape.shape)
        if "scale" in name:
            values = 1 + 0.1 * values
        elif "var" in name:
            values = 0.5 + np.abs(values)
        elif len(shape.shape) < 2:
            values = 0.1 * values
        else:
            values = values / math.sqrt(math.prod(shape.shape[:-1]))
        return jnp.asarray(values, shape.dtype)

    return jax.tree_util.tree_map_with_path(draw, shapes)


def linen(
    module: nn.Module, batch: Any, rules: Mapping[str, str], mask: Any = None, **eval_kwargs: Any
) -> Network:
    """The network of a linen module."""
    init = functools.partial(module.init, **eval_kwargs)
    variables = drawn_like(jax.eval_shape(init, jax.random.key(0), batch))
    apply_fn, params = mas_jax.from_linen(module, variables, **eval_kwargs)
    return Network(apply_fn, params, batch, rules, mask)


def mlp() -> Network:
    """A multi-layer perceptron."""
    module = nn.Sequential([nn.Dense(6), nn.tanh, nn.Dense(5), nn.relu, nn.Dense(3)])
    return linen(module, batch_of(6, 4), {"kernel": DENSE})


class LeNet(nn.Module):
    """LeNet-5, narrow."""

    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        dtypes: dict[str, Any] = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        x = nn.tanh(nn.Conv(3, (5, 5), **dtypes)(x))
        x = nn.avg_pool(x, (2, 2), (2, 2))
        x = nn.tanh(nn.Conv(4, (5, 5), padding="VALID", **dtypes)(x))
        x = nn.avg_pool(x, (2, 2), (2, 2))
        x = x.reshape(len(x), -1)
        x = nn.tanh(nn.Dense(6, **dtypes)(x))
        x = nn.tanh(nn.Dense(5, **dtypes)(x))
        return nn.Dense(3, **dtypes)(x)


def lenet(dtype: Any = jnp.float32, param_dtype: Any = jnp.float32) -> Network:
    """LeNet-5, narrow."""
    rules = {"Conv.*kernel": CONVOLUTION, "Dense.*kernel": DENSE}
    return linen(LeNet(dtype, param_dtype), batch_of(5, 12, 12, 1), rules)


class AlexNet(nn.Module):
    """AlexNet: strided 11 × 11 windows, overlapping pools, two groups; narrow and small."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = nn.relu(nn.Conv(4, (11, 11), (4, 4), padding="VALID")(x))
        x = nn.max_pool(x, (3, 3), (2, 2))
        x = nn.relu(nn.Conv(6, (5, 5), feature_group_count=2)(x))
        x = nn.max_pool(x, (2, 2), (1, 1))
        x = nn.relu(nn.Conv(4, (3, 3))(x))
        x = nn.relu(nn.Conv(4, (3, 3), feature_group_count=2)(x))
        x = nn.relu(nn.Conv(4, (3, 3), feature_group_count=2)(x))
        x = x.reshape(len(x), -1)
        x = nn.relu(nn.Dense(6)(x))
        x = nn.relu(nn.Dense(6)(x))
        return nn.Dense(3)(x)


def alexnet() -> Network:
    """AlexNet, narrow and small."""
    rules = {"Conv.*kernel": CONVOLUTION, "Dense.*kernel": DENSE}
    return linen(AlexNet(), batch_of(4, 35, 35, 3), rules)


class VggBlock(nn.Module):
    """Two 3 × 3 convolutions and a pool, and a head."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = nn.relu(nn.Conv(4, (3, 3))(x))
        x = nn.relu(nn.Conv(5, (3, 3))(x))
        x = nn.max_pool(x, (2, 2), (2, 2))
        return nn.Dense(3)(x.reshape(len(x), -1))


def vgg_block() -> Network:
    """A block of VGG."""
    rules = {"Conv.*kernel": CONVOLUTION, "Dense.*kernel": DENSE}
    return linen(VggBlock(), batch_of(5, 6, 6, 3), rules)


class ResNet(nn.Module):
    """A stem and two residual blocks, the second with a stride and a projection."""

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        conv = functools.partial(nn.Conv, use_bias=False)
        norm = functools.partial(nn.BatchNorm, use_running_average=not train)
        x = nn.relu(norm()(conv(3, (3, 3))(x)))
        for features, strides in [(3, (1, 1)), (4, (2, 2))]:
            y = nn.relu(norm()(conv(features, (3, 3), strides)(x)))
            y = norm()(conv(features, (3, 3))(y))
            if y.shape != x.shape:
                x = norm()(conv(features, (1, 1), strides)(x))
            x = nn.relu(x + y)
        return nn.Dense(3)(x.mean(axis=(1, 2)))


def resnet() -> Network:
    """A residual network with batch normalisation in evaluation mode."""
    rules = {"Conv.*kernel": CONVOLUTION, "Dense.*kernel": DENSE}
    return linen(ResNet(), batch_of(4, 6, 6, 2), rules, train=False)


class DepthwiseSeparable(nn.Module):
    """Two depthwise convolutions, the second with two outputs per channel, each mixed after."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = nn.Conv(4, (3, 3), feature_group_count=4, name="depthwise0")(x)
        x = nn.relu(nn.Conv(3, (1, 1), name="pointwise0")(x))
        x = nn.Conv(6, (3, 3), (2, 2), feature_group_count=3, name="depthwise1")(x)
        x = nn.relu(nn.Conv(3, (1, 1), name="pointwise1")(x))
        return x.mean(axis=(1, 2))


def depthwise_separable() -> Network:
    """Depthwise and pointwise convolutions in turn."""
    rules = {"depthwise.*kernel": DEPTHWISE, "pointwise.*kernel": CONVOLUTION}
    return linen(DepthwiseSeparable(), batch_of(4, 6, 6, 4), rules)


def grouped() -> Network:
    """Grouped, strided and dilated convolutions, padded and cropped."""
    layers = [
        nn.Conv(6, (3, 2), (2, 1), padding=((1, 2), (0, 1)), feature_group_count=2),
        nn.tanh,
        nn.Conv(3, (2, 2), padding="VALID", kernel_dilation=(1, 2), feature_group_count=3),
        nn.tanh,
        nn.Conv(2, (2, 2), padding=((-1, 0), (0, 0)), input_dilation=(2, 1)),
    ]
    return linen(nn.Sequential(layers), batch_of(4, 7, 5, 4), {"kernel": CONVOLUTION})


def transposed() -> Network:
    """Transposed convolutions, the second with the kernel of the convolution it transposes."""
    layers = [
        nn.ConvTranspose(3, (3, 3), (2, 2)),
        nn.tanh,
        nn.ConvTranspose(2, (2, 3), (1, 2), padding="VALID", transpose_kernel=True),
    ]
    return linen(nn.Sequential(layers), batch_of(4, 3, 4, 2), {"kernel": CONVOLUTION})


def causal_convolutions() -> Network:
    """Dilated causal convolutions over a sequence."""
    layers = [
        nn.Conv(4, 3, padding="CAUSAL"),
        nn.tanh,
        nn.Conv(3, 2, padding="CAUSAL", kernel_dilation=2),
    ]
    return linen(nn.Sequential(layers), batch_of(5, 6, 2), {"kernel": CONVOLUTION})


def volumes() -> Network:
    """Convolutions over three axes of space."""
    layers = [nn.Conv(3, (2, 3, 2), (1, 2, 1)), nn.tanh, nn.Conv(2, (2, 2, 2), padding="VALID")]
    return linen(nn.Sequential(layers), batch_of(3, 3, 4, 3, 2), {"kernel": CONVOLUTION})


def unshared_convolution() -> Network:
    """A convolution with another kernel at every position."""
    layers = [nn.ConvLocal(3, (2, 2), padding="VALID"), nn.tanh, nn.Conv(2, (2, 2))]
    rules = {"layers_0.*kernel": DENSE, "layers_2.*kernel": CONVOLUTION}
    return linen(nn.Sequential(layers), batch_of(4, 4, 3, 2), rules)


class EncoderBlock(nn.Module):
    """Self-attention and a two-layer perceptron, with normalisation before each."""

    causal: bool = False
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        dtypes: dict[str, Any] = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        mask = nn.make_causal_mask(jnp.ones(x.shape[:2])) if self.causal else None
        # A bias of the keys would have a gradient of rounding errors: softmax does not see it.
        attention = nn.MultiHeadDotProductAttention(num_heads=2, use_bias=False, **dtypes)
        x = x + attention(nn.LayerNorm(**dtypes)(x), mask=mask)
        y = nn.gelu(nn.Dense(6, **dtypes)(nn.LayerNorm(**dtypes)(x)))
        return x + nn.Dense(x.shape[-1], **dtypes)(y)


class Vit(nn.Module):
    """A vision transformer with a class token."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = nn.Conv(4, (2, 2), (2, 2), name="patches")(x).reshape(len(x), -1, 4)
        token = self.param("token", nn.initializers.normal(), (1, 1, 4))
        x = jnp.concatenate([jnp.broadcast_to(token, (len(x), 1, 4)), x], axis=1)
        x = x + self.param("positions", nn.initializers.normal(), (1, x.shape[1], 4))
        x = EncoderBlock()(EncoderBlock()(x))
        return nn.Dense(3, name="head")(nn.LayerNorm()(x)[:, 0])


def vit() -> Network:
    """A vision transformer."""
    rules = {"patches.*kernel": CONVOLUTION, "head.*kernel": DENSE, "kernel": POSITIONS}
    return linen(Vit(), batch_of(4, 4, 4, 3), rules)


class LanguageModel(nn.Module):
    """A causal transformer over tokens."""

    tied: bool = True
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, tokens: jax.Array) -> jax.Array:
        dtypes: dict[str, Any] = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        embed = nn.Embed(7, 4, name="tokens", **dtypes)
        positions = nn.Embed(tokens.shape[1], 4, name="positions", **dtypes)
        x = embed(tokens) + positions(jnp.arange(tokens.shape[1]))[None]
        x = EncoderBlock(causal=True, **dtypes)(x)
        return embed.attend(x) if self.tied else nn.Dense(7, name="head", **dtypes)(x)


def tied_transformer() -> Network:
    """A language model whose embedding is its head, too, and so falls back."""
    rules = {"tokens": FALLS_BACK, "embedding": EMBEDDING, "kernel": POSITIONS}
    return linen(LanguageModel(), tokens_of(5, 6, vocabulary=7), rules)


def untied_transformer(dtype: Any = jnp.float32, param_dtype: Any = jnp.float32) -> Network:
    """A language model with a head of its own."""
    rules = {"embedding": EMBEDDING, "kernel": POSITIONS}
    module = LanguageModel(False, dtype, param_dtype)
    return linen(module, tokens_of(5, 6, vocabulary=7), rules)


class Lstm(nn.Module):
    """A recurrent network over tokens, and a head on its last state."""

    @nn.compact
    def __call__(self, tokens: jax.Array) -> jax.Array:
        x = nn.Embed(6, 3)(tokens)
        states: Any = nn.RNN(nn.OptimizedLSTMCell(4))(x)
        return nn.Dense(2, name="head")(states[:, -1])


def lstm() -> Network:
    """An LSTM: its weights are used at every step, and fall back."""
    rules = {"embedding": EMBEDDING, "head.*kernel": DENSE}
    return linen(Lstm(), tokens_of(4, 5, vocabulary=6), rules)


class Layer(nn.Module):
    """One of many in a stack."""

    @nn.compact
    def __call__(self, x: jax.Array, _: Any = None) -> Any:
        y = nn.tanh(nn.Dense(5)(nn.LayerNorm()(x)))
        return x + nn.Dense(x.shape[-1])(y), None


class Stack(nn.Module):
    """Three layers in a row, scanned over, recomputed in the backward pass, or both."""

    scanned: bool
    recomputed: bool

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        layer = nn.remat(Layer) if self.recomputed else Layer
        if self.scanned:
            axes: Any = {"params": 0}
            layer = nn.scan(layer, variable_axes=axes, split_rngs={"params": True}, length=3)
            x, _ = layer()(x)
        else:
            for _ in range(3):
                x, _ = layer()(x)
        return nn.Dense(2, name="head")(x)


def scanned_stack() -> Network:
    """Layers in `nn.scan`, over tokens."""
    return linen(Stack(True, False), batch_of(4, 3, 4), {"kernel": POSITIONS})


def recomputed_stack() -> Network:
    """Layers in `nn.remat`, one position each."""
    return linen(Stack(False, True), batch_of(5, 4), {"kernel": DENSE})


def recomputed_scan() -> Network:
    """Layers in `nn.remat` in `nn.scan`, one position each."""
    return linen(Stack(True, True), batch_of(5, 4), {"kernel": DENSE})


class WeightNormalised(nn.Module):
    """Layers whose kernels are a direction and a length."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = nn.tanh(nn.WeightNorm(nn.Conv(3, (2, 2)))(x))
        x = nn.tanh(nn.WeightNorm(nn.Dense(4))(x.reshape(len(x), -1)))
        return nn.Dense(2, name="head")(x)


def weight_normalised() -> Network:
    """A network with weight normalisation: what computes a kernel from leaves falls back."""
    return linen(WeightNormalised(), batch_of(4, 3, 3, 2), {"head.*kernel": DENSE})


class Adapted(nn.Module):
    """Dense layers with low-rank adapters, over tokens."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        for i, features in enumerate((5, 3)):
            down = nn.Dense(2, use_bias=False, name=f"adapter{i}_down")
            up = nn.Dense(features, use_bias=False, name=f"adapter{i}_up")
            x = nn.tanh(nn.Dense(features, name=f"layer{i}")(x) + 0.5 * up(down(x)))
        return x


def adapters() -> Network:
    """Low-rank adapters beside frozen layers."""

    def mask(params: Any) -> Any:
        return {name: name.startswith("adapter") for name in params}

    return linen(Adapted(), batch_of(5, 3, 4), {"kernel": POSITIONS}, mask)


def adapters_and_layers() -> Network:
    """Low-rank adapters, and the layers that they adapt."""
    return linen(Adapted(), batch_of(5, 3, 4), {"kernel": POSITIONS})


def one_position() -> Network:
    """A network made for sequences, given sequences of one."""
    layers = [nn.Dense(8), nn.LayerNorm(), nn.tanh, nn.Dense(3)]
    return linen(nn.Sequential(layers), batch_of(5, 1, 4), {"kernel": DENSE})


def experts() -> Network:
    """A mixture of experts: one stack of kernels under `vmap`, and a gate."""
    rng = np.random.default_rng(1)
    params = {
        "experts": rng.normal(size=(3, 4, 2)).astype(np.float32),
        "gate": rng.normal(size=(4, 3)).astype(np.float32),
    }

    def apply_fn(params: Any, x: jax.Array) -> jax.Array:
        outputs = jax.vmap(lambda kernel: jnp.tanh(x @ kernel), out_axes=1)(params["experts"])
        return jnp.sum(jax.nn.softmax(x @ params["gate"])[:, :, None] * outputs, axis=1)

    return Network(apply_fn, params, batch_of(5, 4), {".": DENSE})


def one_of_each(size: int, dtype: Any = jnp.float32) -> Network:
    """A use by each rule, and a leaf that falls back, all with gradients of 1 for every sample."""
    shapes = {
        "dense": (1, 1),
        "positions": (1, 1),
        "convolution": (1, 1, 1),
        "depthwise": (2, 1, 1),
        "embedding": (1, 1),
        "bias": (1,),
    }
    rules = {
        "dense": DENSE,
        "positions": POSITIONS,
        "convolution": CONVOLUTION,
        "depthwise": DEPTHWISE,
        "embedding": EMBEDDING,
    }
    params = {name: jnp.ones(shape, dtype) for name, shape in shapes.items()}
    batch = {"ones": np.ones((size, 1), dtype), "token": np.zeros(size, np.int32)}

    def convolve(images: jax.Array, kernel: jax.Array, groups: int) -> jax.Array:
        return jax.lax.conv_general_dilated(
            images, kernel, (1,), "VALID", feature_group_count=groups
        )

    def apply_fn(params: Any, batch: Any) -> Any:
        x = batch["ones"]
        channels = jnp.broadcast_to(x[:, :, None], (len(x), 2, 2))  # at two positions
        tokens = jnp.swapaxes(channels[:, :1], 1, 2)
        return (
            x @ params["dense"],
            tokens @ params["positions"] / 2,
            convolve(channels[:, :1], params["convolution"], 1) / 2,
            convolve(channels, params["depthwise"], 2) / 2,
            x * params["embedding"][batch["token"]],
            x * params["bias"].reshape(1, 1),
        )

    def objective(outputs: Any) -> jax.Array:
        return sum((jnp.sum(leaf) for leaf in outputs), start=jnp.zeros((), dtype))

    return Network(apply_fn, params, batch, rules, objective=objective)


def unused_leaf() -> Network:
    """A network with a leaf that it does not use."""
    network = mlp()
    params = {"used": network.params, "unused": jnp.ones((3, 4))}

    def apply_fn(params: Any, x: jax.Array) -> jax.Array:
        return network.apply_fn(params["used"], x)

    return Network(apply_fn, params, network.batch, {"unused": UNUSED, "kernel": DENSE})


def returned_leaf() -> Network:
    """A network with a leaf among its outputs, beside what it computes from another."""
    rng = np.random.default_rng(1)
    params = {
        "kernel": rng.normal(size=(4, 3)).astype(np.float32),
        "returned": rng.normal(size=(2, 3)).astype(np.float32),
    }

    def apply_fn(params: Any, x: jax.Array) -> Any:
        leaf = jnp.broadcast_to(params["returned"], (len(x), 2, 3))
        return {"outputs": x @ params["kernel"], "leaf": leaf}

    return Network(apply_fn, params, batch_of(5, 4), {"kernel": DENSE})


class NnxMlp(nnx.Module):
    """A multi-layer perceptron."""

    def __init__(self, rngs: nnx.Rngs):
        self.hidden = nnx.Linear(4, 5, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)
        self.head = nnx.Linear(5, 3, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.head(self.dropout(nnx.tanh(self.hidden(x))))


def nnx_mlp() -> Network:
    """A multi-layer perceptron in nnx, with dropout off."""
    apply_fn, params = mas_jax.from_nnx(NnxMlp(nnx.Rngs(0)))
    return Network(apply_fn, params, batch_of(6, 4), {"kernel": DENSE})


class NnxResNet(nnx.Module):
    """A residual block with batch normalisation."""

    def __init__(self, rngs: nnx.Rngs):
        self.stem = nnx.Conv(2, 3, (3, 3), rngs=rngs)
        self.norm = nnx.BatchNorm(3, rngs=rngs)
        self.conv = nnx.Conv(3, 3, (3, 3), feature_group_count=3, rngs=rngs)
        self.head = nnx.Linear(3, 2, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = nnx.tanh(self.stem(x))
        x = x + self.conv(nnx.relu(self.norm(x)))
        return self.head(x.mean(axis=(1, 2)))


def nnx_resnet() -> Network:
    """A residual network in nnx, its batch normalisation in evaluation mode."""
    model = NnxResNet(nnx.Rngs(0))
    model.norm.mean[...] = jnp.array([0.1, -0.2, 0.3])
    model.norm.var[...] = jnp.array([0.5, 1.5, 2.0])
    apply_fn, params = mas_jax.from_nnx(model)
    rules = {"stem.*kernel": CONVOLUTION, "conv.*kernel": DEPTHWISE, "head.*kernel": DENSE}
    return Network(apply_fn, params, batch_of(4, 4, 4, 2), rules)


ZOO: tuple[Callable[[], Network], ...] = (
    mlp,
    lenet,
    alexnet,
    vgg_block,
    resnet,
    depthwise_separable,
    grouped,
    transposed,
    causal_convolutions,
    volumes,
    unshared_convolution,
    vit,
    tied_transformer,
    untied_transformer,
    lstm,
    scanned_stack,
    recomputed_stack,
    recomputed_scan,
    weight_normalised,
    adapters,
    adapters_and_layers,
    one_position,
    experts,
    unused_leaf,
    returned_leaf,
    nnx_mlp,
    nnx_resnet,
)
"""Every network of this file."""
