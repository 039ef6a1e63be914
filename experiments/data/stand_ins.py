"""Small data sets that stand in for the paper's, as colour pictures of one size."""

import os
import re
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np

from experiments.data import (
    archives,
    chars74k,
    folders,
    idx_pictures,
    kept,
    labelled_zips,
    pictures,
)
from experiments.data.labelled_zips import Row
from experiments.data.types import DataDamagedError, Examples, PictureSplits
from experiments.names import nearest

# Raise it with every change to what is kept, so that what was kept before is not read.
_KEPT_VERSION = 1
# Sample011 is A, Sample036 is Z; in the publisher's archive masks of the same names are in Msk.
_LETTER = re.compile(
    r"(?:.*/)?GoodImg/(?:Bmp/)?Sample0(1[1-9]|2\d|3[0-6])/img\d+-\d+\.(?:png|jpe?g)"
)


class Copy(NamedTuple):
    """The archive that the numbers here were measured on."""

    size: int
    sha256: str


def _letters(_path: Path, files: Iterable[str]) -> list[Row]:
    """A row for each letter, told by its folder."""
    matches = filter(None, map(_LETTER.fullmatch, sorted(files)))
    return [Row(match.string, chars74k.LETTERS[int(match[1]) - 11], "") for match in matches]


class Archive(NamedTuple):
    """A data set in an archive of pictures.

    Attributes:
      source: how it comes to this machine.
      copy: what is taken unless told otherwise.
      test_every: the split by name, for sets without one; None for the archive's own.
      pattern: the names of its pictures.
      rows_of: from the archive and its pictures' names to what they are, sorted by name.
      names: the classes in the set's own order; None for the table's, sorted.
    """

    source: archives.Source
    copy: Copy
    test_every: int | None = None
    pattern: re.Pattern[str] = labelled_zips.PICTURES
    rows_of: Callable[[Path, Iterable[str]], list[Row]] = labelled_zips.rows_of
    names: tuple[str, ...] | None = None


def _zipped(
    title: str, path: str, origin: str, size: int, sha256: str, test_every: int | None = None
) -> Archive:
    """A zip with a table, made of the pictures that are to be had at `origin`."""
    folder, file = path.split("/")
    fetch = (
        f"{origin}\n    as {file}: the pictures, with shorter side 72 or larger, and "
        f"{labelled_zips.TABLE},\n    with the columns {', '.join(labelled_zips.COLUMNS)}"
    )
    source = archives.Source(title, folder, ("*.zip",), fetch)
    return Archive(source, Copy(size, sha256), test_every)


ARCHIVES = {
    "flowers17": _zipped(
        "Oxford Flowers-17",
        "oxford_flowers17/oxford_flowers17_72.zip",
        "17flowers_traintest/ of https://github.com/995114879/17flowers",
        5547497,
        "72b4f7cfd7dda36de571c390b0c594297a6fd3c8610b95d6cd0b7dfdeedb9d96",
    ),
    "scene15": _zipped(
        "Fifteen Scene Categories",
        "scene15/scene15_72.zip",
        "data/ of https://github.com/jaaumeadrover/Landscape-Image-Classification",
        11617345,
        "cb2f4fd0e520343d4ff399f49adf106936d386ed7d5d7c28fafcd118f2fddab0",
    ),
    "cub10": _zipped(
        "Caltech-UCSD Birds 200 (2010), ten species",
        "cub200_2010_first10/cub200_2010_first10_72.zip",
        "the first ten folders of Data/ of https://github.com/yinlingmei/CUB_200",
        1067750,
        "b20e4f8e91c04b1f97c911251eec162c694883a73baf54c03b0572e8cc28fd12",
        3,
    ),
    "cars20": _zipped(
        "Stanford Cars, twenty classes",
        "stanford_cars_20/stanford_cars_20_72.zip",
        "cars_train/ of https://github.com/fmejbah/car_dataset1, the 20 largest classes, cropped,",
        5074936,
        "f8fb6987460756c5b2030c2271a1362ef1cefa96fdb6f55d8b7dbe6d9ef38a2c",
        3,
    ),
    "actions40": _zipped(
        "Stanford 40 Actions",
        "stanford40/stanford40_72.zip",
        "JPEGImages/ and ImageSplits/ of https://github.com/Mehranai/stanford40_pose",
        39695885,
        "eef20ef15f671359188f29a8cc68b1f47cf9af9ab5e22094f12a85f04b608d24",
    ),
    "letters": Archive(
        chars74k.SOURCE._replace(
            fetch="GoodImg/ of https://github.com/rfstdh/100image, in a zip, at 64 pixels;\n    or,"
            f" for --any-copy, {chars74k.SOURCE.fetch}"
        ),
        Copy(9836061, "7f7b2b9cd23e9718bd15ccc3c463e9975a2607e100a95b3ee1a696ff351c84f4"),
        chars74k.TEST_EVERY,
        _LETTER,
        _letters,
        tuple(chars74k.LETTERS),
    ),
}
NAMES = (*ARCHIVES, *idx_pictures.SETS)


def load(
    name: str,
    data_dir: str | os.PathLike[str] | None = None,
    *,
    side: int = 72,
    per_class: int | None = None,
    test_per_class: int | None = None,
    skip_damaged: bool = False,
    any_copy: bool = False,
) -> PictureSplits:
    """Load a stand-in, with a fixed split.

    | name | stands in for | pictures, classes | split |
    |---|---|---|---|
    | flowers17 | Flowers-102 | 1,360, 17 | its copy's own |
    | scene15 | MIT Indoor-67 | 4,485, 15 | its own, but for 11 pictures |
    | cub10 | CUB-200 | 294, 10 | by name, one in three |
    | cars20 | Stanford Cars | 947, 20 | by name, one in three |
    | actions40 | VOC Actions | 9,532, 40 | its own |
    | letters | Chars74K's letters | 5,202, 26 | by name, one in five |
    | fashion_mnist, mnist | Aircraft, SVHN (as tasks, in number) | 70,000 each, 10 | their own |

    By name: test data are the pictures whose file name, without folder and ending, has a CRC-32
    that the number divides. cub10 and cars20 have 25 to 68 pictures of a class: one in five would
    leave three test pictures of some, one in three leaves six. All of cars20 are training data
    of Stanford Cars. Letters are the capitals that `chars74k.load` gives, in its order, with its
    split.

    Files that are the same, byte by byte, are all training data if one of them is: no test
    picture has been seen, and training data lose none. That moves 11 test pictures of scene15
    (of 18 pairs; one has two labels) and one of cub10 (which has two labels). It does not find
    photographs that were saved twice: 21 test pictures of flowers17 (8 %) and one of scene15 are
    among the training data as well (correlation above 0.99, looked at).

    The square in the middle of a picture is resized to `side` (`pictures.read_square`). Pictures
    decoded from an archive are kept in mas_jax/stand_ins in the cache folder.

    Sources: Nilsback and Zisserman, CVPR 2006; Lazebnik, Schmid and Ponce, CVPR 2006; Welinder et
    al., CNS-TR-2010-001; Krause et al., 3dRR 2013; Yao et al., ICCV 2011; `chars74k`,
    `fashion_mnist`, `mnist`. The first six are for research use.

    Args:
      name: one of `NAMES`.
      data_dir: the folder that the data sets' folders are in; else what MAS_JAX_DATA_DIR names,
        else mas_jax/data in the cache folder; may be read-only.
      side: pixels, at least 1.
      per_class: how many training pictures of each class, the first in the set's order; None for
        all. (N, 72, 72, 3) of all of MNIST are 1.1 GB.
      test_per_class: the same for test pictures.
      skip_damaged: leave pictures out that cannot be read. Implies `any_copy`: the archive that
        was measured has none.
      any_copy: take an archive of another size and digest than the one that the numbers were
        measured on: Chars74K's own EnglishImg.tgz, say, for letters.

    Returns:
      Inputs (N, side, side, 3) uint8, RGB; labels (N,) int32, places in `class_names`. In the
      order of the file names, MNIST in TFDS's. The names of all files left out.

    Raises:
      ValueError: no such name, or a number out of range.
      DataNotFoundError: the archive is not there; the text says what to fetch, and where to.
      DataDamagedError: it is another, or damaged; its table is missing, or names files that are
        missing, or lacks some; a picture cannot be read; or a class is missing in one part.
    """
    _check_arguments(name, side, {"per_class": per_class, "test_per_class": test_per_class})
    counts = (per_class, test_per_class)
    if name in idx_pictures.SETS:
        return idx_pictures.load(name, data_dir, side, counts)
    arrays = _kept(name, data_dir, side, skip_damaged=skip_damaged, any_copy=any_copy)
    is_test, parts = arrays["is_test"], []
    for is_part, count in zip((~is_test, is_test), counts, strict=True):
        rows = np.flatnonzero(is_part)
        rows = rows[idx_pictures.first_of_each(arrays["labels"][rows], count)]
        parts.append(Examples(arrays["images"][rows], arrays["labels"][rows]))
    return PictureSplits(*parts, skipped=tuple(arrays["skipped"].tolist()))


def path_of(name: str, data_dir: str | os.PathLike[str] | None = None) -> Path:
    """The archive of a stand-in that is kept in one; DataNotFoundError where it is not there."""
    return archives.find(ARCHIVES[name].source, data_dir)


def class_names(name: str, data_dir: str | os.PathLike[str] | None = None) -> tuple[str, ...]:
    """What the labels of `load` stand for, in their order.

    That is the set's own order for letters, MNIST and Fashion-MNIST; for the others the
    alphabet's, with numbers in names as numbers: c2 is before c10. Whether the archive is the
    one that was measured is left to `load`.

    Raises:
      ValueError: no such name.
      DataNotFoundError, DataDamagedError: as `load`, for the archive and its table.

    >>> class_names("letters")[:3]
    ('A', 'B', 'C')
    """
    if name not in NAMES:
        raise nearest("stand-in data set", name, NAMES)
    if name in idx_pictures.SETS:
        return idx_pictures.CLASS_NAMES[name]
    archive = ARCHIVES[name]
    return archive.names or labelled_zips.class_names(labelled_zips.table(path_of(name, data_dir)))


def _check_arguments(name: str, side: int, counts: dict[str, int | None]) -> None:
    """Raise ValueError for an argument that cannot be."""
    if name not in NAMES:
        raise nearest("stand-in data set", name, NAMES)
    for argument, value in {"side": side, **counts}.items():
        if value is not None and value < 1:
            raise ValueError(f"{argument} must be at least 1, got {value}")


def _kept(
    name: str,
    data_dir: str | os.PathLike[str] | None,
    side: int,
    *,
    skip_damaged: bool,
    any_copy: bool,
) -> dict[str, np.ndarray]:
    """An archive's arrays, as `_decode`; kept apart where damaged pictures were to be skipped."""
    archive = ARCHIVES[name]
    path = path_of(name, data_dir)
    digest = archives.digest(path)
    if not any_copy and not skip_damaged:
        _check_copy(path, digest, archive)
    which = "readable" if skip_damaged else "all"
    file = f"{digest}-{name}-{side}-{which}-{_KEPT_VERSION}.npz"
    return kept.read_or_make(
        folders.cache_folder() / "stand_ins" / file,
        lambda: _decode(path, archive, side, skip_damaged=skip_damaged),
    )


def _check_copy(path: Path, digest: str, archive: Archive) -> None:
    """Raise DataDamagedError where the archive is not the one that was measured."""
    found = Copy(path.stat().st_size, digest)
    if found != archive.copy:
        raise DataDamagedError(
            f"{path} is not the copy that is known here: it has {found.size} bytes and sha256 "
            f"{found.sha256}, wanted {archive.copy.size} and {archive.copy.sha256}. Fetch it "
            "again, or take it as it is with --any-copy (any_copy=True): numbers will differ"
        )


def _decode(
    path: Path, archive: Archive, side: int, *, skip_damaged: bool
) -> dict[str, np.ndarray]:
    """images (N, side, side, 3) uint8, labels, is_test, and the names of those skipped."""
    found = dict(labelled_zips.contents(path, archive.pattern, skip_damaged=skip_damaged))
    rows = archive.rows_of(path, found)
    where = f" in {path}"
    decoded = pictures.decode(
        ((row.file + where, found[row.file]) for row in rows), side, skip_damaged=skip_damaged
    )
    is_test = labelled_zips.without_twins(
        _is_test(path, rows, archive), [found[row.file] for row in rows]
    )
    names = archive.names or labelled_zips.class_names(rows)
    labels = np.array([names.index(row.label) for row in rows], np.int32)[decoded.rows]
    is_test = is_test[decoded.rows]
    _check_parts(path, names, labels, is_test, skipped=len(decoded.skipped))
    skipped = np.array([name.removesuffix(where) for name in decoded.skipped], str)
    return {"images": decoded.pixels, "labels": labels, "is_test": is_test, "skipped": skipped}


def _is_test(path: Path, rows: list[Row], archive: Archive) -> np.ndarray:
    """(N,) bool: which pictures are test data, by their names or by the archive's own split."""
    if not archive.test_every:
        return labelled_zips.own_split(path, rows)
    names = [PurePosixPath(row.file).stem for row in rows]
    return np.array([zlib.crc32(name.encode()) % archive.test_every == 0 for name in names], bool)


def _check_parts(
    path: Path, names: tuple[str, ...], labels: np.ndarray, is_test: np.ndarray, *, skipped: int
) -> None:
    """Raise DataDamagedError where a class is missing in one part."""
    for part, chosen in (("training", ~is_test), ("test", is_test)):
        if missing := sorted(set(range(len(names))) - set(labels[chosen].tolist())):
            left_out = f" ({skipped} could not be read)" if skipped else ""
            raise DataDamagedError(
                f"{path} has no {part} pictures of {', '.join(names[label] for label in missing)}"
                f"{left_out}; each class must be in both parts. Fetch it again"
            )
