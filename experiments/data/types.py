"""What a data set is here: arrays in host memory, split into parts, cut into tasks."""

from typing import NamedTuple

import numpy as np


class Examples(NamedTuple):
    """Inputs and what they are, row by row.

    Attributes:
      inputs: (N, D) float32, or pictures, (N, H, W, 3) uint8.
      labels: (N,) int32, class numbers: the data set's own, or unique in a sequence of several.
    """

    inputs: np.ndarray
    labels: np.ndarray


class Splits(NamedTuple):
    """A data set in its two parts."""

    train: Examples
    test: Examples


class PictureSplits(NamedTuple):
    """A data set of pictures in its two parts.

    Attributes:
      train: what networks learn from.
      test: what they are tested on.
      skipped: files left out because they could not be read; only where that was asked for.
    """

    train: Examples
    test: Examples
    skipped: tuple[str, ...] = ()


class Task(NamedTuple):
    """Some classes of a data set, to be told apart.

    Attributes:
      name: what people call it: "1/2", "MNIST".
      classes: class numbers that are one task's alone, or the same in every task (permuted).
      train: what the network learns from.
      validation: cut from the data set's training part; may be empty.
      test: from the data set's test part.
      skipped: how many files were left out because they could not be read.
      skipped_names: theirs, where they are known.
    """

    name: str
    classes: tuple[int, ...]
    train: Examples
    validation: Examples
    test: Examples
    skipped: int = 0
    skipped_names: tuple[str, ...] = ()


class DataNotFoundError(RuntimeError):
    """The data set is neither on this machine nor to be had; the text says what to fetch."""


class DataDamagedError(DataNotFoundError):
    """A file is there, under the right name, but it is not the one that was published."""
