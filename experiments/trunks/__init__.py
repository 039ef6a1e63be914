"""Networks without their classifiers: pictures in, features out, published weights to be had."""

import flax.linen as nn

from experiments.names import nearest
from experiments.trunks.alexnet import AlexNet
from experiments.trunks.squeezenet import (
    SQUEEZENET_1_0,
    SQUEEZENET_1_0_CAFFE,
    SQUEEZENET_1_1,
    SqueezeNet,
)
from experiments.trunks.tiny_darknet import TinyDarknet
from experiments.trunks.vgg import VGG16

TRUNKS: dict[str, nn.Module] = {
    "alexnet": AlexNet(),
    "vgg16": VGG16(),
    "squeezenet1_0": SQUEEZENET_1_0,
    "squeezenet1_0_caffe": SQUEEZENET_1_0_CAFFE,
    "squeezenet1_1": SQUEEZENET_1_1,
    "tiny_darknet": TinyDarknet(),
}
"""Each is called with images (B, H, W, 3), RGB 0 … 255, and `train`; returns features (B, F)."""


def find(name: str) -> nn.Module:
    """The trunk of this name.

    Raises:
      ValueError: there is none; says which name is near.
    """
    if name not in TRUNKS:
        raise nearest("trunk", name, TRUNKS)
    return TRUNKS[name]


__all__ = ["TRUNKS", "VGG16", "AlexNet", "SqueezeNet", "TinyDarknet", "find"]
