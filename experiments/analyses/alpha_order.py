"""What balancing the tasks' importances changes, from the runs of alpha_order_1 to alpha_order_5.

    python -m experiments.analyses.alpha_order experiments/recorded

reads FOLDER/alpha_order_1/mas/result.json and its like, and prints for each place of the task 0/1
the forgetting of all tasks and of that one under both rules, and their difference seed by seed.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import tyro

from experiments import results
from experiments.alpha_order import CONFIGS, FIRST
from experiments.analyses.printed import percent, print_table
from experiments.benchmarks.markdown import table
from mas_jax import metrics

TASK = "/".join(map(str, FIRST))
HEADS = (
    f"place of {TASK}",
    "accuracy, summed",
    "accuracy, balanced",
    "forgetting, summed",
    "forgetting, balanced",
    "difference",
    f"forgetting of {TASK}, summed",
    f"forgetting of {TASK}, balanced",
    "difference",
)


class Numbers(NamedTuple):
    """One rule, one entry per seed (S,), as fractions."""

    accuracy: np.ndarray
    forgetting: np.ndarray  # mean over tasks but the last
    of_first: np.ndarray  # of the task 0/1: its accuracy when learned minus that at the end


class Place(NamedTuple):
    """Both rules, with the task 0/1 in one place."""

    summed: Numbers
    balanced: Numbers


def compared(folder: Path) -> str:
    """The comparison as a Markdown table, in percent and points."""
    places = [
        Place(*(_numbers(folder / name, rule) for rule in ("mas", "alpha"))) for name in CONFIGS
    ]
    rows = [(str(number), *_cells(place)) for number, place in enumerate(places, start=1)]
    return table(HEADS, [*rows, ("all", *_cells(_together(places)))])


def _numbers(folder: Path, rule: str) -> Numbers:
    """The result of one rule in one place; ValueError where seeds are missing."""
    result = results.read(folder / rule / results.FILE_NAME)
    matrices_SxTxT = np.array([record.accuracy for record in results.finished(result)])
    first = result.tasks.index(TASK)
    return Numbers(
        np.array([metrics.average_accuracy(matrix) for matrix in matrices_SxTxT]),
        np.array([metrics.forgetting(matrix) for matrix in matrices_SxTxT]),
        matrices_SxTxT[:, first, first] - matrices_SxTxT[:, -1, first],
    )


def _together(places: list[Place]) -> Place:
    """All places, the mean over them for each seed."""

    def mean(rule: str) -> Numbers:
        numbers = [getattr(place, rule) for place in places]
        return Numbers(*(np.mean(values, axis=0) for values in zip(*numbers, strict=True)))

    return Place(mean("summed"), mean("balanced"))


def _cells(place: Place) -> list[str]:
    """Mean and 95 % interval of each number, and of the difference seed by seed."""
    summed, balanced = place
    return [
        percent(summed.accuracy, 2),
        percent(balanced.accuracy, 2),
        percent(summed.forgetting, 3),
        percent(balanced.forgetting, 3),
        percent(balanced.forgetting - summed.forgetting, 3),
        percent(summed.of_first, 3),
        percent(balanced.of_first, 3),
        percent(balanced.of_first - summed.of_first, 3),
    ]


def main(folder: tyro.conf.Positional[Path]) -> None:
    """Print the comparison of the runs below `folder`."""
    print_table(compared, folder)


if __name__ == "__main__":
    tyro.cli(main)
