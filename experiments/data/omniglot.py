"""One alphabet of Omniglot: handwritten characters, each drawn once by 20 people, at 28×28."""

import difflib
import os
import re
from pathlib import Path
from typing import NoReturn

import numpy as np

from experiments.data import archives, folders, images, kept
from experiments.data.types import DataDamagedError, Splits

SOURCE = archives.Source(
    title="Omniglot's evaluation set",
    folder="omniglot",
    patterns=("images_evaluation*.zip",),
    fetch="https://github.com/brendenlake/omniglot/raw/master/python/images_evaluation.zip",
)
# The evaluation set's first alphabet, by name, with 40 characters or more: it has 45.
ALPHABET = "Glagolitic"
DRAWINGS = 20
TRAIN_DRAWINGS = 15

# Raise it with every change to what is kept, so that what was kept before is not read.
_KEPT_VERSION = 1


def load(data_dir: str | os.PathLike[str] | None = None, *, alphabet: str = ALPHABET) -> Splits:
    """Load one alphabet, white on black, with a fixed split by drawing.

    Each character's drawings 01 to 15 (as the files' names number them) are training data, 16 to
    20 test data. The 105×105 bits are inverted, to be white on black as MNIST is; a pixel of the
    28×28 is the ink's share of its area. Then mean 0 and variance 1 over all training pixels.
    The alphabet's task is ours, Omniglot's own is to learn a character from one drawing.

    Source: Lake, Salakhutdinov and Tenenbaum, Human-level concept learning through probabilistic
    program induction, Science 350, 2015.

    Args:
      data_dir: the folder that omniglot/images_evaluation*.zip is in, else what MAS_JAX_DATA_DIR
        names, else mas_jax/data in the cache folder; may be read-only.
      alphabet: as the archive calls it, of 20 alphabets with 20 to 47 characters.

    Returns:
      15 training and 5 test examples of each character, sorted by character, then drawing;
      Glagolitic: 675 and 225. Inputs (N, 784) float32; labels (N,) int32: 0 is character01.

    Raises:
      DataNotFoundError: the archive is not there; the text says what to fetch, and where to.
      DataDamagedError: the archive or an image in it cannot be read, or an image is missing.
      ValueError: no such alphabet in the archive.
    """
    path = archives.find(SOURCE, data_dir)
    name = f"{archives.digest(path)}-{alphabet}-{_KEPT_VERSION}.npz"
    arrays = kept.read_or_make(
        folders.cache_folder() / "omniglot" / name, lambda: _decode(path, alphabet)
    )
    return images.split(arrays["images"], arrays["labels"], arrays["drawings"] > TRAIN_DRAWINGS)


def _decode(path: Path, alphabet: str) -> dict[str, np.ndarray]:
    """The alphabet's images (N, 28, 28) uint8, labels from 0 and drawings from 1."""
    pixels = {}
    for match, content in archives.members(path, _members(re.escape(alphabet))):
        image = images.read_grey(content, archives.member(path, match))
        pixels[int(match[2]), int(match[3])] = 255 - images.resize_by_area(image)
    if not pixels:
        _refuse_alphabet(path, alphabet)
    keys = sorted(pixels)
    wanted = [
        (character, drawing)
        for character in range(1, keys[-1][0] + 1)
        for drawing in range(1, DRAWINGS + 1)
    ]
    if keys != wanted:
        character, drawing = min(set(wanted) ^ set(keys))
        state = "lacks" if (character, drawing) in wanted else "has"
        raise DataDamagedError(
            f"{path} is not as published: of {alphabet} it {state} drawing {drawing} of character "
            f"{character}, wanted drawings 1 to {DRAWINGS} of each. Fetch it again"
        )
    characters, drawings = np.array(keys).T
    return {
        "images": np.stack([pixels[key] for key in keys]),
        "labels": characters - 1,
        "drawings": drawings,
    }


def _members(alphabet: str) -> re.Pattern[str]:
    """Names of images; groups: the alphabet, the character's number, the drawing's number."""
    return re.compile(rf"(?:.*/)?images_evaluation/({alphabet})/character(\d+)/\d+_(\d+)\.png")


def _refuse_alphabet(path: Path, alphabet: str) -> NoReturn:
    """Raise the error for an archive in which the alphabet is not."""
    known = sorted({match[1] for match, _ in archives.members(path, _members("[^/]+"))})
    if not known:
        raise DataDamagedError(
            f"{path} holds no images_evaluation/ALPHABET/characterNN/NNNN_NN.png; fetch it again"
        )
    nearest = difflib.get_close_matches(alphabet, known, 1)
    hint = f"did you mean {nearest[0]!r}? " if nearest else ""
    raise ValueError(f"alphabet {alphabet!r} is not in {path}; {hint}It has {', '.join(known)}")
