"""What is in the publishers' files: pictures, lists of them, and MATLAB's arrays."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import scipy.io

from experiments.data import archives
from experiments.data.types import DataDamagedError


def pictures(path: Path, pattern: str) -> Iterator[tuple[str, bytes]]:
    """(name, content) of an archive's members; `pattern`'s first group is what they are called."""
    for match, content in archives.members(path, re.compile(rf"(?:\./)?{pattern}")):
        yield match[1], content


def texts(path: Path, pattern: str) -> dict[str, str]:
    """An archive's text files, by the name that `pattern`'s first group gives them."""
    return {name: decoded(content, path, name) for name, content in pictures(path, pattern)}


def decoded(content: bytes, path: Path, name: str = "") -> str:
    """A text file's content; `path` and `name` say which one."""
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        where = f"{name} in {path}" if name else f"{path}"
        raise DataDamagedError(f"{where} is not a text ({error}); fetch it again") from error


def rows(lists: dict[str, str], name: str, path: Path, columns: int) -> list[list[str]]:
    """The lines of a list in an archive, each in `columns` pieces; the last may have spaces.

    Raises:
      DataDamagedError: there is no such list, or a line of it is shorter.

    >>> rows({"a.txt": "1 F-16 A\\n2 Il-76\\n"}, "a.txt", Path("x.tgz"), 2)
    [['1', 'F-16 A'], ['2', 'Il-76']]
    """
    if name not in lists:
        raise DataDamagedError(f"{path} has no {name}; fetch it again")
    found = [line.split(maxsplit=columns - 1) for line in lists[name].splitlines() if line.strip()]
    if short := [row for row in found if len(row) != columns]:
        raise DataDamagedError(
            f"{name} in {path} has a line {' '.join(short[0])!r}; wanted {columns} columns. Fetch "
            "it again"
        )
    return [[piece.strip() for piece in row] for row in found]


def mat(file: Path | IO[bytes], *names: str, where: str = "") -> list[Any]:
    """Variables of a MATLAB file; `where` names one that is in an archive.

    Raises:
      DataDamagedError: it cannot be read, or has no such variable.
    """
    where = where or str(file)
    try:
        variables = scipy.io.loadmat(file, variable_names=names)
    # What SciPy raises for a broken file depends on where it is broken.
    except Exception as error:
        raise DataDamagedError(f"{where} cannot be read ({error}); fetch it again") from error
    if missing := [name for name in names if name not in variables]:
        raise DataDamagedError(f"{where} has no variable {missing[0]!r}; fetch it again")
    return [variables[name] for name in names]
