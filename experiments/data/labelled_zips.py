"""Zips of pictures with a table, labels.csv: what each is a picture of, and which part it is in."""

import csv
import io
import itertools
import re
import struct
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from experiments.data import archives
from experiments.data.types import DataDamagedError
from experiments.names import numbers_as_numbers

TABLE = "labels.csv"
COLUMNS = ("file", "label", "split")
PICTURES = re.compile(r".*\.(?:jpe?g|png)", re.IGNORECASE)

# What reading one member raises; RuntimeError is for one that says it is encrypted.
_UNREADABLE = (OSError, EOFError, ValueError, RuntimeError, struct.error, zlib.error)


class Row(NamedTuple):
    """A picture's line in the table."""

    file: str
    label: str
    split: str  # "train", "test", or empty


def table(path: Path) -> list[Row]:
    """The rows of labels.csv, sorted by file.

    Raises:
      DataDamagedError: there is no such table, or a column, a label or a row is missing in it, or
        a file has two rows.
    """
    where = f"{TABLE} in {path}"
    content = next((read for _, read in archives.members(path, re.compile(re.escape(TABLE)))), None)
    if content is None:
        raise DataDamagedError(
            f"{path} has no {TABLE}, which tells what is on each picture; wanted a table with the "
            f"columns {', '.join(COLUMNS)}. Fetch the archive again"
        )
    try:
        reader = csv.DictReader(io.StringIO(content.decode("utf-8-sig"), newline=""), strict=True)
        lines, columns = list(reader), reader.fieldnames or ()
    except (ValueError, csv.Error) as error:
        raise DataDamagedError(f"{where} cannot be read ({error}); fetch it again") from error
    if missing := [column for column in COLUMNS if column not in columns]:
        raise DataDamagedError(
            f"{where} has no column {', '.join(missing)}; wanted {', '.join(COLUMNS)}"
        )
    rows = sorted(Row(*(line[column] or "" for column in COLUMNS)) for line in lines)
    _check(rows, where)
    return rows


def _check(rows: list[Row], where: str) -> None:
    """Raise DataDamagedError where rows, labels or file names are missing or there twice."""
    files = [row.file for row in rows]
    if not rows:
        raise DataDamagedError(f"{where} lists no pictures; fetch the archive again")
    if bare := [row.file for row in rows if not row.label]:
        raise DataDamagedError(f"{where} gives no label for {_some(bare)}")
    if twice := sorted({one for one, other in itertools.pairwise(files) if one == other}):
        raise DataDamagedError(f"{where} has more than one row for {_some(twice)}")


def rows_of(path: Path, files: Iterable[str]) -> list[Row]:
    """The rows of labels.csv, sorted by file, where they name the archive's `files` and no others.

    Raises:
      DataDamagedError: as `table`; or a file has no row, or a row no file.
    """
    rows = table(path)
    listed, there = {row.file for row in rows}, set(files)
    if missing := sorted(listed - there):
        raise DataDamagedError(
            f"{TABLE} in {path} names {_some(missing)}, not in the archive; fetch it again"
        )
    if unlisted := sorted(there - listed):
        raise DataDamagedError(f"{path} has {_some(unlisted)}, but no label for it in {TABLE}")
    return rows


def own_split(path: Path, rows: list[Row]) -> np.ndarray:
    """(N,) bool: which rows are test data. Raises DataDamagedError where one does not say."""
    for row in rows:
        if row.split not in ("train", "test"):
            raise DataDamagedError(
                f"{TABLE} in {path} gives {row.file} the split {row.split!r}; wanted train or test"
            )
    return np.array([row.split == "test" for row in rows], bool)


def without_twins(is_test: np.ndarray, contents: list[bytes]) -> np.ndarray:
    """`is_test`, but False for each file whose content is among the training data as well.

    >>> without_twins(np.array([True, False, True]), [b"a", b"a", b"b"])
    array([False, False,  True])
    """
    trained = {one for one, test in zip(contents, is_test, strict=True) if not test}
    return is_test & np.array([content not in trained for content in contents], bool)


def class_names(rows: Iterable[Row]) -> tuple[str, ...]:
    """The labels in the alphabet's order, but numbers in them as numbers.

    >>> class_names([Row("", label, "") for label in ("c10", "c2", "a", "c2")])
    ('a', 'c2', 'c10')
    """
    return tuple(sorted({row.label for row in rows}, key=numbers_as_numbers))


def contents(
    path: Path, pattern: re.Pattern[str], *, skip_damaged: bool = False
) -> Iterator[tuple[str, bytes]]:
    """(name, content) of each member of a zip or tar archive whose whole name matches.

    Args:
      path: the archive.
      pattern: of names.
      skip_damaged: give a zip's members that cannot be read as empty, and go on. In a compressed
        tar nothing can be read beyond damage.

    Raises:
      DataDamagedError: the archive is damaged, or a member, and `skip_damaged` is off.
    """
    if skip_damaged and path.suffix == ".zip":
        yield from _readable(path, pattern)
    else:
        # In a tar that is compressed, nothing can be read beyond damage.
        otherwise = (
            ", or leave the picture out with --skip-damaged" if path.suffix == ".zip" else ""
        )
        for match, content in archives.members(path, pattern, otherwise=otherwise):
            yield match.string, content


def _readable(path: Path, pattern: re.Pattern[str]) -> Iterator[tuple[str, bytes]]:
    """The matching members of a zip; those that cannot be read are empty."""
    try:
        with zipfile.ZipFile(path) as archive:
            for name in filter(pattern.fullmatch, archive.namelist()):
                yield name, _read(archive, name)
    except (*_UNREADABLE, zipfile.BadZipFile) as error:
        raise DataDamagedError(f"{path} is damaged ({error}); fetch it again") from error


def _read(archive: zipfile.ZipFile, name: str) -> bytes:
    """A member's content; empty where it cannot be read."""
    try:
        return archive.read(name)
    except (*_UNREADABLE, zipfile.BadZipFile):
        return b""


def _some(names: list[str]) -> str:
    """The first of these names, and how many more there are.

    >>> _some(["a.jpg", "b.jpg", "c.jpg"])
    'a.jpg and 2 more'
    """
    return names[0] + (f" and {len(names) - 1} more" if names[1:] else "")
