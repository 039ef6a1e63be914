"""Chars74K's letters: cut out of photographs of street signs and shops."""

import re
import zlib
from pathlib import Path

import tensorflow_datasets as tfds

from experiments.data.published import contents
from experiments.data.published.builder import Part, PublishedBuilder
from experiments.data.published.fetching import File

_ARCHIVE = "EnglishImg.tgz"
_PATTERN = r"English/Img/((?:GoodImg|BadImag)/Bmp/Sample\d+/[^/]+\.png)"
# Classes are numbered from 1: ten digits, then the capitals, then the lower-case letters.
_FIRST_LETTER, _LAST_LETTER = 11, 62
# Of every ten pictures, by name, these many are training data.
_TRAIN_IN_TEN = 6


class Letters(PublishedBuilder, skip_registration=True):
    """A to Z and a to z of the good and the bad pictures, without the digits, as SVHN has those.

    The paper has 6,850 training pictures, and does not say which; no split into that many was
    published. Here training data are those whose name, from GoodImg or BadImag on, has a CRC-32
    with a last decimal digit below 6: about as many. Letters of one sign may be on both sides.

    Source: de Campos, Babu and Varma, Character recognition in natural images, VISAPP 2009. For
    research use. The MD5 is the one that DeepMind's dm_nevis and others record.
    """

    name = "chars74k_letters"
    VERSION = tfds.core.Version("1.0.0")
    title = "Chars74K's letters"
    folder = "letters"
    files = (
        File(
            _ARCHIVE,
            f"http://www.ee.surrey.ac.uk/CVSSP/demos/chars74k/{_ARCHIVE}",
            "pictures, English/Img/GoodImg/Bmp/Sample001/img001-00001.png and so on",
            digest="md5:85d157e0c58f998e1cda8def62bcda0d",
        ),
    )
    classes = _LAST_LETTER - _FIRST_LETTER + 1

    def splits(self, paths: dict[str, Path]) -> dict[str, Part]:
        """Labels by GoodImg/Bmp/Sample011/img011-00001.png and so on; 0 is A, 26 is a."""
        names = [name for name, _ in contents.pictures(paths[_ARCHIVE], _PATTERN)]
        labels = {name: _sample(name) - _FIRST_LETTER for name in names}
        letters = {name: label for name, label in labels.items() if 0 <= label < self.classes}
        return {
            split: Part(
                {name: label for name, label in letters.items() if _is_train(name) == wanted},
                contents.pictures(paths[_ARCHIVE], _PATTERN),
            )
            for split, wanted in (("train", True), ("test", False))
        }


def _sample(name: str) -> int:
    """The number of a picture's class.

    >>> _sample("GoodImg/Bmp/Sample011/img011-00001.png")
    11
    """
    return int(re.findall(r"Sample(\d+)/", name)[0])


def _is_train(name: str) -> bool:
    """Whether the picture of this name is training data."""
    return zlib.crc32(name.encode()) % 10 < _TRAIN_IN_TEN
