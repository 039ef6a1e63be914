"""Street View House Numbers, cropped: 99,289 digits of 32×32 pixels."""

from pathlib import Path

import numpy as np
from PIL import Image
from tensorflow_datasets.datasets.svhn_cropped import svhn_cropped_dataset_builder as stock

from experiments.data.published import contents, fetching
from experiments.data.published.builder import Part, PublishedBuilder
from experiments.data.types import DataDamagedError


def _file(split: str) -> fetching.File:
    """A file as the stock builder knows it."""
    name = f"{split}_32x32.mat"
    return fetching.stock_file(stock.Builder.url_infos, stock.URL + name, name, f"{split} digits")


class Svhn(PublishedBuilder, skip_registration=True):
    """The stock builder's digits, labels and splits, but for its split `extra`.

    73,257 training digits and 26,032 test digits, as in the paper; the 531,131 easier ones in
    `extra` are 1.3 GB more, and not used. Label 0 is the digit 0.

    Source: Netzer et al., Reading digits in natural images with unsupervised feature learning,
    NIPS workshop 2011.
    """

    name = "svhn_cropped"
    VERSION = stock.Builder.VERSION
    title = "SVHN"
    folder = "svhn"
    files = (_file("train"), _file("test"))
    classes = 10

    def splits(self, paths: dict[str, Path]) -> dict[str, Part]:
        """Labels by train_000000 and so on, as the stock builder calls them."""
        return {split: _part(split, paths[f"{split}_32x32.mat"]) for split in ("train", "test")}


def _part(split: str, path: Path) -> Part:
    """One split. Raises DataDamagedError where images and labels do not fit."""
    images, labels = contents.mat(path, "X", "y")
    if images.shape != (32, 32, 3, labels.size) or images.dtype != np.uint8:
        raise DataDamagedError(
            f"{path} has images {images.shape} {images.dtype} and {labels.size} labels; wanted "
            f"images (32, 32, 3, {labels.size}) uint8. Fetch it again"
        )
    names = [f"{split}_{number:06}" for number in range(labels.size)]
    # The publisher's 0 is 10, as MATLAB counts from 1.
    digits = (labels.reshape(-1).astype(int) % 10).tolist()
    # PIL images, because TFDS needs TensorFlow for arrays.
    pictures = ((name, Image.fromarray(images[..., i])) for i, name in enumerate(names))
    return Part(dict(zip(names, digits, strict=True)), pictures)
