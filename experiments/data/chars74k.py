"""Chars74K's capital letters: cut out of photographs of street signs and shops, at 28×28 greys."""

import os
import re
import string
import zlib
from pathlib import Path

import numpy as np

from experiments.data import archives, folders, images, kept
from experiments.data.types import DataDamagedError, Splits

SOURCE = archives.Source(
    title="Chars74K (English, natural images)",
    folder="chars74k_goodimg",
    patterns=("*.zip", "*.tgz"),
    fetch=(
        "http://www.ee.surrey.ac.uk/CVSSP/demos/chars74k/EnglishImg.tgz\n"
        "    (the same on http://info.ee.surrey.ac.uk/CVSSP/demos/chars74k/)"
    ),
)
LETTERS = string.ascii_uppercase
TEST_EVERY = 5

# Classes are numbered from 1: ten digits, then the capitals, then the lower-case letters.
_FIRST_LETTER = 11
# Raise it with every change to what is kept, so that what was kept before is not read.
_KEPT_VERSION = 1
# In the publisher's archive masks of the same names are beside Bmp, in Msk.
_MEMBER = re.compile(r"(?:.*/)?GoodImg/(?:Bmp/)?Sample(\d+)/(img\d+-\d+)\.(?:png|jpe?g)")


def load(data_dir: str | os.PathLike[str] | None = None) -> Splits:
    """Load the letters A to Z of the good images, white on black, with a fixed split.

    No split was published: test data are those whose file name, without its ending, has a CRC-32
    that 5 divides, about one in five. Letters of one sign may be on both sides, which makes it
    easier than a split by photograph (which the files do not tell).

    Each image is turned grey, resized to 28×28 whatever its proportions (by area), stretched to
    0 … 255, and inverted where its border is brighter than its mean: letters are dark on light as
    often as light on dark, and the other data sets here are light on dark. A letter that fills
    the image, as an I does, may come out wrong. Then mean 0 and variance 1 over all training
    pixels.

    Source: de Campos, Babu and Varma, Character recognition in natural images, VISAPP 2009. For
    research use.

    Args:
      data_dir: the folder that chars74k_goodimg is in, with the publisher's EnglishImg.tgz, or a
        zip of its folder GoodImg, in it; else what MAS_JAX_DATA_DIR names, else mas_jax/data in
        the cache folder; may be read-only. Copies of other sizes give other, similar pixels.

    Returns:
      Examples sorted by file name; inputs (N, 784) float32; labels (N,) int32: 0 is A, 25 is Z.

    Raises:
      DataNotFoundError: the archive is not there; the text says what to fetch, and where to.
      DataDamagedError: the archive or an image in it cannot be read, or a letter is missing on
        one side of the split.
    """
    path = archives.find(SOURCE, data_dir)
    name = f"{archives.digest(path)}-letters-{_KEPT_VERSION}.npz"
    arrays = kept.read_or_make(folders.cache_folder() / "chars74k" / name, lambda: _decode(path))
    return images.split(arrays["images"], arrays["labels"], arrays["is_test"])


def _decode(path: Path) -> dict[str, np.ndarray]:
    """The letters' images (N, 28, 28) uint8, their labels, and which of them are test data."""
    found = {}
    for match, content in archives.members(path, _MEMBER):
        label = int(match[1]) - _FIRST_LETTER
        if 0 <= label < len(LETTERS):
            image = images.read_grey(content, archives.member(path, match))
            found[match[2]] = light_on_dark(images.resize_by_area(image)), label
    is_test = np.array([_is_test(name) for name in sorted(found)], bool)
    labels = np.array([found[name][1] for name in sorted(found)], int)
    for part, chosen in (("training", ~is_test), ("test", is_test)):
        if missing := sorted(set(range(len(LETTERS))) - set(labels[chosen].tolist())):
            raise DataDamagedError(
                f"{path} has no {part} images of {', '.join(LETTERS[label] for label in missing)}; "
                "wanted GoodImg/Sample011 (A) to GoodImg/Sample036 (Z). Fetch it again"
            )
    pixels = np.stack([found[name][0] for name in sorted(found)])
    return {"images": pixels, "labels": labels, "is_test": is_test}


def _is_test(name: str) -> bool:
    """Whether the image of this name is test data."""
    return zlib.crc32(name.encode()) % TEST_EVERY == 0


def light_on_dark(image: np.ndarray) -> np.ndarray:
    """(H, W) uint8 stretched to 0 … 255, and inverted where the border is brighter than the mean.

    >>> light_on_dark(np.array([[9, 9, 9], [9, 4, 9], [9, 9, 9]], np.uint8))[1]
    array([  0, 255,   0], dtype=uint8)
    """
    values = image.astype(float) - image.min()
    values *= 255 / max(values.max(), 1)
    border = np.concatenate([values[0], values[-1], values[1:-1, 0], values[1:-1, -1]])
    if border.mean() > values.mean():
        values = 255 - values
    return np.rint(values).astype(np.uint8)
