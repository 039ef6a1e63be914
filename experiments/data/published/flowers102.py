"""Oxford Flowers-102: 8,189 photographs of flowers."""

from pathlib import Path
from typing import ClassVar

from tensorflow_datasets.datasets.oxford_flowers102 import (
    oxford_flowers102_dataset_builder as stock,
)

from experiments.data.published import contents, fetching
from experiments.data.published.builder import Part, PublishedBuilder

_URL = "https://www.robots.ox.ac.uk/~vgg/data/flowers/102/"
_SPLITS = {"train": "trnid", "validation": "valid", "test": "tstid"}


def _file(name: str, holds: str) -> fetching.File:
    """A file as the stock builder knows it."""
    return fetching.stock_file(stock.Builder.url_infos, _URL + name, name, holds)


class Flowers102(PublishedBuilder, skip_registration=True):
    """The stock builder's pictures, labels and splits.

    Training data are the published training and validation sets, 2,040 pictures as in the paper;
    test data the other 6,149.

    Source: Nilsback and Zisserman, Automated flower classification over a large number of
    classes, ICVGIP 2008.
    """

    name = "oxford_flowers102"
    VERSION = stock.Builder.VERSION
    title = "Oxford Flowers-102"
    folder = "flowers102"
    files = (
        _file("102flowers.tgz", "the pictures, jpg/image_00001.jpg and so on"),
        _file("imagelabels.mat", "their classes"),
        _file("setid.mat", "training, validation and test set"),
    )
    classes = 102
    parts: ClassVar = {"train": ("train", "validation"), "test": ("test",)}

    def splits(self, paths: dict[str, Path]) -> dict[str, Part]:
        """Labels by image_00001.jpg and so on."""
        (labels,) = contents.mat(paths["imagelabels.mat"], "labels")
        sets = contents.mat(paths["setid.mat"], *_SPLITS.values())
        return {
            split: Part(
                {f"image_{i:05}.jpg": int(labels[0, i - 1]) - 1 for i in numbers[0].tolist()},
                contents.pictures(paths["102flowers.tgz"], r"jpg/(image_\d+\.jpg)"),
            )
            for split, numbers in zip(_SPLITS, sets, strict=True)
        }
