"""6DS: pictures of facts <subject, predicate, object>, from a table that the user makes."""

import csv
import functools
import hashlib
import io
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import tensorflow_datasets as tfds

from experiments.data import archives, folders
from experiments.data.published import builder, contents
from experiments.data.types import DataDamagedError, DataNotFoundError, PictureSplits

TABLE, PICTURES = "facts.csv", "images"
COLUMNS = ("file", "subject", "predicate", "object", "split")


class Facts(NamedTuple):
    """Pictures, and what they are of.

    Attributes:
      pictures: both parts; labels are places in `facts`.
      facts: (subject, predicate, object), sorted; "" where there is no object, or no predicate.
    """

    pictures: PictureSplits
    facts: tuple[tuple[str, str, str], ...]


class _Row(NamedTuple):
    """A line of the table."""

    file: str
    fact: tuple[str, str, str]
    split: str


class SixDs(builder.PublishedBuilder, skip_registration=True):
    """What facts.csv lists, in its two parts.

    Source: Elhoseiny et al., Sherlock: Scalable fact learning in images, AAAI 2017, arXiv
    1511.04891. In the paper on MAS: 28,624 pictures of 186 facts, half of them test data.
    """

    name = "sixds_facts"
    VERSION = tfds.core.Version("1.0.0")
    title = "6DS"
    folder = "sixds"
    files = ()

    def splits(self, paths: dict[str, Path]) -> dict[str, builder.Part]:  # noqa: ARG002
        """Numbers of facts by file."""
        rows = _rows(self.source)
        facts = _facts(rows)
        tables = {
            split: {row.file: facts.index(row.fact) for row in rows if row.split == split}
            for split in ("train", "test")
        }
        return {
            split: builder.Part(table, self._pictures(table)) for split, table in tables.items()
        }

    def class_name(self, label: int) -> str:
        """The fact itself."""
        return f"<{', '.join(filter(None, _facts(_rows(self.source))[label]))}>"

    def remedy(self) -> str:
        """There is nothing to fetch."""
        return (
            f"Give it a training picture in {self.source / TABLE}, or take its test pictures out "
            "of that table"
        )

    def _pictures(self, names: Iterable[str]) -> Iterator[tuple[str, bytes]]:
        """Those of `names` that are there."""
        for name in names:
            if (path := self.source / PICTURES / name).is_file():
                yield name, path.read_bytes()


def load_facts(
    data_dir: str | os.PathLike[str] | None = None,
    *,
    side: int = 72,
    skip_damaged: bool = False,
    builder_class: type[SixDs] = SixDs,
) -> Facts:
    """Load 6DS's pictures with the facts that they are of.

    There is no archive to download: the pictures are from six sets, each with its own terms,
    and no digest of the annotations is on record. The folder sixds must have

      facts.csv   a table in UTF-8 with the columns file, subject, predicate, object and split,
                  one line per picture; object, or both predicate and object, may be empty;
                  split is train or test
      images/     the files that the table names, already cropped to their facts

    Args:
      data_dir: the folder that sixds is in; else what MAS_JAX_DATA_DIR names, else mas_jax/data
        in the cache folder; may be read-only.
      side: as `published.load`.
      skip_damaged: as `published.load`.
      builder_class: the data set's builder; another one, in a test.

    Returns:
      Pictures and facts, as in `Facts`.

    Raises:
      DataNotFoundError: table or pictures are not there; the text says what goes where.
      DataDamagedError: the table is not as above, lists a file twice or one that is not there, a
        fact has test pictures only, or a picture cannot be read.
    """
    facts = _facts(_rows(folders.data_folder(data_dir) / builder_class.folder))
    # A user makes table and pictures, and may make others.
    edition = f"sixds-{facts_digest(data_dir, builder_class=builder_class)[:16]}"
    splits = builder.load(
        builder_class, data_dir, side=side, skip_damaged=skip_damaged, edition=edition
    )
    return Facts(splits, facts)


def facts_digest(
    data_dir: str | os.PathLike[str] | None = None, *, builder_class: type[SixDs] = SixDs
) -> str:
    """The sha256 of 6DS's table and of the names and contents of all pictures that it lists.

    Of contents, though reading 28,624 pictures takes seconds, and not of sizes and times: a copy of
    the folder on another machine is the same data, with other times; a picture that was repaired
    may have the same ones. In a process each is read once for this, until it changes.

    Args:
      data_dir: as `load_facts`.
      builder_class: as `load_facts`.

    Raises:
      DataNotFoundError, DataDamagedError: as `load_facts`, for the table and pictures that are not
        there.
    """
    source = folders.data_folder(data_dir) / builder_class.folder
    rows, pictures = _rows(source), source / PICTURES
    if missing := sorted(row.file for row in rows if not (pictures / row.file).is_file()):
        raise DataDamagedError(
            f"6DS: {missing[0]} is listed in {source / TABLE}, but not in {pictures} "
            f"({len(missing)} such); put it there, or take its line out of the table"
        )
    whole = hashlib.sha256(_content(source))
    for row in rows:
        seen = (pictures / row.file).stat()
        digest = _digest(pictures / row.file, seen.st_size, seen.st_mtime_ns)
        whole.update(f"{row.file}\0{digest}\n".encode())
    return whole.hexdigest()


@functools.cache
def _digest(path: Path, _size: int, _changed: int) -> str:
    return archives.digest(path)


def _content(source: Path) -> bytes:
    """The table's bytes. Raises DataNotFoundError where table or pictures are not there."""
    path = source / TABLE
    if not path.is_file() or not (source / PICTURES).is_dir():
        raise DataNotFoundError(
            f"6DS is not in {source}: wanted there\n  {TABLE}: a table with the columns "
            f"{', '.join(COLUMNS)}, one line per picture, made\n    from the annotations of "
            "Elhoseiny et al., Sherlock, AAAI 2017, which their authors have (object,\n    or "
            "predicate and object, may be empty; split is train or test)\n"
            f"  {PICTURES}/: the files that the table names, from the six sets that it draws on\n"
            "There is no archive to download that has both. It may be another folder, if "
            f"--data-dir or the environment variable {folders.DATA_DIR_VARIABLE} names the one "
            f"that {source.name} is in."
        )
    return path.read_bytes()


def _rows(source: Path) -> list[_Row]:
    """The table's lines. Raises DataDamagedError where one is not as it must be."""
    path = source / TABLE
    text = contents.decoded(_content(source), path)
    try:
        reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
        lines, columns = list(reader), reader.fieldnames or ()
    except csv.Error as error:
        raise DataDamagedError(f"{path} cannot be read ({error})") from error
    if missing := [column for column in COLUMNS if column not in columns]:
        raise DataDamagedError(f"{path} has no column {missing[0]}; wanted {', '.join(COLUMNS)}")
    seen: set[str] = set()
    rows = []
    for number, line in enumerate(lines, start=2):
        file, subject, predicate, object_, split = ((line[c] or "").strip() for c in COLUMNS)
        row = _Row(file, (subject, predicate, object_), split)
        if complaint := _complaint(row, seen):
            raise DataDamagedError(f"{path}, line {number}: {complaint}")
        seen.add(file)
        rows.append(row)
    return rows


def _complaint(row: _Row, seen: set[str]) -> str:
    """What is wrong with a line, or nothing; `seen` are the files before it."""
    subject, predicate, object_ = row.fact
    if not row.file or not subject:
        return "file or subject is empty"
    if row.file in seen:
        return f"{row.file} is there twice; a picture has one fact, so give a copy another name"
    if object_ and not predicate:
        return f"{row.file} has the object {object_!r}, but no predicate"
    if row.split not in ("train", "test"):
        return f"{row.file} has the split {row.split!r}; wanted train or test"
    return ""


def _facts(rows: list[_Row]) -> tuple[tuple[str, str, str], ...]:
    """All facts, sorted."""
    return tuple(sorted({row.fact for row in rows}))
