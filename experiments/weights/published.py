"""What the layers of each trunk are called in published files."""

_FIRE_PARTS = {"squeeze1x1": "squeeze", "expand1x1": "expand1x1", "expand3x3": "expand3x3"}

_VGG_CONVOLUTIONS = (
    "conv1_1", "conv1_2", "conv2_1", "conv2_2", "conv3_1", "conv3_2", "conv3_3", "conv4_1",
    "conv4_2", "conv4_3", "conv5_1", "conv5_2", "conv5_3",
)  # fmt: skip


def _in_sequential(layers: tuple[str, ...], places: tuple[int, ...], module: str) -> dict[str, str]:
    """torchvision numbers everything in a Sequential: ReLUs, pools and dropout too."""
    return {layer: f"{module}.{place}" for layer, place in zip(layers, places, strict=True)}


def _fires(places: tuple[int, ...]) -> dict[str, str]:
    """torchvision's names of a SqueezeNet whose fire modules stand at these places."""
    return {
        f"fire{number}/{part}": f"features.{place}.{published}"
        for number, place in enumerate(places, 2)
        for part, published in _FIRE_PARTS.items()
    }


_SQUEEZENET_1_0 = {"conv1": "features.0", **_fires((3, 4, 5, 7, 8, 9, 10, 12))}

LAYERS: dict[str, dict[str, str]] = {
    "alexnet": {
        **_in_sequential(
            ("conv1", "conv2", "conv3", "conv4", "conv5"), (0, 3, 6, 8, 10), "features"
        ),
        **_in_sequential(("fc6", "fc7"), (1, 4), "classifier"),
    },
    "vgg16": {
        **_in_sequential(
            _VGG_CONVOLUTIONS, (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28), "features"
        ),
        **_in_sequential(("fc6", "fc7"), (0, 3), "classifier"),
    },
    "squeezenet1_0": _SQUEEZENET_1_0,
    "squeezenet1_0_caffe": {layer: layer for layer in _SQUEEZENET_1_0},
    "squeezenet1_1": {"conv1": "features.0", **_fires((3, 4, 6, 7, 9, 10, 11, 12))},
    "tiny_darknet": {f"conv{number}": f"conv2d_{number}" for number in range(1, 16)},
}
"""By trunk, in the order in which it uses them: each layer, and what published files call it."""

CLASSIFIERS = {
    "alexnet": "classifier.6",
    "vgg16": "classifier.6",
    "squeezenet1_0": "classifier.1",
    "squeezenet1_0_caffe": "conv10",
    "squeezenet1_1": "classifier.1",
    "tiny_darknet": "conv2d_16",
}
"""By trunk, what published files call the layer that is left out, since tasks have their own."""

FLATTENED = {("alexnet", "fc6"): 6, ("vgg16", "fc6"): 7}
"""Dense layers on pictures, and how many pixels high and wide these are."""
