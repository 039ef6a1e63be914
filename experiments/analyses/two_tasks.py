"""The paper's Table 1 from the runs of its four sequences, ours beside the paper's.

    python -m experiments.analyses.two_tasks experiments/recorded/two_tasks

reads FOLDER/birds_scenes/mas/result.json and its like, as `compare two_tasks` leaves them. The
paper's layout has no room for intervals, so that what is forgotten has a table of its own with
them: an order within the intervals means nothing.
"""

import itertools
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import tyro

from experiments import results
from experiments.analyses.printed import (
    NOTHING,
    missing,
    print_table,
    rows_for,
    sequences,
)
from experiments.benchmarks.markdown import table
from experiments.measures import ACCURACY
from experiments.results import Result, mean_interval
from mas_jax import metrics

PAPERS_NAMES = {
    "birds_scenes": "Birds → Scenes",
    "scenes_birds": "Scenes → Birds",
    "flowers_birds": "Flower → Birds",
    "flowers_scenes": "Flower → Scenes",
}
"""The four sequences, as the paper's Table 1 calls them."""

PAPER = {
    "finetune": ("45.20 (−8.0) / 57.8", "49.7 (−9.3) / 52.8", "64.87 (−13.2) / 53.8",
                 "70.17 (−7.9) / 57.31"),
    "lwf": ("51.65 (−2.0) / 55.59", "55.89 (−3.1) / 49.46", "73.97 (−4.1) / 53.64",
            "76.20 (−1.9) / 58.05"),
    "ebll": ("52.79 (−0.8) / 55.67", "56.34 (−2.7) / 49.41", "75.45 (−2.6) / 50.51",
             "76.20 (−1.9) / 58.35"),
    "imm": ("51.51 (−2.1) / 52.62", "54.76 (−4.2) / 52.20", "75.68 (−2.4) / 48.32",
            "76.28 (−1.8) / 55.64"),
    "ewc": ("52.19 (−1.4) / 55.74", "58.28 (−0.8) / 49.65", "76.46 (−1.6) / 50.7",
            "77.0 (−1.1) / 57.53"),
    "si": ("52.64 (−1.0) / 55.89", "57.46 (−1.5) / 49.70", "75.19 (−2.9) / 51.20",
           "76.61 (−1.5) / 57.53"),
    "mas": ("53.24 (−0.4) / 55.0", "57.61 (−1.4) / 49.62", "77.33 (−0.7) / 50.39",
            "77.24 (−0.8) / 57.38"),
    "mas_test": ("53.43 (−0.2) / 55.07", "57.31 (−1.7) / 49.01", "77.62 (−0.5) / 50.29",
                 "77.45 (−0.6) / 57.45"),
    "mas_both": ("53.29 (−0.3) / 56.04", "57.83 (−1.2) / 49.56", "77.52 (−0.6) / 49.70",
                 "77.54 (−0.5) / 57.39"),
    "lmas": ("51.36 (−2.3) / 55.67", "57.61 (−1.4) / 49.86", "73.96 (−4.1) / 50.5",
             "76.20 (−1.9) / 56.68"),
    "lmas_test": ("51.62 (−2.0) / 53.95", "55.74 (−3.3) / 50.43", "74.48 (−3.6) / 50.32",
                  "76.56 (−1.5) / 57.83"),
    "lmas_both": ("52.15 (−1.5) / 54.40", "56.79 (−2.2) / 48.92", "73.73 (−4.3) / 50.5",
                  "76.41 (−1.7) / 57.91"),
}  # fmt: skip
"""Table 1 of Aljundi et al. (ECCV 2018): AlexNet, the full data sets. Its one row for IMM stands
beside both of ours."""

Runs = Mapping[str, Mapping[str, Result]]
"""Results by sequence and method."""

ROWS = (
    "finetune", "lwf", "ebll", "imm_mean", "imm_mode", "ewc", "si", "mas", "mas_test", "mas_both",
    "lmas", "lmas_test", "lmas_both",
)  # fmt: skip
"""Our methods in the order of the paper's."""


def compared(folder: Path) -> str:
    """Two photograph data sets after one another: ours beside the paper's Table 1.

    A cell of the first table is, as in the paper, the accuracy on the first task after both (its
    drop) / the accuracy on the second, in percent, means over seeds. The second table is of ours
    alone: what of the first task is forgotten, in points, mean ± 95 % interval over seeds.
    Flowers-17, Scene-15 and CUB-10, at a small size and on a small network, stand in for the
    paper's Flowers-102, MIT Indoor-67 and CUB-200 on AlexNet.

    Sequences that were not run have no columns, and are named below.
    """
    runs = sequences(folder, PAPERS_NAMES)
    tables = [_papers_layout(runs), _forgetting(runs)]
    return "\n\n".join(filter(None, [*tables, missing(runs, PAPERS_NAMES)]))


def _papers_layout(runs: Runs) -> str:
    """Table 1."""
    heads = ["method"]
    for name, of_sequence in runs.items():
        heads += [_title(of_sequence), f"paper: {PAPERS_NAMES[name]}"]
    rows = []
    for method in rows_for(_methods(runs), ROWS):
        pairs = ((cell(runs[name], method), papers_cell(name, method)) for name in runs)
        rows.append([method, *itertools.chain(*pairs)])
    return table(heads, rows)


def _forgetting(runs: Runs) -> str:
    """What every method that was run has forgotten."""
    methods = _methods(runs)
    rows = [
        [method, *(forgotten(of_sequence, method) for of_sequence in runs.values())]
        for method in rows_for(methods, ROWS)
        if method in methods
    ]
    return table(["forgetting, points", *map(_title, runs.values())], rows)


def _methods(runs: Runs) -> list[str]:
    """The methods that any sequence was run with."""
    return [method for of_sequence in runs.values() for method in of_sequence]


def _title(of_sequence: Mapping[str, Result]) -> str:
    """A sequence by its own data sets' names."""
    return " → ".join(next(iter(of_sequence.values())).tasks)


def cell(runs: Mapping[str, Result], method: str) -> str:
    """What the network does on two tasks after both, means over seeds."""
    if method not in runs:
        return NOTHING
    matrices_SxTxT = np.array([record.accuracy for record in results.finished(runs[method])])
    (learned, _), (first, second) = matrices_SxTxT.mean(axis=0)
    drop = f"{100 * (first - learned):+.1f}".replace("-", "−")
    return f"{100 * first:.2f} ({drop}) / {100 * second:.2f}"


def forgotten(runs: Mapping[str, Result], method: str) -> str:
    """What the first task has lost after both, in points: mean and interval over seeds."""
    if method not in runs:
        return NOTHING
    matrices = [np.array(record.accuracy) for record in results.finished(runs[method])]
    mean, half_width = mean_interval([metrics.forgetting(matrix) for matrix in matrices])
    interval = "" if np.isnan(half_width) else f" ± {ACCURACY.text(half_width, 1)}"
    return f"{ACCURACY.text(mean, 1)}{interval}"


def papers_cell(name: str, method: str) -> str:
    """What the paper has of a method in a sequence."""
    row = PAPER.get("imm" if method.startswith("imm_") else method)
    return row[list(PAPERS_NAMES).index(name)] if row else NOTHING


def main(folder: tyro.conf.Positional[Path]) -> None:
    """Print the table of the runs in `folder`."""
    print_table(compared, folder)


if __name__ == "__main__":
    tyro.cli(main)
