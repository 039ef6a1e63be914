"""The sequence of eight tasks: what is left of each at the end, and what it took.

    python -m experiments.analyses.eight_tasks experiments/recorded/eight_objects

`compared` says what stands in its two tables.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import tyro

from experiments import results
from experiments.analyses.printed import NOTHING, finished_runs, percent, print_table, rows_for
from experiments.benchmarks.markdown import table
from experiments.results import Result, SeedRecord
from mas_jax import metrics

ABOVE_SI = {"mas": "2"}
FORGETTING = {"mas": "0.49"}
"""Section 5.1 of Aljundi et al. (ECCV 2018), in percent."""

ROWS = ("finetune", "si", "mas")
"""The methods that the paper's numbers are about, and the one that forgets most."""


def compared(folder: Path) -> str:
    """What each method has kept of eight photograph data sets at the end, and what it took.

    The first table has the accuracy on each task at the end (its change since it was learned), in
    percent. The second has the average; how much it is above SI's, seed by seed; the average
    forgetting without the last task; what the method keeps beside the network from the first task
    to the second and after the last, and the most it holds beside that while a task is learned, in
    MiB; and minutes for a seed. Beside them is what the paper says, on the full sets: MAS forgets
    0.49 % on average, and its average accuracy is 2 % above SI's.
    """
    runs = finished_runs(folder)
    tasks = next(iter(runs.values())).tasks
    heads = (
        "average",
        "above SI",
        "paper: above SI",
        "forgetting",
        "paper: forgetting",
        "kept after 1, MiB",
        f"kept after {len(tasks)}, MiB",
        "held in training, MiB",
        "minutes",
    )
    methods = rows_for(runs, ROWS)
    per_task = [
        [method, *(task_cells(runs[method]) if method in runs else [NOTHING] * len(tasks))]
        for method in methods
    ]
    overall = [[method, *cells(runs, method)] for method in methods]
    return f"{table(['method', *tasks], per_task)}\n\n{table(['method', *heads], overall)}"


def task_cells(result: Result) -> list[str]:
    """Means over seeds of each task's accuracy at the end, and its drop."""
    matrices_SxTxT = np.array([record.accuracy for record in results.finished(result)])
    learned_T = np.diagonal(matrices_SxTxT, axis1=1, axis2=2).mean(axis=0)
    end_T = matrices_SxTxT[:, -1].mean(axis=0)
    return [
        f"{100 * end:.1f} ({100 * (end - learned):+.1f})".replace("-", "−")
        for end, learned in zip(end_T, learned_T, strict=True)
    ]


def cells(runs: Mapping[str, Result], method: str) -> list[str]:
    """Means over seeds of what a row of the second table shows, with intervals of accuracies."""
    paper = ABOVE_SI.get(method, NOTHING), FORGETTING.get(method, NOTHING)
    if method not in runs:
        return [NOTHING, NOTHING, paper[0], NOTHING, paper[1], *[NOTHING] * 4]
    records = results.finished(runs[method])
    forgetting = np.array([metrics.forgetting(np.array(record.accuracy)) for record in records])
    return [
        percent(np.array(list(_averages(runs[method]).values()))),
        _above_si(runs, method),
        paper[0],
        percent(forgetting),
        paper[1],
        *_memory(records),
        f"{np.mean([_seconds(record) for record in records]) / 60:.1f}",
    ]


def _averages(result: Result) -> dict[int, float]:
    """The average accuracy at the end, by seed."""
    return {
        record.seed: float(metrics.average_accuracy(np.array(record.accuracy)))
        for record in results.finished(result)
    }


def _above_si(runs: Mapping[str, Result], method: str) -> str:
    """How much the average is above SI's, over the seeds that both have."""
    if method == "si" or "si" not in runs:
        return NOTHING
    ours, theirs = _averages(runs[method]), _averages(runs["si"])
    both = ours.keys() & theirs.keys()
    return percent(np.array([ours[seed] - theirs[seed] for seed in both])) if both else NOTHING


def _memory(records: list[SeedRecord]) -> list[str]:
    """Kept after the first task and after the last, and the most held while learning, in MiB."""
    rows = [record.memory for record in records if record.memory]
    if not rows:
        return [NOTHING] * 3
    amounts = (
        [row[0]["kept"] for row in rows],
        [row[-1]["kept"] for row in rows],
        [max(task["training"] for task in row) for row in rows],
    )
    return [f"{np.mean(amount) / 2**20:.1f}" for amount in amounts]


def _seconds(record: SeedRecord) -> float:
    """What a seed took, all phases of all tasks."""
    return sum(sum(phases.values()) for phases in record.seconds)


def main(folder: tyro.conf.Positional[Path]) -> None:
    """Print the tables of the runs in `folder`."""
    print_table(compared, folder)


if __name__ == "__main__":
    tyro.cli(main)
