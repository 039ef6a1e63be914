"""PyTorch's networks in NumPy, with its axes: pictures (B, C, H, W), kernels (O, I, h, w).

A network is a list of steps as its nn.Sequential has them, so that a step's place in the list is
the number in its arrays' names.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

Arrays = dict[str, np.ndarray]
Step = tuple[Any, ...]


def alexnet(channels: Sequence[int], hidden: int) -> tuple[list[Step], list[Step]]:
    """Features and classifier of torchvision's AlexNet."""
    one, two, three, four, five = channels
    features = [
        ("conv", 3, one, 11, 4, 2), ("relu",), ("pool", 3, False),
        ("conv", one, two, 5, 1, 2), ("relu",), ("pool", 3, False),
        ("conv", two, three, 3, 1, 1), ("relu",),
        ("conv", three, four, 3, 1, 1), ("relu",),
        ("conv", four, five, 3, 1, 1), ("relu",), ("pool", 3, False), ("means", 6), ("flatten",),
    ]  # fmt: skip
    classifier = [
        ("dropout",), ("linear", 36 * five, hidden), ("relu",),
        ("dropout",), ("linear", hidden, hidden), ("relu",), ("linear", hidden, 10),
    ]  # fmt: skip
    return features, classifier


def vgg(blocks: Sequence[Sequence[int]], hidden: int) -> tuple[list[Step], list[Step]]:
    """Features and classifier of torchvision's VGG with these channels, block by block."""
    features, last = [], 3
    for block in blocks:
        for channels in block:
            features += [("conv", last, channels, 3, 1, 1), ("relu",)]
            last = channels
        features += [("pool", 2, False)]
    classifier = [
        ("linear", 49 * last, hidden), ("relu",), ("dropout",),
        ("linear", hidden, hidden), ("relu",), ("dropout",), ("linear", hidden, 10),
    ]  # fmt: skip
    return [*features, ("means", 7), ("flatten",)], classifier


def squeezenet(version: str, first: int, squeezes: Sequence[int]) -> tuple[list[Step], list[Step]]:
    """Features and classifier of torchvision's SqueezeNet 1.0 or 1.1."""
    side, pooled = (7, (1, 4, 8)) if version == "1.0" else (3, (1, 3, 5))
    features: list[Step] = [("conv", 3, first, side, 2, 0), ("relu",), ("pool", 3, True)]
    last = first
    for number, squeeze in enumerate(squeezes, 2):
        features += [("fire", last, squeeze)] + [("pool", 3, True)] * (number in pooled)
        last = 8 * squeeze
    return [*features, ("means", 1), ("flatten",)], [("dropout",), ("conv", last, 10, 1, 1, 0)]


def random_arrays(module: str, steps: Sequence[Step], rng: np.random.Generator) -> Arrays:
    """A state dict of `steps`, called module.0, module.1, …."""
    arrays: Arrays = {}
    for place, (kind, *sizes) in enumerate(steps):
        name = f"{module}.{place}"
        if kind == "conv":
            inputs, outputs, side = sizes[:3]
            arrays |= _layer(name, (outputs, inputs, side, side), rng)
        elif kind == "linear":
            arrays |= _layer(name, (sizes[1], sizes[0]), rng)
        elif kind == "fire":
            inputs, squeeze = sizes
            arrays |= _layer(f"{name}.squeeze", (squeeze, inputs, 1, 1), rng)
            for side in (1, 3):
                shape = (4 * squeeze, squeeze, side, side)
                arrays |= _layer(f"{name}.expand{side}x{side}", shape, rng)
    return arrays


def _layer(name: str, shape: tuple[int, ...], rng: np.random.Generator) -> Arrays:
    """Weight and bias that keep what comes out as large as what goes in."""
    weight = rng.normal(size=shape) * np.sqrt(2 / np.prod(shape[1:]))
    return {
        f"{name}.weight": weight.astype(np.float32),
        f"{name}.bias": rng.normal(size=shape[0]).astype(np.float32) / 10,
    }


def run(module: str, steps: Sequence[Step], arrays: Mapping[str, np.ndarray], x: Any) -> Any:
    """What `steps` make of `x`, in float64."""
    for place, (kind, *sizes) in enumerate(steps):
        x = _STEPS[kind](x, f"{module}.{place}", arrays, *sizes)
    return x


def darknet_arrays(widths: Sequence[int], sides: Sequence[int]) -> Arrays:
    """Random weights as ml5 publishes Tiny Darknet, its classifier's among them."""
    rng = np.random.default_rng(11)
    arrays: Arrays = {}
    last = 3
    for number, (channels, side) in enumerate(zip(widths, sides, strict=True), 1):
        kernel = rng.normal(size=(side, side, last, channels)) / np.sqrt(side * side * last)
        arrays[f"conv2d_{number}.kernel"] = kernel
        norm = f"batch_normalization_{number}"
        for moment in ("gamma", "moving_variance"):
            arrays[f"{norm}.{moment}"] = rng.uniform(0.01, 1, channels)
        for moment in ("beta", "moving_mean"):
            arrays[f"{norm}.{moment}"] = rng.normal(size=channels)
        last = channels
    arrays |= {"conv2d_16.kernel": np.ones((1, 1, last, 10)), "conv2d_16.bias": np.ones(10)}
    return {name: array.astype(np.float32) for name, array in arrays.items()}


def darknet(sides: Sequence[int], arrays: Mapping[str, np.ndarray], images: np.ndarray) -> Any:
    """Features that Tiny Darknet, with its batch norms, has of pictures (B, H, W, 3)."""
    x = images.transpose(0, 3, 1, 2) / 255.0
    for number, side in enumerate(sides, 1):
        moments = ("gamma", "beta", "moving_mean", "moving_variance")
        gamma, beta, mean, variance = (
            arrays[f"batch_normalization_{number}.{m}"].reshape(1, -1, 1, 1).astype(np.float64)
            for m in moments
        )
        kernel = arrays[f"conv2d_{number}.kernel"].transpose(3, 2, 0, 1)
        x = conv(x, kernel, np.zeros(len(kernel)), 1, side // 2)
        x = gamma * (x - mean) / np.sqrt(variance + 1e-3) + beta
        x = np.where(x > 0, x, 0.1 * x)
        x = pool(x, 2, ceil=True) if number in (1, 2, 6, 10) else x
    return x.mean((2, 3))


def conv(x: np.ndarray, weight: np.ndarray, bias: Any, stride: int, padding: int) -> np.ndarray:
    """A sum over the kernel's places of shifted pictures."""
    x = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    side = weight.shape[-1]
    rows, columns = ((size - side) // stride + 1 for size in x.shape[2:])
    out = np.zeros((len(x), len(weight), rows, columns))
    for i in range(side):
        for j in range(side):
            part = x[:, :, i : i + stride * rows : stride, j : j + stride * columns : stride]
            part = part[:, :, :rows, :columns]
            out += np.einsum("oc,bchw->bohw", weight[:, :, i, j].astype(np.float64), part)
    return out + np.reshape(bias, (1, -1, 1, 1))


def pool(x: np.ndarray, side: int, ceil: bool) -> np.ndarray:
    """Maxima over windows 2 apart; with `ceil` also over one that reaches over the edge."""
    counts = [-(-(s - side) // 2) + 1 if ceil else (s - side) // 2 + 1 for s in x.shape[2:]]
    out = np.zeros((*x.shape[:2], *counts))
    for i in range(counts[0]):
        for j in range(counts[1]):
            out[:, :, i, j] = x[:, :, 2 * i : 2 * i + side, 2 * j : 2 * j + side].max((2, 3))
    return out


def means(x: np.ndarray, side: int) -> np.ndarray:
    """Means over side × side windows, as torch.nn.AdaptiveAvgPool2d documents them."""
    height, width = x.shape[2:]
    out = np.zeros((*x.shape[:2], side, side))
    for i in range(side):
        for j in range(side):
            rows = slice(int(np.floor(i * height / side)), int(np.ceil((i + 1) * height / side)))
            columns = slice(int(np.floor(j * width / side)), int(np.ceil((j + 1) * width / side)))
            out[:, :, i, j] = x[:, :, rows, columns].mean((2, 3))
    return out


def _conv(x: Any, name: str, arrays: Any, _in: int, _out: int, _side: int, *rest: int) -> Any:
    return conv(x, arrays[f"{name}.weight"], arrays[f"{name}.bias"], *rest)


def _fire(x: Any, name: str, arrays: Any, *_: int) -> Any:
    def part(x: Any, of: str, padding: int) -> Any:
        weight, bias = arrays[f"{name}.{of}.weight"], arrays[f"{name}.{of}.bias"]
        return np.maximum(conv(x, weight, bias, 1, padding), 0)

    x = part(x, "squeeze", 0)
    return np.concatenate([part(x, "expand1x1", 0), part(x, "expand3x3", 1)], 1)


def _linear(x: Any, name: str, arrays: Any, *_: int) -> Any:
    weight, bias = arrays[f"{name}.weight"], arrays[f"{name}.bias"]
    return x @ weight.T.astype(np.float64) + bias.reshape(1, -1)


_STEPS: dict[str, Callable[..., Any]] = {
    "conv": _conv,
    "fire": _fire,
    "linear": _linear,
    "relu": lambda x, *_: np.maximum(x, 0),
    "dropout": lambda x, *_: x,
    "flatten": lambda x, *_: x.reshape(len(x), -1),
    "pool": lambda x, _name, _arrays, side, ceil: pool(x, side, ceil),
    "means": lambda x, _name, _arrays, side: means(x, side),
}
