"""MIT Indoor-67: photographs of indoor scenes."""

from pathlib import Path
from typing import ClassVar

import tensorflow_datasets as tfds

from experiments.data.published import contents
from experiments.data.published.builder import Part, PublishedBuilder
from experiments.data.published.fetching import File

_ARCHIVE = "indoorCVPR_09.tar"
_LISTS = {"train": "TrainImages.txt", "test": "TestImages.txt"}


class Indoor67(PublishedBuilder, skip_registration=True):
    """The pictures that the publisher's two lists name, 80 and 20 of each class, by and large.

    5,360 training pictures and 1,340 test pictures out of the archive's 15,620. Classes are
    numbered in the alphabet's order. Neither size nor digest of the three files is on record with
    the publisher or TFDS, so the lists' lengths and the number of classes are checked instead.

    Source: Quattoni and Torralba, Recognizing indoor scenes, CVPR 2009. For research use.
    """

    name = "mit_indoor67"
    VERSION = tfds.core.Version("1.0.0")
    title = "MIT Indoor-67"
    folder = "indoor67"
    files = (
        File(
            _ARCHIVE,
            f"http://groups.csail.mit.edu/vision/LabelMe/NewImages/{_ARCHIVE}",
            "pictures, Images/airport_inside/… and so on",
        ),
        *(
            File(name, f"http://web.mit.edu/torralba/www/{name}", f"names of the {split} pictures")
            for split, name in _LISTS.items()
        ),
    )
    classes = 67
    counts: ClassVar = {"train": 5360, "test": 1340}

    def splits(self, paths: dict[str, Path]) -> dict[str, Part]:
        """Labels by airport_inside/airport_inside_0001.jpg and so on."""
        names = {
            split: contents.decoded(paths[name].read_bytes(), paths[name]).split("\n")
            for split, name in _LISTS.items()
        }
        scenes = sorted({_scene(name) for lines in names.values() for name in lines} - {""})
        return {
            split: Part(
                {name.strip(): scenes.index(_scene(name)) for name in lines if name.strip()},
                contents.pictures(paths[_ARCHIVE], r"Images/(.+\.\w+)"),
            )
            for split, lines in names.items()
        }


def _scene(name: str) -> str:
    """The class of a picture: the folder that it is in."""
    return name.strip().partition("/")[0]
