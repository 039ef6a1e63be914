"""FGVC-Aircraft: 10,000 photographs of 100 variants of aircraft."""

from pathlib import Path

import tensorflow_datasets as tfds

from experiments.data.published import contents
from experiments.data.published.builder import Part, PublishedBuilder
from experiments.data.published.fetching import File
from experiments.data.types import DataDamagedError

_ARCHIVE = "fgvc-aircraft-2013b.tar.gz"
_FOLDER = "fgvc-aircraft-2013b/data"
_LISTS = {"train": "images_variant_trainval.txt", "test": "images_variant_test.txt"}
_CLASSES = "variants.txt"


class Aircraft(PublishedBuilder, skip_registration=True):
    """Variants, as the publisher's lists give them.

    Training data are the published training and validation sets, 6,667 pictures (the paper says
    6,666); test data the other 3,333. The bar with the copyright at the bottom of each picture,
    20 pixels high, is left in.

    Source: Maji et al., Fine-grained visual classification of aircraft, arXiv 1306.5151. For
    research use. The MD5 is the one that DeepMind's dm_nevis and others record.
    """

    name = "fgvc_aircraft"
    VERSION = tfds.core.Version("1.0.0")
    title = "FGVC-Aircraft"
    folder = "aircraft"
    files = (
        File(
            _ARCHIVE,
            f"https://www.robots.ox.ac.uk/~vgg/data/fgvc-aircraft/archives/{_ARCHIVE}",
            f"pictures, {_FOLDER}/images/0034309.jpg and so on, and their lists",
            digest="md5:d4acdd33327262359767eeaa97a4f732",
        ),
    )
    classes = 100

    def splits(self, paths: dict[str, Path]) -> dict[str, Part]:
        """Labels by 0034309.jpg and so on, in the order of variants.txt."""
        path = paths[_ARCHIVE]
        names = "|".join((_CLASSES, *_LISTS.values()))
        lists = contents.texts(path, rf"{_FOLDER}/({names})")
        labels = {
            variant: label
            for label, (variant,) in enumerate(contents.rows(lists, _CLASSES, path, 1))
        }
        return {
            split: Part(
                _table(contents.rows(lists, name, path, 2), labels, f"{name} in {path}"),
                contents.pictures(path, rf"{_FOLDER}/images/(\d+\.jpg)"),
            )
            for split, name in _LISTS.items()
        }


def _table(rows: list[list[str]], labels: dict[str, int], where: str) -> dict[str, int]:
    """A list's labels; `where` names it in the error."""
    if unknown := [variant for _, variant in rows if variant not in labels]:
        raise DataDamagedError(
            f"{where} has the variant {unknown[0]!r}, which is not in {_CLASSES}; fetch it again"
        )
    return {f"{number}.jpg": labels[variant] for number, variant in rows}
