"""The files that word vectors are published in: GloVe's text, word2vec's text and binary."""

import mmap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from experiments.data.types import DataDamagedError

# A first line longer than this is none.
_LONGEST_LINE = 1 << 16

# (where it stands, word, vector)
Entry = tuple[str, str, np.ndarray]


class Layout(NamedTuple):
    """What a file's first line says: how many words (None in GloVe), of how many values."""

    num_words: int | None
    size: int


def entries(path: Path, wanted: set[str] | None) -> Iterator[Entry]:
    """The entries of a file whose words are wanted; None wants them all.

    Raises:
      DataDamagedError: as `word_vectors.read`.
    """
    return (_binary_entries if path.suffix == ".bin" else _text_entries)(path, wanted)


def layout(path: Path) -> Layout:
    """How many words a file has, if it says so, and of how many values."""
    try:
        with path.open("rb") as file:
            line = file.readline(_LONGEST_LINE)
    except OSError as error:
        raise DataDamagedError(f"{path} cannot be read: {error}") from error
    fields = line.split()
    if len(fields) == 2 and all(field.isdigit() and int(field) for field in fields):
        return Layout(int(fields[0]), int(fields[1]))
    if path.suffix != ".bin" and len(fields) > 1 and all(map(_is_number, fields[1:])):
        return Layout(None, len(fields) - 1)
    wanted = '"count size"' if path.suffix == ".bin" else "a word and its values"
    raise DataDamagedError(
        f"{path} is not a file of word vectors: its first line is {line[:40]!r}, wanted {wanted}; "
        "fetch it again"
    )


def num_words(path: Path) -> int:
    """How many words a file has; counts the lines of one that does not say so."""
    announced = layout(path).num_words
    if announced is not None:
        return announced
    with path.open("rb") as file:
        return sum(1 for _ in file)


def _is_number(field: bytes) -> bool:
    """Whether a field is a number, finite or not."""
    try:
        float(field)
    except ValueError:
        return False
    return True


def _text_entries(path: Path, wanted: set[str] | None) -> Iterator[Entry]:
    """The entries of a text file that are wanted."""
    count, size = layout(path)
    number = 0
    # Bytes, because words may hold what str takes for white space or the end of a line.
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if number == 1 and count is not None:
                continue
            where = f"{path}, line {number}"
            encoded, *values = line.split() or [b""]
            if len(values) != size:
                raise DataDamagedError(
                    f"{where}: {len(values)} values after the word, wanted {size}; fetch it again"
                )
            word = _decode(encoded)
            if wanted is None or word in wanted:
                yield where, word, _finite(_numbers(values, where), where, word)
    if count is not None and number - 1 != count:
        raise DataDamagedError(
            f"{path} has {number - 1} words where its first line says {count}; fetch it again"
        )


def _binary_entries(path: Path, wanted: set[str] | None) -> Iterator[Entry]:
    """The entries of a file in word2vec's binary format that are wanted."""
    count, size = layout(path)
    with (
        path.open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content,
    ):
        start = content.find(b"\n") + 1
        for number in range(1, (count or 0) + 1):
            where = f"{path}, word {number} of {count}"
            space = content.find(b" ", start)
            end = space + 1 + 4 * size
            if space < 0 or end > len(content):
                raise DataDamagedError(f"{where} is cut off; fetch the file again")
            # word2vec's own program ends every vector with a line feed; GoogleNews has none.
            word = _decode(content[start:space].lstrip(b"\n"))
            if wanted is None or word in wanted:
                vector = np.frombuffer(content[space + 1 : end], "<f4").astype(np.float32)
                yield where, word, _finite(vector, where, word)
            start = end
        if content[start:].strip():
            raise DataDamagedError(
                f"{path} goes on after the {count} words of {size} values that its first line "
                "announces; fetch it again"
            )


def _decode(encoded: bytes) -> str:
    """The word; bytes that are no UTF-8, as where word2vec cut a word off, are kept apart."""
    return encoded.decode(errors="surrogateescape")


def _numbers(values: Sequence[bytes], where: str) -> np.ndarray:
    """Values as float32."""
    try:
        with np.errstate(over="ignore"):
            return np.array([float(value) for value in values]).astype(np.float32)
    except ValueError as error:
        raise DataDamagedError(f"{where}: {error}; fetch the file again") from error


def _finite(vector: np.ndarray, where: str, word: str) -> np.ndarray:
    """`vector`, if all of it is finite."""
    if not np.isfinite(vector).all():
        value = vector[~np.isfinite(vector)][0]
        raise DataDamagedError(
            f"{where}: the vector of {word!r} has {value} in it; fetch the file again"
        )
    return vector
