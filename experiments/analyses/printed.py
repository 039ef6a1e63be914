"""What the tables of runs have in common: cells over seeds, missing ones, and the command."""

import sys
from collections.abc import Callable, Collection, Iterable
from pathlib import Path

import numpy as np

from experiments import results
from experiments.measures import NOTHING as NOTHING
from experiments.methods import METHODS
from experiments.results import Result, mean_interval


def spread(values: np.ndarray, digits: int = 3) -> str:
    """The mean over seeds (S,) and its 95 % interval, which one seed alone does not have.

    >>> spread(np.array([0.3, 0.4, 0.5])), spread(np.array([0.3]))
    ('0.400 ± 0.248', '0.300')
    """
    mean, half_width = mean_interval(values)
    interval = "" if np.isnan(half_width) else f" ± {half_width:.{digits}f}"
    return f"{mean:.{digits}f}{interval}"


def percent(values: np.ndarray, digits: int = 2) -> str:
    """The mean over seeds (S,) and its 95 % interval, in percent.

    >>> percent(np.array([0.98, 0.99, 1.0]))
    '99.00 ± 2.48'
    """
    return spread(100 * np.asarray(values), digits)


def finished_runs(folder: Path) -> dict[str, Result]:
    """The results below `folder` that have a seed with every task learned, by method.

    Methods are in the order of `METHODS`, others after them.

    Raises:
      FileNotFoundError: there is no result.
      ValueError: none of them has such a seed.
    """
    runs = _finished(folder)
    if not runs:
        raise ValueError(f"no seed below {folder} has learned all tasks")
    return runs


def sequences(folder: Path, names: Collection[str]) -> dict[str, dict[str, Result]]:
    """`finished_runs` of each folder of `names`, or NAME_published, that has any.

    Raises:
      ValueError: none has.
    """
    runs = {}
    for name in names:
        for below in (folder / name, folder / f"{name}_published"):
            if any(below.rglob(results.FILE_NAME)) and (found := _finished(below)):
                runs[name] = found
    if not runs:
        raise ValueError(f"{folder} has finished runs in none of the folders {', '.join(names)}")
    return runs


def _finished(folder: Path) -> dict[str, Result]:
    """Those that have a finished seed, by method."""
    found = results.read_all(folder, tuple(METHODS))
    return {result.method: result for result in found if results.finished(result)}


def rows_for(found: Iterable[str], paper: Iterable[str]) -> list[str]:
    """The methods that have a row: the paper's, in its order, then others that were run."""
    return list(dict.fromkeys([*paper, *found]))


def missing(found: Collection[str], names: Collection[str]) -> str:
    """A line that says which of `names` were not run; empty if all were.

    >>> missing(["facts_2"], ["facts_2", "facts_4"])
    'Not run: facts_4.'
    """
    absent = [name for name in names if name not in found]
    return f"Not run: {', '.join(absent)}." if absent else ""


def print_table(table_fn: Callable[[Path], str], folder: Path) -> None:
    """Print the table of the runs in `folder`, or say what is missing and exit with status 1."""
    try:
        print(table_fn(folder))
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}. Wanted what `python -m experiments compare` left in --out")
