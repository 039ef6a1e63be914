"""The trunks: their pictures, pools, dropout, sizes, and how the fused engine sees them."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import mas_jax
from experiments import trunks
from experiments.data import stand_ins
from experiments.trunks import VGG16, AlexNet, SqueezeNet, TinyDarknet, pooling, preprocessing
from experiments.weights import found
from tests import networks, real_data
from tests import oracle_trunks as oracle

SQUEEZES = (1, 2, 2, 3, 2, 2, 3, 2)
NARROW: dict[str, nn.Module] = {
    "alexnet": AlexNet((4, 6, 8, 6, 5), 7),
    "vgg16": VGG16(((3, 4), (4, 5), (5, 6, 5), (6, 5, 6), (6, 7, 5)), 7),
    "squeezenet1_0": SqueezeNet(5, 7, SQUEEZES),
    "squeezenet1_0_caffe": SqueezeNet(5, 7, SQUEEZES, is_caffe=True),
    "squeezenet1_1": SqueezeNet(5, 3, SQUEEZES, (1, 3, 5)),
    "tiny_darknet": TinyDarknet((4, 5, 3, 6) * 3 + (4, 5, 6)),
}
each_trunk = pytest.mark.parametrize("name", NARROW)


def pictures(*shape: int, seed: int = 0) -> np.ndarray:
    """Random pixels, 0 … 255."""
    return np.random.default_rng(seed).integers(0, 256, shape).astype(np.float32)


def params_of(trunk: nn.Module) -> Any:
    """Random parameters that keep most units alive, drawn by NumPy: `init` takes longer."""
    shapes: Any = jax.eval_shape(trunk.init, jax.random.key(0), pictures(1, 64, 64, 3))["params"]
    rng = np.random.default_rng(1)

    def draw(leaf: Any) -> jax.Array:
        if len(leaf.shape) == 1:
            return jnp.full(leaf.shape, 0.1)
        scale = np.sqrt(2 / np.prod(leaf.shape[:-1]))
        return jnp.array(scale * rng.normal(size=leaf.shape), jnp.float32)

    return jax.tree.map(draw, shapes)


def apply(trunk: nn.Module, params: Any, images: Any, dropout: int | None = None) -> jax.Array:
    """Features; in training, if `dropout` is a seed."""

    def compute(params: Any, images: Any) -> Any:
        if dropout is None:
            return trunk.apply({"params": params}, images)
        rngs = {"dropout": jax.random.key(dropout)}
        return trunk.apply({"params": params}, images, train=True, rngs=rngs)

    return jax.jit(compute, compiler_options=networks.COMPILER_OPTIONS)(params, images)


def constant(params: Any, dense: tuple[str, ...]) -> Any:
    """Parameters with which the layers called `dense` give 1 for every input."""
    for path in dense:
        *above, last = path.split("/")
        parent = params
        for part in above:
            parent = parent[part]
        layer = parent[last]
        parent[last] = {
            "kernel": jnp.zeros_like(layer["kernel"]),
            "bias": jnp.ones_like(layer["bias"]),
        }
    return params


# Sizes. Parameters as published, less the classifier, as torchvision and the releases count them.


@pytest.mark.parametrize(
    ("name", "features", "parameters"),
    [
        ("alexnet", 4096, 61_100_840 - 4097 * 1000),
        ("vgg16", 4096, 138_357_544 - 4097 * 1000),
        ("squeezenet1_0", 512, 1_248_424 - 513 * 1000),
        ("squeezenet1_0_caffe", 512, 1_248_424 - 513 * 1000),
        ("squeezenet1_1", 512, 1_235_496 - 513 * 1000),
        # Four numbers of batch norm for each of 2192 channels become one bias.
        ("tiny_darknet", 128, 1_046_488 - 129 * 1000 - 3 * 2192),
    ],
)
def test_trunks_are_as_large_as_published(name, features, parameters):
    trunk, images = trunks.find(name), pictures(2, 72, 72, 3)
    variables = jax.eval_shape(trunk.init, jax.random.key(0), images)
    outputs: Any = jax.eval_shape(trunk.apply, variables, images)
    assert sum(leaf.size for leaf in jax.tree.leaves(variables["params"])) == parameters
    assert outputs.shape == (2, features)
    assert outputs.dtype == jnp.float32


@pytest.mark.parametrize(
    ("name", "smallest"),
    [("alexnet", 63), ("vgg16", 32), ("squeezenet1_0", 21), ("squeezenet1_1", 17)],
)
def test_pictures_that_are_too_small_are_refused(name, smallest):
    trunk = NARROW[name]
    params = params_of(trunk)
    features = apply(trunk, params, pictures(2, smallest, smallest + 9, 3))
    assert jnp.isfinite(features).all()
    assert jnp.any(features != 0)
    match = f"at least {smallest}×{smallest} pixels.*got {smallest + 9}×{smallest - 1}"
    with pytest.raises(ValueError, match=match):
        apply(trunk, params, pictures(2, smallest + 9, smallest - 1, 3))


@each_trunk
@pytest.mark.parametrize("shape", [(64, 64, 3), (2, 3, 64, 64), (2, 64, 64, 1)])
def test_pictures_are_rgb(name, shape):
    trunk = NARROW[name]
    with pytest.raises(ValueError, match=r"wants images \(B, H, W, 3\), RGB 0 … 255; got"):
        trunk.init(jax.random.key(0), pictures(*shape))


@each_trunk
def test_bytes_are_taken_as_their_values(name):
    trunk, images = NARROW[name], pictures(2, 64, 64, 3)
    params = params_of(trunk)
    features = apply(trunk, params, images)
    np.testing.assert_array_equal(apply(trunk, params, images.astype(np.uint8)), features)


def test_unknown_trunks_are_answered_with_a_near_name():
    with pytest.raises(ValueError, match="no trunk is called 'vgg'; did you mean 'vgg16'"):
        trunks.find("vgg")


# Preprocessing, in numbers worked out by hand.


def test_torchvision_normalises_each_colour():
    # A pixel at the mean, and one a standard deviation above it.
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    images = np.float32(255 * np.stack([mean, mean + std])).reshape(1, 1, 2, 3)
    normalised = preprocessing.torchvision(jnp.array(images)).ravel()
    np.testing.assert_allclose(normalised, [0, 0, 0, 1, 1, 1], atol=1e-6)


def test_caffe_puts_blue_first():
    images = jnp.array([255.0, 117.0, 100.0]).reshape(1, 1, 1, 3)
    assert preprocessing.caffe(images).ravel().tolist() == [-4.0, 0.0, 132.0]


def test_darknet_divides_by_255():
    assert preprocessing.darknet(jnp.array([[[[0.0, 51.0, 255.0]]]])).ravel().tolist() == (
        pytest.approx([0, 0.2, 1])
    )


@pytest.mark.parametrize(
    ("name", "prepare"),
    [
        ("alexnet", preprocessing.torchvision),
        ("vgg16", preprocessing.torchvision),
        ("squeezenet1_0", preprocessing.torchvision),
        ("squeezenet1_0_caffe", preprocessing.caffe),
        ("squeezenet1_1", preprocessing.torchvision),
        ("tiny_darknet", preprocessing.darknet),
    ],
)
def test_trunks_prepare_pictures_themselves(monkeypatch, name, prepare):
    given = []

    def seen(images: jax.Array) -> jax.Array:
        given.append(prepare.__name__)
        return prepare(images)

    monkeypatch.setattr(preprocessing, prepare.__name__, seen)
    jax.eval_shape(trunks.find(name).init, jax.random.key(0), pictures(1, 64, 64, 3))
    assert given == [prepare.__name__]


# Pools.


@given(
    st.integers(3, 13), st.integers(3, 13), st.sampled_from([2, 3]), st.booleans(), st.integers(0)
)
def test_pools_are_those_of_the_oracle(height, width, window, ceil, seed):
    x = np.random.default_rng(seed).normal(size=(2, height, width, 3)).astype(np.float32)
    pool = pooling.ceil_max_pool if ceil else pooling.max_pool
    expected = oracle.pool(x.transpose(0, 3, 1, 2), window, ceil).transpose(0, 2, 3, 1)
    np.testing.assert_array_equal(pool(jnp.array(x), window), expected.astype(np.float32))


@given(st.integers(1, 15), st.integers(1, 15), st.integers(1, 7), st.integers(0))
def test_adaptive_means_are_those_of_the_oracle(height, width, side, seed):
    x = np.random.default_rng(seed).normal(size=(2, height, width, 3)).astype(np.float32)
    expected = oracle.means(x.transpose(0, 3, 1, 2), side).transpose(0, 2, 3, 1)
    pooled = pooling.adaptive_mean_pool(jnp.array(x), side)
    np.testing.assert_allclose(pooled, expected, rtol=1e-5, atol=1e-6)


# Dropout.


@each_trunk
def test_dropout_acts_in_training_only(name):
    trunk, images = NARROW[name], pictures(2, 72, 72, 3)
    params = params_of(trunk)
    still = apply(trunk, params, images)
    first, second = (apply(trunk, params, images, dropout=seed) for seed in (0, 1))
    np.testing.assert_array_equal(apply(trunk, params, images), still)
    has_dropout = name != "tiny_darknet"
    assert bool(jnp.any(first != second)) == has_dropout
    assert bool(jnp.any(first != still)) == has_dropout


@pytest.mark.parametrize(
    ("name", "layers", "values"),
    [
        # Before fc7, not after it: 1 whatever was dropped.
        ("alexnet", ("fc7",), {1.0}),
        # After fc7: dropped, or doubled.
        ("vgg16", ("fc7",), {0.0, 2.0}),
        # After fire9, whose outputs are 3×2 pixels of each channel here: 0 to 6 of them doubled.
        ("squeezenet1_0", ("fire9/expand1x1", "fire9/expand3x3"), {n / 3 for n in range(7)}),
    ],
)
def test_dropout_stands_where_the_original_has_it(name, layers, values):
    # Many channels of fire9, so that every number of pixels is met.
    trunk = SqueezeNet(5, 7, (*SQUEEZES[:-1], 16)) if "fc7" not in layers else NARROW[name]
    images = pictures(8, 64, 48 if "fc7" not in layers else 64, 3)
    features = apply(trunk, constant(params_of(trunk), layers), images, dropout=0)
    assert {round(float(v), 4) for v in np.ravel(features)} == {round(v, 4) for v in values}


def test_alexnet_drops_what_goes_into_fc6():
    trunk = NARROW["alexnet"]
    # All of fc6's 180 inputs are 1, fc6 takes their mean, and fc7 hands on what it gets.
    params = constant(params_of(trunk), ("conv5",))
    params["fc6"] = {"kernel": jnp.full((180, 7), 1 / 180), "bias": jnp.zeros(7)}
    params["fc7"] = {"kernel": jnp.eye(7), "bias": jnp.zeros(7)}
    features = np.ravel(apply(trunk, params, pictures(64, 64, 64, 3), dropout=0))
    # Each is 0, or doubled before fc7: twice the mean of 180 numbers that are 0 or 2.
    kept = features[features > 0] * 180 / 4
    np.testing.assert_allclose(kept, np.rint(kept), atol=1e-3)
    assert len(np.unique(np.rint(kept))) > 10
    # Half of 180; its standard deviation, 7, is that of one picture, and there are 64.
    assert abs(kept.mean() - 90) < 3


# The fused engine.


@pytest.mark.parametrize("name", NARROW)
def test_the_fused_engine_takes_every_kernel(name):
    trunk = trunks.find(name)
    params: Any = jax.eval_shape(trunk.init, jax.random.key(0), pictures(1, 64, 64, 3))["params"]
    explanation = mas_jax.explain(function_of(trunk), params, pictures(3, 64, 64, 3))
    rules = {leaf.path: leaf.rule for leaf in explanation.leaves if "kernel" in leaf.path}
    assert len(rules) == len(jax.tree.leaves(params)) / 2
    for path, rule in rules.items():
        assert rule == ("dense" if "fc" in path else "convolution"), path


@pytest.mark.parametrize(
    ("name", "side"), [("alexnet", 64), ("vgg16", 33), ("squeezenet1_0", 33), ("tiny_darknet", 33)]
)
def test_the_engines_agree(name, side):
    params, batch = params_of(NARROW[name]), pictures(2, side, side, 3)
    network = networks.Network(
        function_of(NARROW[name]), params, batch, {"fc.*kernel": "dense", "kernel": "convolution"}
    )
    networks.assert_engines_agree(network, magnitudes=("abs",))


def function_of(trunk: nn.Module) -> Any:
    """The trunk as a function of parameters and pictures."""

    def apply_fn(params: Any, batch: Any) -> Any:
        return trunk.apply({"params": params}, batch)

    return apply_fn


# Real weights, real pictures.


def probe(name: str) -> float:
    """Test accuracy on flowers17, at 128 pixels, of a linear classifier on a trunk's features."""
    trunk = trunks.find(name)
    params = found.load(name, real_data.data_dir)
    apply_fn = jax.jit(lambda batch: trunk.apply({"params": params}, batch))

    def features(images: np.ndarray) -> np.ndarray:
        batches = [images[start : start + 68] for start in range(0, len(images), 68)]
        return np.concatenate([apply_fn(batch) for batch in batches])

    splits = stand_ins.load("flowers17", real_data.data_dir, side=128)
    classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    classifier.fit(features(splits.train.inputs), splits.train.labels)
    return float(classifier.score(features(splits.test.inputs), splits.test.labels))


@real_data.needs("oxford_flowers17", "squeezenet_v1.0_imagenet")
def test_squeezenet_knows_flowers(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert probe("squeezenet1_0_caffe") >= 0.83


@real_data.needs("oxford_flowers17", "tiny_darknet_imagenet")
def test_tiny_darknet_knows_flowers(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert probe("tiny_darknet") >= 0.83
