"""A data set's archive: where it is looked for, what to fetch, and the files in it."""

import hashlib
import os
import re
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

from experiments.data import folders
from experiments.data.types import DataDamagedError, DataNotFoundError

# RuntimeError is what zipfile raises for an encrypted file or a compression it does not know.
_UNREADABLE = (
    OSError, EOFError, ValueError, RuntimeError, struct.error, zlib.error,
    zipfile.BadZipFile, tarfile.TarError,
)  # fmt: skip

_Walk = Iterator[tuple[re.Match[str], Callable[[], bytes]]]


class Source(NamedTuple):
    """How a data set comes to this machine.

    Attributes:
      title: the data set's name for people.
      folder: the subfolder of the data folder that its archive is in.
      patterns: what the archive may be called.
      fetch: what to fetch, from where.
    """

    title: str
    folder: str
    patterns: tuple[str, ...]
    fetch: str


def find(source: Source, data_dir: str | os.PathLike[str] | None) -> Path:
    """The archive. Raises DataNotFoundError where there is none, or more than one."""
    folder = folders.data_folder(data_dir) / source.folder
    found = sorted(path for pattern in source.patterns for path in folder.glob(pattern))
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        raise DataNotFoundError(
            f"{folder} holds {len(found)} archives that may be {source.title} ({names}); leave one"
        )
    if not found:
        raise DataNotFoundError(
            f"{source.title} is not in {folder} (looked for {' and '.join(source.patterns)}).\n"
            f"Fetch\n  {source.fetch}\ninto the folder\n  {folder}\nwithout unpacking, and run the "
            f"same command again. {source.folder} may be in another folder, if --data-dir or the "
            f"environment variable {folders.DATA_DIR_VARIABLE} names that one."
        )
    return found[0]


def digest(path: Path) -> str:
    """The file's sha256."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataDamagedError(f"{path} cannot be read: {error}") from error


def members(
    path: Path, pattern: re.Pattern[str], *, otherwise: str = ""
) -> Iterator[tuple[re.Match[str], bytes]]:
    """(match, content) of each file in a zip or tar archive whose whole name matches.

    Args:
      path: the archive.
      pattern: of names.
      otherwise: what can be done about a file in it that cannot be read but to fetch the archive
        again, for the error's text.

    Raises:
      DataDamagedError: the archive, or a file in it, is damaged.
    """
    walk = _walk_zip if path.suffix == ".zip" else _walk_tar
    try:
        for match, read in walk(path, pattern):
            try:
                content = read()
            except _UNREADABLE as error:
                raise DataDamagedError(
                    f"{member(path, match)} cannot be read ({error}); fetch the archive again"
                    + otherwise
                ) from error
            yield match, content
    except DataDamagedError:
        # A RuntimeError, and so among those below: it says already what is wrong.
        raise
    except _UNREADABLE as error:
        raise DataDamagedError(f"{path} is damaged ({error}); fetch it again") from error


def member(path: Path, match: re.Match[str]) -> str:
    """How errors name a file in an archive."""
    return f"{match.string} in {path}"


def _walk_zip(path: Path, pattern: re.Pattern[str]) -> _Walk:
    """Each matching member of a zip, with what reads it."""
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            if match := pattern.fullmatch(name):
                yield match, partial(archive.read, name)


def _walk_tar(path: Path, pattern: re.Pattern[str]) -> _Walk:
    """Each matching regular file of a tar, compressed or not, with what reads it."""
    with tarfile.open(path) as archive:
        for info in archive:
            match = pattern.fullmatch(info.name) if info.isfile() else None
            if match and (file := archive.extractfile(info)):
                yield match, file.read
