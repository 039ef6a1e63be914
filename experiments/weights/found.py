"""Published weights: where they are looked for, and what to fetch."""

import os
from pathlib import Path
from typing import Any

from experiments.data import archives
from experiments.names import nearest
from experiments.weights.convert import load_params

_PATTERNS = ("*.npz", "*.safetensors", "*.pth")
_TORCHVISION = "https://download.pytorch.org/models/"


def _source(title: str, folder: str, fetch: str) -> archives.Source:
    return archives.Source(f"{title}, trained on ImageNet,", folder, _PATTERNS, fetch)


SOURCES = {
    "alexnet": _source("AlexNet", "alexnet_imagenet", f"{_TORCHVISION}alexnet-owt-7be5be79.pth"),
    "vgg16": _source("VGG-16", "vgg16_imagenet", f"{_TORCHVISION}vgg16-397923af.pth"),
    "squeezenet1_0": _source(
        "SqueezeNet 1.0", "squeezenet_1_0_imagenet", f"{_TORCHVISION}squeezenet1_0-b66bff10.pth"
    ),
    "squeezenet1_0_caffe": _source(
        "SqueezeNet 1.0 (its authors')",
        "squeezenet_v1.0_imagenet",
        "compressed_SqueezeNet.net of https://github.com/songhan/SqueezeNet-Deep-Compression,\n"
        "    decoded to an npz: NAME/w, HWIO, and NAME/b for each layer",
    ),
    "squeezenet1_1": _source(
        "SqueezeNet 1.1", "squeezenet_1_1_imagenet", f"{_TORCHVISION}squeezenet1_1-b8a52dc0.pth"
    ),
    "tiny_darknet": _source(
        "Tiny Darknet",
        "tiny_darknet_imagenet",
        "models/darknetclassifier/darknettiny of https://github.com/ml5js/ml5-data-and-models,\n"
        "    its arrays as one npz, by the names they have there",
    ),
}


def load(name: str, data_dir: str | os.PathLike[str] | None = None) -> Any:
    """The parameters of the trunk `name`, as NumPy arrays.

    Raises:
      DataNotFoundError: the file is not there; the text says what to fetch, and where to.
      ValueError: no such trunk, or the file is of another one.
    """
    return load_params(name, path_of(name, data_dir))


def path_of(name: str, data_dir: str | os.PathLike[str] | None = None) -> Path:
    """The file of published weights of the trunk `name`; raises as `load`."""
    if name not in SOURCES:
        raise nearest("trunk", name, SOURCES)
    return archives.find(SOURCES[name], data_dir)
