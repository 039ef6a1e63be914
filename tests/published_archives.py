"""Miniatures of the paper's data sets, in their publishers' layouts."""

import hashlib
import io
import itertools
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import scipy.io
from PIL import Image

from experiments.data.published import BUILDERS
from experiments.data.published.actions import ACTIONS
from experiments.data.published.fetching import File
from tests.idx_archives import free_port
from tests.image_archives import encode, write_tgz

# Far enough apart to survive JPEG.
COLOURS = list(itertools.product((20, 100, 180, 250), repeat=3))


class Content(NamedTuple):
    """What a miniature holds: the label of each picture, by its colour's number."""

    train: dict[int, int]
    test: dict[int, int]


class Miniature(NamedTuple):
    """A data set's writer, and what it writes."""

    write: Callable[[Path], None]
    content: Content


def picture(number: int, file_format: str = "JPEG") -> bytes:
    """A picture of one colour, 32 wide and 24 high."""
    return encode(np.full((24, 32, 3), COLOURS[number], np.uint8), file_format)


def write_tar(path: Path, files: dict[str, bytes]) -> None:
    """A tar of these files, not compressed."""
    with tarfile.open(path, "w") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))


def write_flowers(folder: Path) -> None:
    """Six pictures: 3 and 5 are training data, 2 is validation data; 4 is none."""
    names = {f"jpg/image_{i:05}.jpg": picture(i) for i in range(1, 7)}
    write_tgz(folder / "102flowers.tgz", names)
    labels = np.array([[1, 2, 1, 7, 2, 2]], np.uint8)
    scipy.io.savemat(folder / "imagelabels.mat", {"labels": labels})
    sets = {"trnid": [[3, 5]], "valid": [[2]], "tstid": [[6, 1]]}
    scipy.io.savemat(folder / "setid.mat", sets)


def write_indoor(folder: Path) -> None:
    """Two scenes; their pictures 1 to 4, and one that no list names."""
    names = ["bar/b_1.jpg", "airport_inside/a_1.jpg", "bar/b_2.jpg", "airport_inside/a_2.JPG"]
    files = {f"Images/{name}": picture(number) for number, name in enumerate(names, start=1)}
    write_tar(folder / "indoorCVPR_09.tar", {**files, "Images/bar/b_9.jpg": picture(9)})
    (folder / "TrainImages.txt").write_text("\r\n".join(names[:2]))
    (folder / "TestImages.txt").write_text("\n".join(names[2:]) + "\n")


def cub_files() -> dict[str, bytes]:
    """Two species."""
    names = [
        "001.Black_footed_Albatross/Black_footed_Albatross_0001_796111.jpg",
        "001.Black_footed_Albatross/Black_footed_Albatross_0002_55.jpg",
        "002.Laysan_Albatross/Laysan_Albatross_0001_545.jpg",
        "002.Laysan_Albatross/Laysan_Albatross_0002_1027.jpg",
    ]
    lists = {
        "images.txt": [f"{i} {name}" for i, name in enumerate(names, start=1)],
        "image_class_labels.txt": ["1 1", "2 1", "3 2", "4 2"],
        "train_test_split.txt": ["1 0", "2 1", "3 1", "4 0"],
        "classes.txt": ["1 001.Black_footed_Albatross", "2 002.Laysan_Albatross"],
    }
    texts = {name: "".join(f"{line}\n" for line in lines) for name, lines in lists.items()}
    return {
        "attributes.txt": b"1 has_bill_shape::curved\n",
        **{f"CUB_200_2011/{name}": text.encode() for name, text in texts.items()},
        **{f"CUB_200_2011/images/{name}": picture(i) for i, name in enumerate(names, start=1)},
    }


def write_cub(folder: Path) -> None:
    """Two species."""
    write_tgz(folder / "CUB_200_2011.tgz", cub_files())


def annotations(rows: list[tuple[int, str]]) -> bytes:
    """A list of Stanford Cars: boxes, class and file name."""
    fields = ("bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2", "class", "fname")
    table = np.empty((1, len(rows)), [(field, object) for field in fields])
    for place, (label, name) in enumerate(rows):
        table[0, place] = (np.uint16(1), np.uint16(2), np.uint16(30), np.uint16(20), label, name)
    content = io.BytesIO()
    scipy.io.savemat(content, {"annotations": table})
    return content.getvalue()


def write_cars(folder: Path) -> None:
    """Class 1 and class 196; the two parts' files have the same names."""
    for part, numbers in (("train", (1, 2)), ("test", (3, 4))):
        names = ("00001.jpg", "00002.jpg")
        files = {f"cars_{part}/{n}": picture(i) for n, i in zip(names, numbers, strict=True)}
        write_tgz(folder / f"cars_{part}.tgz", files)
    train, test = (
        [(label, f"0000{i}.jpg") for label, i in ((a, 1), (197 - a, 2))] for a in (196, 1)
    )
    write_tgz(folder / "car_devkit.tgz", {"devkit/cars_train_annos.mat": annotations(train)})
    (folder / "cars_test_annos_withlabels.mat").write_bytes(annotations(test))


def aircraft_files() -> dict[str, bytes]:
    """Two variants, in another order than the alphabet's."""
    return {
        "variants.txt": b"F-16A/B\n737-300 of Boeing\n",
        "images_variant_trainval.txt": b"0000001 737-300 of Boeing\n0000002 F-16A/B\n",
        "images_variant_test.txt": b"0000003 737-300 of Boeing\n0000004 F-16A/B\n",
        "images_variant_train.txt": b"0000001 737-300 of Boeing\n",
        **{f"images/000000{i}.jpg": picture(i) for i in (1, 2, 3, 4)},
    }


def write_aircraft(folder: Path, files: dict[str, bytes] | None = None) -> None:
    """The archive of these files."""
    start = "fgvc-aircraft-2013b/data/"
    content = {start + name: text for name, text in (files or aircraft_files()).items()}
    write_tgz(folder / "fgvc-aircraft-2013b.tar.gz", content)


def note(*boxes: tuple[int, int, int, int]) -> bytes:
    """An annotation of VOC: a chair, and persons in these boxes (left, top, right, bottom)."""
    persons = "".join(
        "<object><name>person</name><actions><other>0</other></actions><bndbox>"
        f"<xmax>{right}</xmax><xmin>{left}.0</xmin><ymax>{bottom}</ymax><ymin>{top}</ymin>"
        "</bndbox></object>"
        for left, top, right, bottom in boxes
    )
    chair = "<object><name>chair</name></object>"
    return f"<annotation><folder>VOC2012</folder>{chair}{persons}</annotation>".encode()


def halved(number: int) -> bytes:
    """A picture, 32 wide and 24 high, of one colour on the left and the next one on the right."""
    halves = np.repeat(np.array([COLOURS[number], COLOURS[number + 1]], np.uint8), 16, 0)
    content = io.BytesIO()
    # Without subsampling no colour comes over the edge between blocks.
    Image.fromarray(np.repeat(halves[None], 24, 0)).save(content, "JPEG", subsampling=0)
    return content.getvalue()


def voc_files() -> dict[str, bytes]:
    """Two pictures per part, with two persons each; the last of each part does two things."""
    files = {}
    for part, start in (("train", 1), ("val", 5)):
        names = [f"2010_00000{start}", f"2011_00000{start}"]
        persons = [(name, number) for name in names for number in (2, 3)]
        # jumping; other; walking; jumping and walking
        done = {"jumping": (0, 3), "walking": (2, 3)}
        for action in ACTIONS[:-1]:
            lines = (
                f"{name}  {number} {'1' if place in done.get(action, ()) else '-1'}"
                for place, (name, number) in enumerate(persons)
            )
            files[f"ImageSets/Action/{action}_{part}.txt"] = "\n".join(lines).encode()
        files[f"ImageSets/Action/{part}.txt"] = "\n".join(names).encode()
        for name, first in zip(names, (start, start + 2), strict=True):
            files[f"JPEGImages/{name}.jpg"] = halved(first)
            # One pixel each, on both sides of the edge: a box that is off by one shows.
            files[f"Annotations/{name}.xml"] = note((16, 1, 16, 1), (17, 24, 17, 24))
    return {f"VOCdevkit/VOC2012/{name}": content for name, content in files.items()}


def write_voc(folder: Path, files: dict[str, bytes] | None = None) -> None:
    """The archive of these files."""
    write_tar(folder / "VOCtrainval_11-May-2012.tar", files or voc_files())


def letter_files() -> dict[str, bytes]:
    """A digit, A, z, a, and a mask; the CRC-32 of 1 to 6 and 8 ends in 9, 9, 0, 2, 5, 1, 6."""
    names = {
        "GoodImg/Bmp/Sample010/img010-00001.png": 0,
        "GoodImg/Bmp/Sample011/img011-00001.png": 1,
        "GoodImg/Bmp/Sample011/img011-00002.png": 2,
        "BadImag/Bmp/Sample011/img011-00001.png": 3,
        "GoodImg/Bmp/Sample062/img062-00001.png": 4,
        "GoodImg/Bmp/Sample037/img037-00004.png": 5,
        "BadImag/Bmp/Sample062/img062-00001.png": 6,
        "GoodImg/Msk/Sample011/img011-00001.png": 7,
        "BadImag/Bmp/Sample037/img037-00002.png": 8,
    }
    return {f"English/Img/{name}": picture(i, "PNG") for name, i in names.items()}


def write_letters(folder: Path) -> None:
    """The archive."""
    write_tgz(folder / "EnglishImg.tgz", letter_files())


def write_svhn(folder: Path) -> None:
    """A one and a zero per part."""
    for part, numbers in (("train", (1, 2)), ("test", (3, 4))):
        images = np.stack([np.full((32, 32, 3), COLOURS[i], np.uint8) for i in numbers], -1)
        labels = np.array([[1], [10]], np.uint8)
        scipy.io.savemat(folder / f"{part}_32x32.mat", {"X": images, "y": labels})


MINIATURES = {
    "flowers102": Miniature(write_flowers, Content({3: 0, 5: 1, 2: 1}, {6: 1, 1: 0})),
    "indoor67": Miniature(write_indoor, Content({1: 1, 2: 0}, {3: 1, 4: 0})),
    "cub200": Miniature(write_cub, Content({2: 0, 3: 1}, {1: 0, 4: 1})),
    "cars196": Miniature(write_cars, Content({1: 195, 2: 0}, {3: 0, 4: 195})),
    "aircraft": Miniature(write_aircraft, Content({1: 1, 2: 0}, {3: 1, 4: 0})),
    "actions": Miniature(write_voc, Content({1: 0, 2: 10, 3: 9}, {5: 0, 6: 10, 7: 9})),
    "letters": Miniature(write_letters, Content({3: 0, 4: 51, 5: 26, 6: 51}, {1: 0, 2: 0, 8: 26})),
    "svhn": Miniature(write_svhn, Content({1: 1, 2: 0}, {3: 1, 4: 0})),
}


def known(file: File, folder: Path, port: int) -> File:
    """The file as it is in `folder`, with size and digest where the real one has them."""
    here = file._replace(url=f"http://127.0.0.1:{port}/{file.name}")
    path = folder / file.name
    if file.size is not None:
        here = here._replace(size=path.stat().st_size)
    if file.digest:
        algorithm = file.digest.partition(":")[0]
        digest = hashlib.new(algorithm, path.read_bytes()).hexdigest()
        here = here._replace(digest=f"{algorithm}:{digest}")
    return here


def builder(name: str, folder: Path, port: int | None = None) -> Any:
    """The data set's builder, but for the files in `folder`, which it downloads from `port`."""
    like: Any = BUILDERS[name]
    port = port or free_port()
    content = MINIATURES[name].content

    class Small(like, skip_registration=True):  # pyright: ignore[reportGeneralTypeIssues, reportCallIssue]
        name = like.name
        files = tuple(known(file, folder, port) for file in like.files)

    if like.counts:
        Small.counts = {"train": len(content.train), "test": len(content.test)}
        Small.classes = len(set(content.train.values()))
    return Small
