"""How files arrange the layers of each trunk, and how their arrays become Flax's."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from experiments.trunks.tiny_darknet import BATCH_NORM_EPSILON
from experiments.weights.published import CLASSIFIERS, FLATTENED, LAYERS

Shape = tuple[int, ...]
Made = tuple[np.ndarray, np.ndarray]
"""Kernel, (H, W, in, out) or (in, out), and bias."""


class Source(NamedTuple):
    """What of a file one layer is made from.

    Attributes:
      layer: its name in the trunk: "fire2/squeeze1x1".
      arrays: their names in the file, and the shape that each must have.
      make: what makes kernel and bias of these arrays, given in this order.
    """

    layer: str
    arrays: Mapping[str, Shape]
    make: Callable[..., Made]


class Layout(NamedTuple):
    """What a whole file holds.

    Attributes:
      name: whose layout it is.
      sources: in the order in which the network uses the layers.
      classifier: names of arrays that are left out, since tasks have heads of their own.
    """

    name: str
    sources: tuple[Source, ...]
    classifier: tuple[str, ...]


def layouts(name: str, trunk: nn.Module) -> tuple[Layout, ...]:
    """The layouts that weights of the trunk `name` come in: as published, and as saved here."""
    shapes = _shapes(trunk)
    published_name, source_of, ends = _STYLES.get(name, _TORCHVISION)
    layers = LAYERS[name].items()
    published = [source_of(name, layer, prefix, *shapes[layer]) for layer, prefix in layers]
    classifier = tuple(CLASSIFIERS[name] + end for end in ends)
    own = [_own(name, layer, layer, *shapes[layer]) for layer, _ in layers]
    return (
        Layout(published_name, tuple(published), classifier),
        Layout("this project", tuple(own), ()),
    )


def _shapes(trunk: nn.Module) -> dict[str, tuple[Shape, Shape]]:
    """Shapes of kernel and bias of each layer."""
    images = jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
    params: Any = jax.eval_shape(trunk.init, jax.random.key(0), images)["params"]
    flat: dict[str, Any] = traverse_util.flatten_dict(params, sep="/")
    layers = {path.rpartition("/")[0] for path in flat}
    return {layer: (flat[f"{layer}/kernel"].shape, flat[f"{layer}/bias"].shape) for layer in layers}


def _own(_: str, layer: str, prefix: str, kernel: Shape, bias: Shape) -> Source:
    """A layer as converting writes it."""
    return Source(layer, {f"{prefix}/kernel": kernel, f"{prefix}/bias": bias}, _as_they_are)


def _caffe(_: str, layer: str, prefix: str, kernel: Shape, bias: Shape) -> Source:
    """A layer as in the decoded deep-compressed release."""
    return Source(layer, {f"{prefix}/w": kernel, f"{prefix}/b": bias}, _as_they_are)


def _torchvision(name: str, layer: str, prefix: str, kernel: Shape, bias: Shape) -> Source:
    """A Conv2d or Linear of PyTorch."""
    if len(kernel) == 4:
        weight, make = (*kernel[:1:-1], *kernel[:2]), _of_torch_conv
    else:
        weight = kernel[::-1]
        make = partial(_of_torch_linear, side=FLATTENED.get((name, layer), 1))
    return Source(layer, {f"{prefix}.weight": weight, f"{prefix}.bias": bias}, make)


def _keras(_: str, layer: str, prefix: str, kernel: Shape, bias: Shape) -> Source:
    """A convolution without bias and its batch norm, as in ml5's copy of Tiny Darknet."""
    norm = prefix.replace("conv2d", "batch_normalization")
    moments = ("gamma", "beta", "moving_mean", "moving_variance")
    arrays = {f"{prefix}.kernel": kernel, **{f"{norm}.{moment}": bias for moment in moments}}
    return Source(layer, arrays, _with_batch_norm)


# Whose layout, what makes a layer's source, and the endings of the classifier's names.
_TORCHVISION = ("torchvision", _torchvision, (".weight", ".bias"))
_STYLES = {
    "squeezenet1_0_caffe": ("the deep-compressed release", _caffe, ("/w", "/b")),
    "tiny_darknet": ("ml5", _keras, (".kernel", ".bias")),
}


def _as_they_are(kernel: np.ndarray, bias: np.ndarray) -> Made:
    return kernel, bias


def _of_torch_conv(weight_OxIxHxW: np.ndarray, bias: np.ndarray) -> Made:
    return weight_OxIxHxW.transpose(2, 3, 1, 0), bias


def _of_torch_linear(weight_OxI: np.ndarray, bias: np.ndarray, *, side: int) -> Made:
    """PyTorch flattens pictures channel by channel, Flax pixel by pixel."""
    outputs, inputs = weight_OxI.shape
    weight_OxCxHxW = weight_OxI.reshape(outputs, -1, side, side)
    return weight_OxCxHxW.transpose(2, 3, 1, 0).reshape(inputs, outputs), bias


def _with_batch_norm(
    kernel: np.ndarray, gamma: np.ndarray, beta: np.ndarray, mean: np.ndarray, variance: np.ndarray
) -> Made:
    """γ (k∗x − μ)/√(σ² + ε) + β as one convolution; in float64, rounded once."""
    scale = gamma.astype(np.float64) / np.sqrt(variance.astype(np.float64) + BATCH_NORM_EPSILON)
    return kernel * scale.reshape(1, 1, 1, -1), beta - mean * scale
