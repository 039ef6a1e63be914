"""Published weights become a trunk's parameters, and every array is accounted for."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import numpy as np
import pytest
import safetensors.numpy
from flax import traverse_util

from experiments import trunks
from experiments.data.types import DataDamagedError, DataNotFoundError
from experiments.trunks import VGG16, AlexNet, SqueezeNet, TinyDarknet
from experiments.weights import convert, convert_file, load_params, read_weights
from experiments.weights.__main__ import main
from experiments.weights.published import CLASSIFIERS, LAYERS
from tests import networks, pth_files
from tests import oracle_trunks as oracle

MEAN = np.array([0.485, 0.456, 0.406]).reshape(1, 3, 1, 1)
STD = np.array([0.229, 0.224, 0.225]).reshape(1, 3, 1, 1)
CHANNELS, HIDDEN = (4, 6, 8, 6, 5), 7
BLOCKS = ((3, 4), (4, 5), (5, 6, 5), (6, 5, 6), (6, 7, 5))
SQUEEZES = (1, 2, 2, 3, 2, 2, 3, 2)


class Published(NamedTuple):
    """A narrow trunk, and the network that torchvision would publish weights of."""

    name: str
    trunk: nn.Module
    features: list[oracle.Step]
    classifier: list[oracle.Step]
    last: int  # steps of the classifier that belong to the trunk

    def arrays(self) -> oracle.Arrays:
        """Random weights as torchvision publishes them, its classifier's among them."""
        rng = np.random.default_rng(3)
        arrays = oracle.random_arrays("features", self.features, rng)
        return arrays | oracle.random_arrays("classifier", self.classifier, rng)


PUBLISHED = [
    Published("alexnet", AlexNet(CHANNELS, HIDDEN), *oracle.alexnet(CHANNELS, HIDDEN), 6),
    Published("vgg16", VGG16(BLOCKS, HIDDEN), *oracle.vgg(BLOCKS, HIDDEN), 6),
    Published(
        "squeezenet1_0", SqueezeNet(5, 7, SQUEEZES), *oracle.squeezenet("1.0", 5, SQUEEZES), 0
    ),
    Published(
        "squeezenet1_1",
        SqueezeNet(5, 3, SQUEEZES, (1, 3, 5)),
        *oracle.squeezenet("1.1", 5, SQUEEZES),
        0,
    ),
]
of_torchvision = pytest.mark.parametrize("published", PUBLISHED, ids=lambda p: p.name)


def pictures(height: int, width: int) -> np.ndarray:
    """(2, height, width, 3) float32, 0 … 255."""
    rng = np.random.default_rng(5)
    return rng.integers(0, 256, (2, height, width, 3)).astype(np.float32)


def apply(trunk: nn.Module, params: Any, images: np.ndarray) -> Any:
    """Features."""
    apply_fn = jax.jit(
        lambda params, images: trunk.apply({"params": params}, images),
        compiler_options=networks.COMPILER_OPTIONS,
    )
    return apply_fn(params, images)


def random_params(trunk: nn.Module) -> Any:
    """Parameters no two of which are alike."""
    shapes: Any = jax.eval_shape(trunk.init, jax.random.key(0), pictures(64, 64))["params"]
    rng = np.random.default_rng(7)
    return jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), shapes)


@pytest.mark.parametrize(("height", "width"), [(72, 72), (64, 101)])
@of_torchvision
def test_features_are_those_of_the_published_network(published, height, width):
    arrays, images = published.arrays(), pictures(height, width)
    params, _ = convert(published.name, arrays, published.trunk)
    x = (images.transpose(0, 3, 1, 2) / 255.0 - MEAN) / STD
    x = oracle.run("features", published.features, arrays, x)
    expected = oracle.run("classifier", published.classifier[: published.last], arrays, x)
    features = apply(published.trunk, params, images)
    assert np.count_nonzero(expected) > expected.size / 4
    np.testing.assert_allclose(features, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("height", "width"), [(72, 72), (33, 50)])
def test_folded_batch_norms_are_those_of_evaluation(height, width):
    trunk = TinyDarknet(channels=(4, 5, 3, 6) * 3 + (4, 5, 6))
    arrays, images = oracle.darknet_arrays(trunk.channels, trunk.sides), pictures(height, width)
    params, report = convert("tiny_darknet", arrays, trunk)
    features = apply(trunk, params, images)
    np.testing.assert_allclose(
        features, oracle.darknet(trunk.sides, arrays, images), rtol=1e-4, atol=1e-5
    )
    assert len(report.taken) == 15 * 5


@pytest.mark.parametrize("name", trunks.TRUNKS)
def test_every_layer_of_every_trunk_has_a_published_name(name):
    trunk = trunks.find(name)
    shapes: Any = jax.eval_shape(trunk.init, jax.random.key(0), pictures(64, 64))["params"]
    layers = {path.rpartition("/")[0] for path in traverse_util.flatten_dict(shapes, sep="/")}
    assert set(LAYERS[name]) == layers
    assert LAYERS.keys() == CLASSIFIERS.keys() == trunks.TRUNKS.keys()


# Of every format. A trunk's whole set of weights goes through a file.


def as_torchvision(name: str, params: Any) -> oracle.Arrays:
    """Parameters of a SqueezeNet in torchvision's names and axes."""
    arrays = {}
    for layer, published in LAYERS[name].items():
        leaves = params
        for part in layer.split("/"):
            leaves = leaves[part]
        arrays[f"{published}.weight"] = np.ascontiguousarray(leaves["kernel"].transpose(3, 2, 0, 1))
        arrays[f"{published}.bias"] = leaves["bias"]
    return arrays


def save_npz(path: Path, arrays: oracle.Arrays) -> None:
    np.savez(path, allow_pickle=False, **arrays)


FORMATS: dict[str, Callable[[Path, oracle.Arrays], Any]] = {
    "new.pth": lambda path, arrays: pth_files.save(path, arrays, legacy=False),
    "old.pth": lambda path, arrays: pth_files.save(path, arrays, legacy=True),
    "a.safetensors": lambda path, arrays: safetensors.numpy.save_file(arrays, path),
    "a.npz": save_npz,
}


@pytest.mark.parametrize("file", FORMATS)
@pytest.mark.parametrize("name", ["squeezenet1_0", "squeezenet1_1"])
def test_random_weights_come_back_from_a_published_file(tmp_path, name, file):
    params = random_params(trunks.find(name))
    FORMATS[file](tmp_path / file, as_torchvision(name, params))
    jax.tree.map(np.testing.assert_array_equal, load_params(name, tmp_path / file), params)


@pytest.mark.parametrize("published", PUBLISHED[:2], ids=lambda p: p.name)
def test_dense_layers_take_the_rows_of_pictures_in_flax_order(published):
    arrays = published.arrays()
    params, _ = convert(published.name, arrays, published.trunk)
    # Output 2, of the pixel in row 1 and column 3 of channel 4.
    side, prefix = {"alexnet": (6, "classifier.1"), "vgg16": (7, "classifier.0")}[published.name]
    channels = params["fc6"]["kernel"].shape[0] // side**2
    row = (1 * side + 3) * channels + 4
    column = 4 * side**2 + 1 * side + 3
    assert params["fc6"]["kernel"][row, 2] == arrays[f"{prefix}.weight"][2, column]


@pytest.mark.parametrize("name", ["squeezenet1_0_caffe", "squeezenet1_1", "tiny_darknet"])
def test_converted_weights_are_read_again(tmp_path, name):
    params = random_params(trunks.find(name))
    flat: dict[str, Any] = traverse_util.flatten_dict(params, sep="/")
    save_npz(tmp_path / "ours.npz", flat)
    report = convert_file(name, tmp_path / "ours.npz", tmp_path / "again.npz")
    assert report.layout == "this project"
    jax.tree.map(np.testing.assert_array_equal, load_params(name, tmp_path / "again.npz"), params)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_parameters_are_float32(dtype):
    published = PUBLISHED[0]
    arrays = {name: array.astype(dtype) for name, array in published.arrays().items()}
    params, _ = convert(published.name, arrays, published.trunk)
    bias = params["conv1"]["bias"]
    assert all(leaf.dtype == np.float32 for leaf in jax.tree.leaves(params))
    np.testing.assert_array_equal(bias, arrays["features.0.bias"].astype(np.float32))


@of_torchvision
def test_the_report_names_every_array(published):
    arrays = published.arrays()
    _, report = convert(published.name, arrays, published.trunk)
    names = [taken.array for taken in report.taken] + [name for name, _ in report.left_out]
    assert sorted(names) == sorted(arrays)
    assert [name for name, _ in report.left_out] == list(arrays)[-2:]
    assert [taken.layer for taken in report.taken] == [
        layer for layer in LAYERS[published.name] for _ in range(2)
    ]
    for name in arrays:
        assert name in str(report)


def test_the_report_is_a_table():
    published = PUBLISHED[0]
    arrays = published.arrays()
    lines = str(convert(published.name, arrays, published.trunk)[1]).splitlines()
    assert lines[0].split() == ["layer", "array", "shape", "in", "the", "file"]
    assert lines[1].split() == ["conv1", "features.0.weight", "4×3×11×11"]
    assert lines[-1] == (
        "alexnet, in the layout of torchvision: 7 layers took 14 arrays; left out on purpose, as "
        "the classifier: classifier.6.weight 10×7, classifier.6.bias 10"
    )
    del arrays["classifier.6.weight"], arrays["classifier.6.bias"]
    last = str(convert(published.name, arrays, published.trunk)[1]).splitlines()[-1]
    assert last.endswith("as the classifier: none")


# What is refused.


def squeezenet_arrays(name: str) -> oracle.Arrays:
    """Weights of a whole SqueezeNet, in torchvision's layout."""
    return as_torchvision(name, random_params(trunks.find(name)))


def test_the_first_layer_of_another_architecture_is_named():
    with pytest.raises(
        ValueError,
        match=r"these are not weights of squeezenet1_0, looked for in the layout of torchvision: "
        r"the first layer that differs is conv1, which wants features\.0\.weight of shape "
        r"96×3×7×7; the file's is 64×3×3×3\. They fit squeezenet1_1$",
    ):
        convert("squeezenet1_0", squeezenet_arrays("squeezenet1_1"))


def test_the_first_layer_that_is_not_there_is_named():
    arrays = squeezenet_arrays("squeezenet1_1")
    del arrays["features.4.squeeze.bias"], arrays["features.7.squeeze.bias"]
    with pytest.raises(
        ValueError,
        match=r"is fire3/squeeze1x1, which wants features\.4\.squeeze\.bias of shape 16; the file "
        r"has no features\.4\.squeeze\.bias\. They fit none of alexnet, ",
    ):
        convert("squeezenet1_1", arrays)


def test_the_first_layer_is_the_networks_not_the_files():
    arrays = squeezenet_arrays("squeezenet1_1")
    arrays["features.12.squeeze.weight"] = arrays["features.12.squeeze.weight"][:1]
    arrays["features.9.expand3x3.bias"] = arrays["features.9.expand3x3.bias"][:1]
    backwards = dict(reversed(arrays.items()))
    with pytest.raises(ValueError, match=r"differs is fire6/expand3x3.* 192; the file's is 1"):
        convert("squeezenet1_1", backwards)


def test_arrays_that_no_layer_takes_are_refused():
    arrays = squeezenet_arrays("squeezenet1_1")
    arrays |= {"features.13.weight": np.ones((2, 3)), "features.13.bias": np.ones(2)}
    with pytest.raises(ValueError, match=r"none takes features\.13\.weight 2×3 \(and 1 more\)"):
        convert("squeezenet1_1", arrays)


def test_weights_in_the_layout_of_another_trunk_are_told():
    with pytest.raises(ValueError, match=r"is conv1, which .*They fit tiny_darknet$"):
        convert("squeezenet1_0", oracle.darknet_arrays(TinyDarknet().channels, TinyDarknet().sides))


def test_weights_converted_for_a_trunk_of_the_same_shapes_are_refused(tmp_path):
    flat: dict[str, Any] = traverse_util.flatten_dict(
        random_params(trunks.find("squeezenet1_0")), sep="/"
    )
    save_npz(tmp_path / "ours.npz", flat)
    convert_file("squeezenet1_0", tmp_path / "ours.npz", tmp_path / "again.npz")
    with pytest.raises(
        ValueError, match=r"again\.npz: .* converted for squeezenet1_0, not for squeezenet1_0_caffe"
    ):
        load_params("squeezenet1_0_caffe", tmp_path / "again.npz")


@pytest.mark.parametrize(
    ("bad", "text"),
    [
        (np.full(5, np.nan, np.float32), "float32 with NaN or infinity"),
        (np.array([1, 2, np.inf, 4, 5]), "float64 with NaN or infinity"),
        (np.arange(5), "int64"),
    ],
)
def test_weights_are_finite_numbers(bad, text):
    published = PUBLISHED[2]
    arrays = published.arrays() | {"features.0.bias": bad}
    with pytest.raises(ValueError, match=rf"conv1 wants finite .* features\.0\.bias is {text}"):
        convert(published.name, arrays, published.trunk)


def test_unknown_trunks_are_answered_with_a_near_name(tmp_path):
    with pytest.raises(ValueError, match="no trunk is called 'alexnets'; did you mean 'alexnet'"):
        load_params("alexnets", tmp_path / "missing.npz")
    with pytest.raises(ValueError, match="There are: alexnet, vgg16"):
        convert("resnet", {})


def test_files_that_cannot_be_read_are_named(tmp_path):
    with pytest.raises(DataNotFoundError, match=r"no file of weights .*missing\.npz"):
        read_weights(tmp_path / "missing.npz")
    with pytest.raises(
        ValueError, match=r"a\.caffemodel should end in one of \.npz, \.safetensors"
    ):
        read_weights(tmp_path / "a.caffemodel")
    for name in ("bad.npz", "bad.safetensors", "bad.pth"):
        (tmp_path / name).write_bytes(b"nothing of the kind")
        with pytest.raises(DataDamagedError, match=name):
            read_weights(tmp_path / name)
    with (tmp_path / "one.npz").open("wb") as file:
        np.save(file, np.ones(3))
    with pytest.raises(DataDamagedError, match=r"one\.npz"):
        read_weights(tmp_path / "one.npz")


def test_pickled_arrays_in_an_npz_are_refused(tmp_path):
    np.savez(tmp_path / "a.npz", a=np.array([{}], object))
    with pytest.raises(DataDamagedError, match=r"a\.npz cannot be read .*pickle"):
        read_weights(tmp_path / "a.npz")


def test_the_command_prints_the_report_and_writes_the_parameters(tmp_path, capsys):
    arrays = squeezenet_arrays("squeezenet1_1")
    pth_files.save(tmp_path / "published.pth", arrays, legacy=True)
    main(["squeezenet1_1", str(tmp_path / "published.pth"), str(tmp_path / "out.npz")])
    lines = capsys.readouterr().out.splitlines()
    assert lines[:-1] == str(convert("squeezenet1_1", arrays)[1]).splitlines()
    assert lines[-1] == f"written: {tmp_path / 'out.npz'}"
    written = load_params("squeezenet1_1", tmp_path / "out.npz")
    published = load_params("squeezenet1_1", tmp_path / "published.pth")
    jax.tree.map(np.testing.assert_array_equal, written, published)


def test_the_command_refuses_and_writes_nothing(tmp_path, capsys):
    arrays = squeezenet_arrays("squeezenet1_1")
    pth_files.save(tmp_path / "published.pth", arrays, legacy=False)
    for name, out, text in (
        ("squeezenet1_0", "out.npz", "the first layer that differs is conv1"),
        ("squeezenet1_1", "out.pth", "is written as .npz"),
    ):
        with pytest.raises(SystemExit) as stopped:
            main([name, str(tmp_path / "published.pth"), str(tmp_path / out)])
        assert stopped.value.code == 2
        assert text in capsys.readouterr().err
        assert not (tmp_path / out).exists()
