"""Facts in the paper's layout: mean average precision per task and over all, ours beside theirs.

    python -m experiments.analyses.fact_tables experiments/recorded

reads FOLDER/facts_2 and FOLDER/facts_4. Ours are on Stanford 40 Actions, 40 facts, and a small
network; the paper's on 6DS, 186 facts, and VGG-16: orders may be compared, not levels.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import tyro

from experiments import results
from experiments.analyses.printed import print_table
from experiments.benchmarks.markdown import table
from experiments.results import Result, mean_interval

PAPER: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "facts_2": {
        "finetune": ("0.199", "0.57", "0.279"),
        "si": ("0.279", "0.462", "0.285"),
        "lmas": ("0.264", "0.466", "0.278"),
        "mas": ("0.306", "0.504", "0.290"),
    },
    "facts_4": {
        "finetune": ("0.19", "0.19", "0.28", "0.71", "0.18"),
        "si": ("0.36", "0.32", "0.38", "0.68", "0.25"),
        "mas": ("0.42", "0.37", "0.41", "0.65", "0.29"),
        "mas_both": ("0.43", "0.37", "0.46", "0.66", "0.30"),
    },
}
"""Section 5.2 of Aljundi et al. (ECCV 2018)."""


def compared(folder: Path) -> str:
    """The tables in Markdown, of those sequences that have recorded runs."""
    there = [name for name in PAPER if (folder / name).is_dir()]
    if not there:
        raise ValueError(f"{folder} has none of the folders {', '.join(PAPER)}")
    return "\n\n".join(_table(folder / name, PAPER[name]) for name in there)


def _table(folder: Path, paper: Mapping[str, tuple[str, ...]]) -> str:
    """One sequence's."""
    found = results.read_all(folder)
    columns = [*found[0].tasks, "all"]
    heads = ["method", *columns, *(f"paper: {column}" for column in columns)]
    nothing = ("",) * len(columns)
    rows = [[r.method, *cells(r), *paper.get(r.method, nothing)] for r in found]
    return table(heads, rows)


def cells(result: Result) -> list[str]:
    """Mean and interval over seeds at the end: of each task, and of all facts among all pictures.

    Raises ValueError where no seed is finished.
    """
    records = results.finished(result)
    if not records:
        raise ValueError(f"no seed of {result.experiment}, {result.method}, has learned all tasks")
    per_task_SxT = np.array([record.accuracy[-1] for record in records])
    overall_S = np.array([record.overall[-1] for record in records])
    pairs = [mean_interval(column) for column in (*per_task_SxT.T, overall_S)]
    return [f"{mean:.3f} ± {half_width:.3f}" for mean, half_width in pairs]


def main(folder: tyro.conf.Positional[Path]) -> None:
    """Print the tables of the runs in `folder`."""
    print_table(compared, folder)


if __name__ == "__main__":
    tyro.cli(main)
