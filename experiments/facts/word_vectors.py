"""Words' vectors, and the rule by which a word finds its own."""

import os
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from experiments.data import folders
from experiments.data.types import DataDamagedError, DataNotFoundError
from experiments.facts import vector_files
from experiments.names import first_few

FOLDER = "word_vectors"
PATTERNS = ("glove*.txt", "*.vec", "*.bin")
FETCH = (
    "https://nlp.stanford.edu/data/glove.6B.zip (unzip it and keep one of its files, such as\n"
    "    glove.6B.50d.txt), or word2vec's GoogleNews-vectors-negative300.bin.gz, linked from\n"
    "    https://code.google.com/archive/p/word2vec/ (gunzip it)"
)


class WordVectors(NamedTuple):
    """Vectors, and which row is which word's.

    Attributes:
      rows: the row of each word.
      matrix: (V, D) float32, as in the files.
      files: those that were read, which may have more words; for texts.
    """

    rows: dict[str, int]
    matrix: np.ndarray
    files: tuple[Path, ...] = ()


class MissingWordError(DataNotFoundError):
    """A word has no vector under the rule of `lookup`."""


def find(data_dir: str | os.PathLike[str] | None = None, name: str = FOLDER) -> tuple[Path, ...]:
    """Find the files of word vectors: glove*.txt, *.vec and *.bin in one folder, sorted.

    Args:
      data_dir: the folder that `name` is in; else what MAS_JAX_DATA_DIR names, else mas_jax/data
        in the cache folder.
      name: the subfolder.

    Returns:
      At least one path.

    Raises:
      DataNotFoundError: there is none; the text says what to fetch, and where to.
    """
    folder = folders.data_folder(data_dir) / name
    found = sorted(path for pattern in PATTERNS for path in folder.glob(pattern))
    if not found:
        raise DataNotFoundError(
            f"there are no word vectors in {folder} (looked for {', '.join(PATTERNS)}).\nFetch\n"
            f"  {FETCH}\ninto the folder\n  {folder}\nand run the same command again. {name} may "
            "be in another folder, if --data-dir or the environment variable "
            f"{folders.DATA_DIR_VARIABLE} names that one."
        )
    return tuple(found)


def read(
    paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    words: Collection[str] | None = None,
) -> WordVectors:
    """Read word vectors from one file, or from several as if they were one.

    A file named *.bin is word2vec's binary format: a line "count size", then for each word its
    bytes, a space and `size` little-endian float32 values. Any other is text, a line a word: the
    word and its values, separated by spaces; word2vec's has the line "count size" before them,
    GloVe's has not.

    Args:
      paths: a file, or files whose vectors have one length and agree on the words they share.
      words: what is going to be asked of `lookup`; only this is kept, so that the 3.6 GB of
        GoogleNews need no memory, and only its values are checked. None keeps everything.

    Returns:
      The vectors, in the files' order.

    Raises:
      DataDamagedError: a file is empty, cut off or of another format, has a line with the wrong
        number of values or a value that is no finite number, vectors are longer in one file than
        in another, or a word has two different vectors; names the file and the line or the word.
    """
    files = [Path(path) for path in ([paths] if isinstance(paths, str | os.PathLike) else paths)]
    wanted = None if words is None else {form for word in words for form in _forms(word)}
    size = _common_size(files)
    found: dict[str, np.ndarray] = {}
    for path in files:
        for where, word, vector in vector_files.entries(path, wanted):
            known = found.setdefault(word, vector)
            if known is not vector and not np.array_equal(known, vector):
                raise DataDamagedError(
                    f"{where}: {word!r} has another vector than before; keep files of one "
                    f"publication only in {path.parent}"
                )
    matrix = np.stack([*found.values()]) if found else np.zeros((0, size), np.float32)
    return WordVectors({word: row for row, word in enumerate(found)}, matrix, tuple(files))


def lookup(vectors: WordVectors, word: str) -> np.ndarray:
    """Find the vector of a word or a phrase.

    The rule: (1) the word as it is written; (2) the word in lower case; (3) for a phrase, words
    joined by "_", "-" or spaces, the mean of its words' vectors, each found by 1 or 2.
    There is no fourth: no vector of zeros, and no nearest spelling.

    Args:
      vectors: as `read` returns them.
      word: not "".

    Returns:
      (D,) float32.

    Raises:
      MissingWordError: the word, or a word of the phrase, has no vector.

    >>> vectors = WordVectors({"play": 0, "guitar": 1}, np.array([[0, 2], [4, 2]], np.float32))
    >>> lookup(vectors, "Guitar"), lookup(vectors, "play_guitar")
    (array([4., 2.], dtype=float32), array([2., 2.], dtype=float32))
    """
    check(vectors, {word: repr(word)})
    found = (_row(vectors, part) for part in _asked(vectors, word))
    return vectors.matrix[[row for row in found if row is not None]].mean(axis=0)


def check(vectors: WordVectors, words: Mapping[str, str]) -> None:
    """Raise MissingWordError, which names all of `words` without a vector, unless each has one.

    Args:
      vectors: as `read` returns them.
      words: what is going to be asked of `lookup`, with what each is a word of, for the text.
    """
    missing = [
        repr(part) + (f" (of {whole})" if whole != repr(part) else "")
        for word, whole in words.items()
        for part in _asked(vectors, word) or [word]
        if _row(vectors, part) is None
    ]
    if missing:
        raise MissingWordError(
            f"no word vector for {first_few(missing)} {_among(vectors)}, as written or in lower "
            "case; choose other words, or read vectors that have these:\n"
            f"  {FETCH}"
        )


def _among(vectors: WordVectors) -> str:
    """Where a word was looked for; `rows` may be only those of the words that were wanted."""
    if not vectors.files:
        return f"among {len(vectors.rows)} words"
    sizes = (f"the {vector_files.num_words(path):,} of {path}" for path in vectors.files)
    return f"among {' and '.join(sizes)}"


def _asked(vectors: WordVectors, word: str) -> list[str]:
    """What to look for: the word, or those that it is joined from."""
    return [word] if _row(vectors, word) is not None else _parts(word)


def _row(vectors: WordVectors, word: str) -> int | None:
    """The word's row, by its own spelling or in lower case."""
    return vectors.rows.get(word, vectors.rows.get(word.lower()))


def _parts(word: str) -> list[str]:
    """The words of a phrase."""
    return [part for part in re.split(r"[_\s-]+", word) if part]


def _forms(word: str) -> set[str]:
    """Everything that `lookup` may look for when it is asked for `word`."""
    return {form for part in [word, *_parts(word)] for form in (part, part.lower())}


def _common_size(paths: Sequence[Path]) -> int:
    """The length of all files' vectors."""
    if not paths:
        raise ValueError("there are no files of word vectors to read, wanted at least one")
    sizes = {path: vector_files.layout(path).size for path in paths}
    (first, size), *others = sizes.items()
    for path, other in others:
        if other != size:
            raise DataDamagedError(
                f"vectors have {size} values in {first} and {other} in {path}; leave files of one "
                "length only"
            )
    return size
