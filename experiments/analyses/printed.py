"""What the tables of runs have in common: a cell over seeds, and a command that prints them."""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

from experiments.results import mean_interval


def percent(values: np.ndarray, digits: int = 2) -> str:
    """The mean over seeds (S,) and its 95 % interval, in percent.

    >>> percent(np.array([0.98, 0.99, 1.0]))
    '99.00 ± 2.48'
    """
    mean, half_width = mean_interval(values)
    return f"{100 * mean:.{digits}f} ± {100 * half_width:.{digits}f}"


def print_table(table_fn: Callable[[Path], str], folder: Path) -> None:
    """Print the table of the runs in `folder`, or say what is missing and exit with status 1."""
    try:
        print(table_fn(folder))
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}. Wanted what `python -m experiments compare` left in --out")
