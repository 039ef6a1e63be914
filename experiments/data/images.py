"""Grey images of 28×28 pixels, and the normalised rows that are made of them."""

import io
import struct

import numpy as np
from PIL import Image, UnidentifiedImageError

from experiments.data.types import DataDamagedError, Examples, Splits

SIDE = 28


def read_grey(content: bytes, where: str) -> np.ndarray:
    """(H, W) uint8 from an image file's content; `where` names it in the error."""
    try:
        with Image.open(io.BytesIO(content)) as image:
            return np.asarray(image.convert("L"))
    # SyntaxError is what Pillow raises for a broken PNG.
    except (OSError, ValueError, SyntaxError, IndexError, struct.error) as error:
        raise DataDamagedError(
            f"{where} is not an image that can be read ({in_words(error, content)}); fetch the "
            "file again"
        ) from error


def in_words(error: Exception, content: bytes) -> str:
    """What is wrong with an image file, from what Pillow raised."""
    if not content:
        return "it is empty"
    # Pillow's own text names the object in memory that the bytes were read from.
    if isinstance(error, UnidentifiedImageError):
        return f"its {len(content)} bytes begin like no kind of image that is known"
    return str(error)


def resize_by_area(image: np.ndarray) -> np.ndarray:
    """(28, 28) uint8 from (H, W): each pixel is the mean over the area that it covers.

    >>> resize_by_area(np.array([[0, 100, 200]], np.uint8))[5, ::9]
    array([  0,  67, 133, 200], dtype=uint8)
    """
    rows, columns = (_overlaps(size) for size in image.shape)
    return np.rint(rows @ image @ columns.T).astype(np.uint8)


def _overlaps(size: int) -> np.ndarray:
    """(28, size): the share that each old pixel has in each new one, along one side."""
    edges = np.arange(SIDE + 1)[:, None] * size / SIDE
    old = np.arange(size)
    shares = np.minimum(edges[1:], old + 1) - np.maximum(edges[:-1], old)
    return np.maximum(shares, 0) * SIDE / size


def enlarge(image: np.ndarray) -> np.ndarray:
    """(28, 28) uint8 by cubic interpolation of an (H, W) uint8 image."""
    return np.asarray(Image.fromarray(image).resize((SIDE, SIDE), Image.Resampling.BICUBIC))


def normalise(images: np.ndarray, mean: float, std: float) -> np.ndarray:
    """(N, D) float32: (x/255 − mean)/std of (N, …) uint8 images, flattened."""
    # A table of the 256 values is faster than arithmetic, and rounds once.
    table = ((np.arange(256) / 255 - mean) / std).astype(np.float32)
    return table[images.reshape(len(images), -1)]


def split(images: np.ndarray, labels: np.ndarray, is_test: np.ndarray) -> Splits:
    """The two parts, normalised by mean and standard deviation of all training pixels."""
    counts = np.bincount(images[~is_test].ravel(), minlength=256)
    values = np.arange(256) / 255
    mean = np.average(values, weights=counts)
    std = np.sqrt(np.average((values - mean) ** 2, weights=counts))
    inputs, labels = normalise(images, mean, std), labels.astype(np.int32)
    return Splits(
        Examples(inputs[~is_test], labels[~is_test]), Examples(inputs[is_test], labels[is_test])
    )
