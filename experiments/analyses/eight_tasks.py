"""The sequence of eight tasks: what is left of each at the end, and what it took.

    python -m experiments.analyses.eight_tasks experiments/recorded/eight_objects

A cell is the accuracy on the task at the end (its drop since it was learned), in percent; then the
average, the average forgetting without the last task, what the method keeps in MiB beside the
network, and minutes for a seed. In the paper, on the full sets: MAS forgets 0.49 % on average, and
its average accuracy is 2 % above SI's.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tyro

from experiments import results
from experiments.analyses.printed import percent, print_table
from experiments.benchmarks.markdown import table
from experiments.methods import METHODS
from experiments.results import Result, SeedRecord
from mas_jax import metrics


def compared(folder: Path) -> str:
    """The table in Markdown, a row for each method."""
    found = results.read_all(folder, tuple(METHODS))
    heads = ["method", *found[0].tasks, "average", "forgetting", "kept, MiB", "minutes"]
    return table(heads, [[result.method, *cells(result)] for result in found])


def cells(result: Result) -> list[str]:
    """Means over seeds of what a row shows; average and forgetting with intervals."""
    records = results.finished(result)
    if not records:
        raise ValueError(f"no seed of {result.experiment}, {result.method}, has learned all tasks")
    matrices_SxTxT = np.array([record.accuracy for record in records])
    learned_T = np.diagonal(matrices_SxTxT, axis1=1, axis2=2).mean(axis=0)
    end_T = matrices_SxTxT[:, -1].mean(axis=0)
    tasks = [
        f"{100 * end:.1f} ({100 * (end - learned):+.1f})".replace("-", "−")
        for end, learned in zip(end_T, learned_T, strict=True)
    ]
    return [
        *tasks,
        percent(np.array([metrics.average_accuracy(matrix) for matrix in matrices_SxTxT])),
        percent(np.array([metrics.forgetting(matrix) for matrix in matrices_SxTxT])),
        f"{_kept(records) / 2**20:.1f}",
        f"{np.mean([_seconds(record) for record in records]) / 60:.1f}",
    ]


def _kept(records: Sequence[SeedRecord]) -> float:
    """The most bytes that a method keeps from one task to the next."""
    return max(row["kept"] for record in records for row in record.memory)


def _seconds(record: SeedRecord) -> float:
    """What a seed took, all phases of all tasks."""
    return sum(sum(phases.values()) for phases in record.seconds)


def main(folder: tyro.conf.Positional[Path]) -> None:
    """Print the table of the runs in `folder`."""
    print_table(compared, folder)


if __name__ == "__main__":
    tyro.cli(main)
