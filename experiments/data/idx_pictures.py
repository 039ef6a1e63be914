"""MNIST and Fashion-MNIST as colour pictures of any size."""

import os
from types import ModuleType

import numpy as np
from PIL import Image

from experiments.data import fashion_mnist, images, mnist, pictures
from experiments.data.types import Examples, PictureSplits, Splits

SETS: dict[str, ModuleType] = {"fashion_mnist": fashion_mnist, "mnist": mnist}
CLASS_NAMES = {
    "fashion_mnist": (
        "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat",
        "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
    ),
    "mnist": tuple("0123456789"),
}  # fmt: skip


def load(
    name: str,
    data_dir: str | os.PathLike[str] | None,
    side: int,
    counts: tuple[int | None, int | None],
) -> PictureSplits:
    """The set of this name, see `stand_ins.load`; not kept, as that takes longer than resizing.

    `counts` are how many training and test pictures of each class are wanted; None for all.
    """
    module = SETS[name]
    splits: Splits = module.load(data_dir)
    parts = []
    for part, count in zip((splits.train, splits.test), counts, strict=True):
        rows = first_of_each(part.labels, count)
        # Back from normalised to bytes: rint is exact, the error of float32 is below 1e-4.
        greys = np.rint((part.inputs[rows] * module.STD + module.MEAN) * 255).astype(np.uint8)
        inputs = np.empty((len(rows), side, side, 3), np.uint8)
        for row, grey in enumerate(greys.reshape(-1, images.SIDE, images.SIDE)):
            inputs[row] = pictures.square(Image.fromarray(grey), side)
        parts.append(Examples(inputs, part.labels[rows]))
    return PictureSplits(*parts)


def first_of_each(labels: np.ndarray, count: int | None) -> np.ndarray:
    """Which rows are among the first `count` of their class, in order; None for all.

    >>> first_of_each(np.array([1, 0, 1, 1]), 2)
    array([0, 1, 2])
    """
    if count is None:
        return np.arange(len(labels))
    rows = [np.flatnonzero(labels == label)[:count] for label in np.unique(labels)]
    return np.sort(np.concatenate(rows))
