"""l-MAS: the importance of every layer for its own outputs, against loops and by its rule."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import mas_jax
from mas_jax import accumulation, local, trees
from tests import networks, oracle_local
from tests.networks import assert_close

RNG = np.random.default_rng(0)
KERNELS = {
    "first": RNG.normal(size=(4, 5)).astype(np.float32),
    "second": RNG.normal(size=(5, 3)).astype(np.float32),
}
BIASES = {"first": np.float32([0.1, -0.2, 0.3, 0.0, 0.2]), "second": np.float32([0.5, -0.1, 0.2])}
PARAMS = {
    name: {"kernel": jnp.asarray(KERNELS[name]), "bias": jnp.asarray(BIASES[name])}
    for name in KERNELS
}
SAMPLES = RNG.normal(size=(7, 4)).astype(np.float32)
ENGINES = ("fused", "vmap")


def dense(leaf, x):
    # reshape, since rank promotion is an error here.
    return x @ leaf["kernel"] + leaf["bias"].reshape(*[1] * (x.ndim - 1), -1)


def relu_mlp(params, x):
    return dense(params["second"], jax.nn.relu(dense(params["first"], x)))


def in_double(tree):
    return jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), tree)


def estimated(apply_fn, params, batches, **options):
    """Ω, as users have it."""
    return mas_jax.estimate_importance(mas_jax.local_outputs(apply_fn), params, batches, **options)


def both(apply_fn, params, batch):
    """Ω of a batch by the fused engine, once the vmap engine is seen to agree."""
    network = networks.Network(mas_jax.local_outputs(apply_fn), params, batch, {})
    size = networks.size_of(batch)
    results = networks.compiled(network)(batch, np.ones(size, np.float32))
    assert_close(results.fused["abs"].sums, results.vmap["abs"].sums)
    return jax.tree.map(lambda sums: sums / size, results.fused["abs"].sums)


def layers(apply_fn, params, batch):
    """Every layer's output, as it is explained, by name."""
    found = local.layers_of(mas_jax.local_outputs(apply_fn), params, batch)
    return {layer.name: f"{layer.size} after {layer.operation}" for layer in found}


def prefixed(name, grads):
    return {f"{name}.{key}": grad for key, grad in grads.items()}


def flat(importance):
    """{"first.kernel": …} of a tree two levels deep."""
    return {f"{a}.{b}": leaf for a, inner in importance.items() for b, leaf in inner.items()}


# Against the oracle.


def oracle_mlp(activation="relu"):
    weights = in_double(PARAMS)

    def gradients(x):
        y, first = oracle_local.dense(x, **weights["first"], activation=activation)
        _, second = oracle_local.dense(y, **weights["second"])
        return prefixed("first", first) | prefixed("second", second)

    return oracle_local.mean_magnitude(gradients, SAMPLES)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_relu_mlp_is_hebbs_rule(engine):
    # y = relu(xW + b): ∂‖y‖²/∂W_ij = 2 y_j [z_j > 0] x_i = 2 x_i y_j, since y_j is 0 where z_j is
    # not positive. Both factors are at least 0 but in the first layer, where x_i is the input.
    importance = estimated(relu_mlp, PARAMS, [SAMPLES[:4], SAMPLES[4:]], engine=engine)
    hidden = np.maximum(SAMPLES.astype(np.float64) @ KERNELS["first"] + BIASES["first"], 0)
    outputs = hidden @ KERNELS["second"] + BIASES["second"]
    hebb = {
        "first.kernel": 2 * np.abs(SAMPLES).T @ hidden / len(SAMPLES),
        "first.bias": 2 * hidden.mean(0),
        "second.kernel": 2 * hidden.T @ np.abs(outputs) / len(SAMPLES),
        "second.bias": 2 * np.abs(outputs).mean(0),
    }
    assert_close(flat(importance), hebb)
    assert_close(flat(importance), oracle_mlp())


def test_one_connection_by_hand():
    # x = 2, W = 1.5, b = −1, so y = relu(2) = 2 and Ω_W = 2 x y = 8, Ω_b = 2 y = 4. Then the
    # linear z = −3 y = −6: Ω = |2 y z| = 24.
    params = {"w": jnp.array([[1.5]]), "b": jnp.array([[-1.0]]), "v": jnp.array([[-3.0]])}

    def apply_fn(params, x):
        return jax.nn.relu(x @ params["w"] + params["b"]) @ params["v"]

    importance = estimated(apply_fn, params, [np.float32([[2.0]])])
    assert {name: float(leaf.item()) for name, leaf in importance.items()} == {
        "w": 8.0,
        "b": 4.0,
        "v": 24.0,
    }


@pytest.mark.parametrize("activation", ["relu", "tanh", "sigmoid", "silu", "gelu", "softplus"])
def test_activations_belong_to_the_layer_before_them(activation):
    activate = jnp.tanh if activation == "tanh" else getattr(jax.nn, activation)

    def apply_fn(params, x):
        return dense(params["second"], activate(dense(params["first"], x)))

    assert_close(flat(both(apply_fn, PARAMS, SAMPLES)), oracle_mlp(activation))


@pytest.mark.parametrize("wrap", [jax.jit, jax.checkpoint, nn.jit], ids=["jit", "remat", "flax"])
def test_activations_in_calls_belong_to_the_layer_too(wrap):
    if wrap is nn.jit:
        module = nn.Sequential([nn.jit(nn.Dense)(5), nn.relu, nn.Dense(3)])
        apply_fn, params = mas_jax.from_linen(
            module, {"params": {"layers_0": PARAMS["first"], "layers_2": PARAMS["second"]}}
        )
    else:
        relu, params = wrap(jax.nn.relu), PARAMS

        def apply_fn(params, x):
            return dense(params["second"], relu(dense(params["first"], x)))

    importance = flat(both(apply_fn, params, SAMPLES))
    assert_close(list(importance.values()), [oracle_mlp()[name] for name in sorted(oracle_mlp())])


class ConvNet(nn.Module):
    """A convolution, pooling, another, and a head."""

    @nn.compact
    def __call__(self, x):
        x = nn.max_pool(nn.relu(nn.Conv(3, (2, 2), padding="VALID", name="a")(x)), (2, 2), (2, 2))
        x = nn.tanh(nn.Conv(2, (2, 2), padding="VALID", name="b")(x))
        return nn.Dense(3, name="head")(x.reshape(len(x), -1))


def test_a_convolutional_network():
    images = RNG.normal(size=(3, 7, 7, 2)).astype(np.float32)
    network = networks.linen(ConvNet(), images, {})
    weights = in_double(network.params)

    def gradients(x):
        y, first = oracle_local.convolution(x, **weights["a"], activation="relu")
        y, second = oracle_local.convolution(
            oracle_local.max_pool(y), **weights["b"], activation="tanh"
        )
        _, head = oracle_local.dense(y.ravel(), **weights["head"])
        return prefixed("a", first) | prefixed("b", second) | prefixed("head", head)

    importance = both(network.apply_fn, network.params, images)
    assert_close(flat(importance), oracle_local.mean_magnitude(gradients, images))
    assert layers(network.apply_fn, network.params, images) == {
        "['a']['kernel']": f"{6 * 6 * 3} after relu",
        "['b']['kernel']": f"{2 * 2 * 2} after tanh",
        "['head']['kernel']": "3 after add",
    }


def test_batch_normalisation_in_evaluation_mode_belongs_to_the_layer_before_it():
    module = nn.Sequential(
        [nn.Dense(5, use_bias=False), nn.BatchNorm(use_running_average=True), nn.relu, nn.Dense(3)]
    )
    variables = networks.drawn_like(jax.eval_shape(module.init, jax.random.key(0), SAMPLES))
    apply_fn, params = mas_jax.from_linen(module, variables)
    statistics, weights = in_double(variables["batch_stats"]["layers_1"]), in_double(params)

    def gradients(x):
        y, first = oracle_local.dense_batch_norm(
            x, weights["layers_0"]["kernel"], weights["layers_1"] | statistics, "relu"
        )
        _, head = oracle_local.dense(y, **weights["layers_3"])
        return {"layers_0.kernel": first.pop("kernel")} | (
            prefixed("layers_1", first) | prefixed("layers_3", head)
        )

    expected = oracle_local.mean_magnitude(gradients, SAMPLES)
    assert_close(flat(both(apply_fn, params, SAMPLES)), expected)


class Block(nn.Module):
    """Embeddings, a normalisation, attention with a residual connection."""

    @nn.compact
    def __call__(self, tokens):
        where = self.param("positions", nn.initializers.normal(), (5, 4))
        x = nn.Embed(6, 4, name="tokens")(tokens) + where[None]
        heads = {"num_heads": 2, "use_bias": False}
        attention = nn.MultiHeadDotProductAttention(**heads, name="attention")
        return x + attention(nn.LayerNorm(name="norm")(x))


def test_embeddings_normalisation_and_attention():
    tokens = networks.tokens_of(3, 5, vocabulary=6)
    network = networks.linen(Block(), tokens, {})
    weights = in_double(network.params)
    projections = weights["attention"]

    def project(x, name, scale=1.0):
        kernel = projections[name]["kernel"].reshape(4, 4) * scale
        y, grads = oracle_local.dense(x, kernel)
        return y, grads["kernel"].reshape(projections[name]["kernel"].shape) * scale

    def gradients(tokens):
        x, embedded = oracle_local.embedding(
            tokens, weights["tokens"]["embedding"], weights["positions"]
        )
        y, norm = oracle_local.layer_norm(x, **weights["norm"])
        # The query is divided by the root of a head's width, 2, which belongs to its layer.
        parts = {name: project(y, name) for name in ("key", "value")}
        parts["query"] = project(y, "query", 1 / np.sqrt(2))
        mixed = oracle_local.attention(
            *(parts[name][0].reshape(5, 2, 2) for name in ("query", "key", "value"))
        )
        parts["out"] = project(mixed.reshape(5, 4), "out")
        return {
            "['tokens']['embedding']": embedded["table"],
            "['positions']": embedded["positions"],
            "['norm']['scale']": norm["scale"],
            "['norm']['bias']": norm["bias"],
        } | {f"['attention']['{name}']['kernel']": grad for name, (_, grad) in parts.items()}

    importance = both(network.apply_fn, network.params, tokens)
    by_path = {trees.path_name(path): x for path, x in trees.leaves_by_path(importance).items()}
    expected = oracle_local.mean_magnitude(gradients, tokens)
    assert by_path.keys() == expected.keys()
    assert_close(by_path, {name: expected[name] for name in by_path})


def test_weights_used_twice_are_measured_on_both_layers_together():
    # h = tanh(xW), y = tanh(hW): g = g_1 + g_2 for each sample, and the magnitude comes after.
    kernel = RNG.normal(size=(4, 4)).astype(np.float32)

    def gradients(x):
        y, first = oracle_local.dense(x, in_double(kernel), activation="tanh")
        _, second = oracle_local.dense(y, in_double(kernel), activation="tanh")
        return {"kernel": first["kernel"] + second["kernel"]}

    def apply_fn(params, x):
        return jnp.tanh(jnp.tanh(x @ params["kernel"]) @ params["kernel"])

    params = {"kernel": jnp.asarray(kernel)}
    importance = both(apply_fn, params, SAMPLES)
    assert_close(importance, oracle_local.mean_magnitude(gradients, SAMPLES))
    assert list(layers(apply_fn, params, SAMPLES)) == ["['kernel']", "['kernel'] (2)"]


def test_linen_nnx_and_plain_functions_agree():
    module = nn.Sequential([nn.Dense(5), nn.relu, nn.Dense(3)])
    of_linen = mas_jax.from_linen(
        module, {"params": {"layers_0": PARAMS["first"], "layers_2": PARAMS["second"]}}
    )
    model = nnx.Sequential(
        nnx.Linear(4, 5, rngs=nnx.Rngs(0)), nnx.relu, nnx.Linear(5, 3, rngs=nnx.Rngs(0))
    )
    for layer, name in ((model.layers[0], "first"), (model.layers[2], "second")):
        layer.kernel[...], layer.bias[...] = PARAMS[name]["kernel"], PARAMS[name]["bias"]
    expected = jax.tree.leaves(both(relu_mlp, PARAMS, SAMPLES))
    for apply_fn, params in (of_linen, mas_jax.from_nnx(model)):
        assert_close(jax.tree.leaves(both(apply_fn, params, SAMPLES)), expected)


# What the rule says.


def scaled_norm(params, x):
    z = dense(params["first"], x)
    return z / jnp.sqrt(jnp.sum(jnp.square(z), axis=1, keepdims=True)) * params["scale"]


def rms_norm_of_flax(params, x):
    z = dense(params["first"], x)
    return z * (jax.lax.rsqrt(jnp.square(z).mean(1, keepdims=True)) * params["scale"])


def gated_scale(params, x):
    z, gate = dense(params["first"], x), x.mean(1, keepdims=True)
    return z * (gate * params["scale"])


def masked_by_the_sample(params, x):
    return jax.nn.relu(dense(params["first"], x) * (x[:, :1] > 0))


def masked_by_a_constant(params, x):
    mask = np.float32([[1, 0, 1, 0, 1]])
    return jnp.where(mask > 0, jnp.tanh(dense(params["first"], x)), 0.0)


def concatenated_relu(params, x):
    z = dense(params["first"], x)
    return jnp.concatenate([jax.nn.relu(z), jax.nn.relu(-z)], axis=1)


def residual(params, x):
    return jax.nn.relu(jnp.tanh(x @ params["square"]) + x)


def scaled_branch(params, x):
    return x + jnp.tanh(x @ params["square"]) * params["narrow"]


def forked(params, x):
    z = dense(params["first"], x)
    y = dense(params["second"], jax.nn.relu(z * params["scale"]))
    return y + z[:, :3]


def softmax_with_a_temperature(params, x):
    return jax.nn.softmax(dense(params["first"], x) / params["temperature"])


def prelu_and_reshapes(params, x):
    z = dense(params["first"], x)
    z = jnp.where(z > 0, z, z * params["scale"]).reshape(-1, 5, 1)
    return jnp.tanh(jnp.swapaxes(z, 1, 2)).astype(jnp.float16)


def sum_of_two(params, x):
    return jnp.tanh(dense(params["first"], x) + x @ params["wide"])


def stopped(params, x):
    return dense(params["second"], jax.lax.stop_gradient(jnp.tanh(dense(params["first"], x))))


def thresholded(params, x):
    return (jnp.tanh(dense(params["first"], x)) > 0).astype(jnp.float32)


def branching(params, x):
    branches = (dense, lambda leaf, x: -dense(leaf, x))
    return jnp.tanh(jax.lax.cond(x.sum() > 0, *branches, params["first"], x))


def split_in_two(params, x):
    parts = jax.lax.cond(
        x.sum() > 0, lambda z, w: (z @ w, z), lambda z, w: (z, z @ w), x, params["square"]
    )
    return jnp.tanh(parts[0]), parts[1]


def split_and_joined(params, x):
    return sum(split_in_two(params, x))


def class_token(params, x):
    tokens = jnp.concatenate([jnp.broadcast_to(params["token"], (len(x), 1)), x], axis=1)
    return tokens[:, ::-1]


def with_dead_code(params, x):
    z = dense(params["first"], x)
    jnp.sum(z)
    x @ params["square"]
    return jnp.tanh(z)


EXTRA = {
    "scale": jnp.float32([[1.0, -2.0, 0.5, 3.0, 1.5]]),
    "narrow": jnp.float32([[1.0, -2.0, 0.5, 3.0]]),
    "square": jnp.asarray(RNG.normal(size=(4, 4)), jnp.float32),
    "wide": jnp.asarray(RNG.normal(size=(4, 5)), jnp.float32),
    "temperature": jnp.float32([[0.7]]),
    "token": jnp.float32([[0.3]]),
}
FIRST = "['first']['kernel']"


@pytest.mark.parametrize(
    ("apply_fn", "expected"),
    [
        (relu_mlp, {FIRST: "5 after relu", "['second']['kernel']": "3 after add"}),
        (scaled_norm, {FIRST: "5 after add", "['scale']": "5 after mul"}),
        (rms_norm_of_flax, {FIRST: "5 after add", "['scale']": "5 after mul"}),
        (gated_scale, {FIRST: "5 after add", "['scale']": "5 after mul"}),
        (masked_by_the_sample, {FIRST: "5 after add"}),
        (masked_by_a_constant, {FIRST: "5 after select_n"}),
        (concatenated_relu, {FIRST: "5 after add"}),
        (residual, {"['square']": "4 after tanh"}),
        (scaled_branch, {"['square']": "4 after mul"}),
        (
            forked,
            {
                FIRST: "5 after add",
                "['scale']": "5 after relu",
                "['second']['kernel']": "3 after add",
            },
        ),
        (softmax_with_a_temperature, {FIRST: "5 after div"}),
        (prelu_and_reshapes, {FIRST: "5 after tanh"}),
        (sum_of_two, {FIRST: "5 after add", "['wide']": "5 after dot_general"}),
        (stopped, {FIRST: "5 after tanh", "['second']['kernel']": "3 after add"}),
        (thresholded, {FIRST: "5 after tanh"}),
        (branching, {"['first']['bias']": "5 after tanh"}),
        (split_in_two, {"['square']": "8 after cond"}),
        (split_and_joined, {"['square']": "4 after add"}),
        (class_token, {"['token']": "5 after concatenate"}),
        (with_dead_code, {FIRST: "5 after tanh"}),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_where_layers_end(apply_fn, expected):
    params = PARAMS | EXTRA
    assert layers(apply_fn, params, SAMPLES) == expected
    both(apply_fn, params, SAMPLES)


def scanned(params, x):
    """Weights closed over, scanned over and carried, and a parameter as the first state."""

    def step(carry, kernel):
        weights, state = carry
        state = jnp.tanh(state @ kernel + x @ weights + x @ params["square"])
        return (weights, state), state.sum(1)

    start = jnp.broadcast_to(params["narrow"], x.shape)
    stack = jnp.stack([params["square"], 2 * params["square"]])
    (_, state), sums = jax.lax.scan(step, (params["other"], start), stack)
    return state, jnp.swapaxes(sums, 0, 1)


def test_the_layers_of_a_scan():
    other = jnp.asarray(RNG.normal(size=(4, 4)), jnp.float32)
    params = {"narrow": EXTRA["narrow"], "square": EXTRA["square"], "other": other}
    assert layers(scanned, params, SAMPLES) == {
        "['narrow']": "4 after scan",
        "['square']": "8 after dot_general",
        "['other']": "8 after dot_general",
        "['square'] (2)": "8 after dot_general",
    }
    importance = both(scanned, params, SAMPLES)
    # What the state starts from is an output of its own, the same for every sample. The product
    # with "other" is computed twice: 2 · 2 z_j x_i for each sample.
    assert_close(importance["narrow"], 2 * np.abs(params["narrow"]))
    products = SAMPLES.astype(np.float64) @ np.asarray(other)
    expected = 4 * np.abs(SAMPLES).T @ np.abs(products) / len(SAMPLES)
    assert_close(importance["other"], expected)


def test_a_loop_of_unknown_length_between_layers_needs_no_derivative():
    def apply_fn(params, x):
        y = jax.nn.relu(dense(params["first"], x))
        halved = jax.vmap(lambda y: jax.lax.while_loop(is_large, lambda y: y / 2, y))(y)
        return dense(params["second"], halved)

    def is_large(y):
        return jnp.sum(y) > 1

    importance = both(apply_fn, PARAMS, SAMPLES)
    assert_close(importance["first"], both(relu_mlp, PARAMS, SAMPLES)["first"])


def test_a_function_with_a_gradient_of_its_own_begins_a_layer():
    @jax.custom_vjp
    def twice_as_steep(kernel, x):
        return x @ kernel

    twice_as_steep.defvjp(
        lambda kernel, x: (x @ kernel, (kernel, x)),
        lambda saved, dy: (2 * saved[1].T @ dy, dy @ saved[0].T),
    )

    def apply_fn(params, x):
        return jax.nn.relu(twice_as_steep(params["wide"], x))

    params = {"wide": EXTRA["wide"]}
    plain = both(lambda params, x: jax.nn.relu(x @ params["wide"]), params, SAMPLES)
    assert_close(both(apply_fn, params, SAMPLES)["wide"], 2 * plain["wide"])


# Gradients are cut.

LOCAL_ZOO = (
    networks.mlp,
    networks.resnet,
    networks.vit,
    networks.tied_transformer,
    networks.lstm,
    networks.recomputed_scan,
    networks.nnx_resnet,
)


def parametrize_networks(*builders):
    return pytest.mark.parametrize("build", builders, ids=lambda build: build.__name__)


@parametrize_networks(*LOCAL_ZOO)
def test_a_layers_output_depends_on_its_own_parameters_alone(build):
    network = build()
    local_fn = mas_jax.local_outputs(network.apply_fn)
    sample = jax.tree.map(lambda x: x[:1], network.batch)
    found = local.layers_of(local_fn, network.params, network.batch)

    def norms(params):
        outputs = local_fn(params, sample)
        return {name: mas_jax.squared_l2_norm(output) for name, output in outputs.items()}

    compiled = jax.jit(jax.jacrev(norms), compiler_options=networks.COMPILER_OPTIONS)
    gradients = compiled(network.params)
    assert gradients.keys() == {layer.name for layer in found}
    for layer in found:
        for path, grad in trees.leaves_by_path(gradients[layer.name]).items():
            assert (np.abs(grad).max() > 0) == (path in layer.leaves), (layer.name, path)


def test_a_change_of_one_layer_changes_another_only_by_its_input():
    # The head's output is the same, whatever its bias: a bias of the second layer changes Ω of
    # that layer, and not of the first, which global MAS would.
    moved = PARAMS | {"second": PARAMS["second"] | {"bias": jnp.float32([9.0, 9.0, 9.0])}}
    before, after = (both(relu_mlp, params, SAMPLES) for params in (PARAMS, moved))
    jax.tree.map(np.testing.assert_array_equal, before["first"], after["first"])
    assert (np.asarray(before["second"]["bias"]) != np.asarray(after["second"]["bias"])).all()


def test_outputs_are_the_networks_activations():
    outputs = mas_jax.local_outputs(relu_mlp)(PARAMS, SAMPLES)
    hidden = jax.nn.relu(dense(PARAMS["first"], SAMPLES))
    expected = {FIRST: hidden, "['second']['kernel']": relu_mlp(PARAMS, SAMPLES)}
    assert_close(outputs, {name: expected[name] for name in outputs})
    assert outputs.keys() == expected.keys()
    alone = mas_jax.local_outputs(relu_mlp)(PARAMS, SAMPLES[2:3])
    assert_close(alone, jax.tree.map(lambda output: output[2:3], outputs))


# With the rest of the library.


@parametrize_networks(*networks.ZOO)
def test_fused_equals_vmap(build):
    network = build()
    network = network._replace(apply_fn=mas_jax.local_outputs(network.apply_fn))
    weights = np.linspace(0.5, 2, networks.size_of(network.batch))
    results = networks.compiled(network)(network.batch, weights)
    assert_close(results.fused["abs"].sums, results.vmap["abs"].sums)
    assert_close(results.fused["abs"].outputs, results.vmap["abs"].outputs)


def test_a_stack_is_the_same_scanned_recomputed_or_written_out():
    stacked = networks.recomputed_scan()
    (name,) = [name for name in stacked.params if name != "head"]
    shared = {"head": stacked.params["head"]}

    def unstacked(prefix):
        rows = [jax.tree.map(lambda leaf, i=i: leaf[i], stacked.params[name]) for i in range(3)]
        return {f"{prefix}_{i}": row for i, row in enumerate(rows)} | shared

    scan = both(stacked.apply_fn, stacked.params, stacked.batch)
    for recomputed, prefix in ((True, "CheckpointLayer"), (False, "Layer")):
        apply_fn, params = mas_jax.from_linen(
            networks.Stack(False, recomputed), {"params": unstacked(prefix)}
        )
        written_out = both(apply_fn, params, stacked.batch)
        together = jax.tree.map(
            lambda *leaves: jnp.stack(leaves), *(written_out[f"{prefix}_{i}"] for i in range(3))
        )
        assert_close(scan, {name: together, "head": written_out["head"]})


def test_what_the_mask_excludes_is_still_a_layer():
    whole = estimated(relu_mlp, PARAMS, [SAMPLES])
    masked = estimated(relu_mlp, PARAMS, [SAMPLES], mask={"first": False, "second": True})
    assert jax.tree.leaves(masked["first"]) == []
    assert_close(masked["second"], whole["second"])


@pytest.mark.parametrize("options", [{"microbatch_size": 2}, {"magnitude": "square"}], ids=str)
def test_options_are_those_of_any_function(options):
    by_engine = {
        name: estimated(relu_mlp, PARAMS, [SAMPLES], engine=name, **options) for name in ENGINES
    }
    assert_close(by_engine["fused"], by_engine["vmap"])


def test_predict_and_update_returns_the_layers_outputs():
    local_fn = mas_jax.local_outputs(relu_mlp)
    estimator = mas_jax.importance_estimator(local_fn)
    outputs, state = jax.jit(estimator.predict_and_update)(
        estimator.init(PARAMS), PARAMS, SAMPLES, np.ones(7, np.float32)
    )
    assert_close(outputs, local_fn(PARAMS, SAMPLES))
    assert_close(estimator.finalize(state), estimated(relu_mlp, PARAMS, [SAMPLES]))


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_low_precision_is_close_to_float32(dtype):
    params = jax.tree.map(lambda leaf: leaf.astype(dtype), PARAMS)
    exact = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), params)
    samples = jnp.asarray(SAMPLES, dtype)
    low = estimated(relu_mlp, params, [samples])
    assert {leaf.dtype for leaf in jax.tree.leaves(low)} == {jnp.dtype(jnp.float32)}
    # Two products and a bias forward, three operations backward: six roundings of at most ε.
    tolerance = 6 * float(jnp.finfo(dtype).eps)
    assert_close(low, estimated(relu_mlp, exact, [samples.astype(jnp.float32)]), tolerance)


def test_a_second_call_compiles_nothing():
    estimated(relu_mlp, PARAMS, [SAMPLES])
    compiled = accumulation.add_batch_in_place._cache_size()
    estimated(relu_mlp, jax.tree.map(lambda leaf: 2 * leaf, PARAMS), [SAMPLES])
    assert mas_jax.local_outputs(relu_mlp) == mas_jax.local_outputs(relu_mlp)
    assert accumulation.add_batch_in_place._cache_size() == compiled


def test_new_statistics_compile_nothing():
    module = nn.Sequential([nn.Dense(3), nn.BatchNorm(use_running_average=True), nn.relu])
    variables = module.init(jax.random.key(0), SAMPLES)
    importances, compiled = [], 0
    for mean in (0.0, 1.0):
        statistics = jax.tree.map(lambda leaf, mean=mean: leaf + mean, variables["batch_stats"])
        apply_fn, params = mas_jax.from_linen(module, {**variables, "batch_stats": statistics})
        assert isinstance(mas_jax.local_outputs(apply_fn), jax.tree_util.Partial)
        importances.append(estimated(apply_fn, params, [SAMPLES]))
        compiled = compiled or accumulation.add_batch_in_place._cache_size()
    assert accumulation.add_batch_in_place._cache_size() == compiled
    kernels = [np.asarray(importance["layers_0"]["kernel"]) for importance in importances]
    assert (kernels[0] != kernels[1]).any()


# Errors.


def test_coupled_samples_are_found_behind_local_outputs():
    def batch_norm(params, x):
        z = dense(params["first"], x)
        return z - z.mean(axis=0, keepdims=True)

    with pytest.raises(mas_jax.CoupledSamplesError, match="evaluation mode"):
        estimated(batch_norm, PARAMS, [SAMPLES])
    module = nn.Sequential([nn.Dense(3), nn.relu])
    apply_fn, params = mas_jax.from_linen(module, module.init(jax.random.key(0), SAMPLES))
    mas_jax.check_independence(mas_jax.local_outputs(apply_fn), params, SAMPLES)
    coupled = jax.tree_util.Partial(lambda _, params, x: batch_norm(params, x), 1.0)
    with pytest.raises(mas_jax.CoupledSamplesError, match="evaluation mode"):
        mas_jax.check_independence(mas_jax.local_outputs(coupled), PARAMS, SAMPLES)


@pytest.mark.parametrize("apply_fn", [lambda _, x: x, lambda params, x: x > params["scale"]])
def test_a_network_without_layers_is_an_error(apply_fn):
    with pytest.raises(ValueError, match="apply_fn has no layers: no operation takes both"):
        estimated(apply_fn, EXTRA, [SAMPLES[:, :1]])


def test_what_is_no_network_is_an_error():
    with pytest.raises(TypeError, match="apply_fn must be a function, got dict"):
        mas_jax.local_outputs(PARAMS)
    with pytest.raises(ValueError, match="what local_outputs has returned; pass the network"):
        mas_jax.local_outputs(mas_jax.local_outputs(relu_mlp))


def test_a_loss_is_no_output():
    with pytest.raises(ValueError, match="outputs per sample, batched on axis 0, not a loss"):
        mas_jax.local_outputs(lambda params, x: relu_mlp(params, x).mean())(PARAMS, SAMPLES)


def test_a_rule_that_closes_over_the_sample_is_an_error():
    def apply_fn(params, x):
        @jax.custom_vjp
        def shifted(y):
            return y

        shifted.defvjp(lambda y: (y, None), lambda _, dy: (dy * x[:, :1],))
        return shifted(dense(params["first"], x))

    with pytest.raises(ValueError, match="closes over numbers computed from the sample"):
        mas_jax.local_outputs(apply_fn)(PARAMS, SAMPLES)
