"""Colour pictures as squares of pixels, decoded from their files."""

import io
import struct
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from PIL import Image

from experiments.data.images import in_words
from experiments.data.types import DataDamagedError

# What Pillow raises: SyntaxError for a broken PNG, and the last where a broken header claims a
# picture of gigabytes.
UNREADABLE = (
    OSError, ValueError, SyntaxError, IndexError, struct.error, Image.DecompressionBombError,
)  # fmt: skip


class Decoded(NamedTuple):
    """Pictures that could be read, and the names of those that could not."""

    pixels: np.ndarray  # (N, side, side, 3) uint8
    rows: np.ndarray  # (N,) int: which of those given each one is
    skipped: tuple[str, ...]


def read_square(content: bytes, where: str, side: int) -> np.ndarray:
    """(side, side, 3) uint8: the shorter side resized to `side`, the middle of the longer kept.

    Bicubic, with antialiasing; grey and transparent pictures become RGB.

    Raises:
      DataDamagedError: `content` is no picture that can be read; names `where` it is.
    """
    try:
        with Image.open(io.BytesIO(content)) as image:
            return square(image, side)
    except UNREADABLE as error:
        raise DataDamagedError(
            f"{where} is not a picture that can be read ({in_words(error, content)}); fetch the "
            "file again, or leave it out with --skip-damaged"
        ) from error


def square(image: Image.Image, side: int) -> np.ndarray:
    """(side, side, 3) uint8 of a picture, as `read_square`.

    >>> square(Image.new("L", (40, 20), 7), 4).shape
    (4, 4, 3)
    """
    width, height = image.size
    shorter = min(width, height)
    left, top = (width - shorter) / 2, (height - shorter) / 2
    resized = image.convert("RGB").resize(
        (side, side), Image.Resampling.BICUBIC, (left, top, left + shorter, top + shorter)
    )
    return np.asarray(resized)


def decode(files: Iterable[tuple[str, bytes]], side: int, *, skip_damaged: bool = False) -> Decoded:
    """Squares of all (name, content) pairs.

    Raises:
      DataDamagedError: one of them cannot be read, and `skip_damaged` is off.
    """
    pixels, rows, skipped = [], [], []
    for row, (name, content) in enumerate(files):
        try:
            pixels.append(read_square(content, name, side))
            rows.append(row)
        except DataDamagedError:
            if not skip_damaged:
                raise
            skipped.append(name)
    stacked = np.stack(pixels) if pixels else np.zeros((0, side, side, 3), np.uint8)
    return Decoded(stacked, np.array(rows, int), tuple(skipped))
