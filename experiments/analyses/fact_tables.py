"""Facts in the paper's layout: mean average precision per task and over all, ours beside theirs.

    python -m experiments.analyses.fact_tables experiments/recorded/facts

reads FOLDER/facts_2 and FOLDER/facts_4, as `compare facts` leaves them.
"""

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
    spread,
)
from experiments.benchmarks.markdown import table
from experiments.results import Result

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
    """Facts in two and in four tasks, ours beside the paper's section 5.2.

    A cell is the mean average precision of finding pictures by their facts after the last task,
    per task among its own pictures and for all facts among all: ours mean ± 95 % interval over
    seeds. Ours are on Stanford 40 Actions, 40 facts, and a small network; the paper's on 6DS, 186
    facts, and VGG-16.

    A table for each sequence; those that were not run are named below.
    """
    runs = sequences(folder, PAPER)
    tables = [_table(found, PAPER[name]) for name, found in runs.items()]
    return "\n\n".join(filter(None, [*tables, missing(runs, PAPER)]))


def _table(runs: Mapping[str, Result], paper: Mapping[str, tuple[str, ...]]) -> str:
    """One sequence's."""
    columns = [*(f"T{task}" for task in range(1, len(paper["mas"]))), "all"]
    heads = ["method", *columns, *(f"paper: {column}" for column in columns)]
    nothing = (NOTHING,) * len(columns)
    rows = [
        [method, *(cells(runs[method]) if method in runs else nothing), *paper.get(method, nothing)]
        for method in rows_for(runs, paper)
    ]
    return table(heads, rows)


def cells(result: Result) -> list[str]:
    """Mean and interval over seeds at the end: of each task, of all facts among all pictures."""
    records = results.finished(result)
    per_task_SxT = np.array([record.accuracy[-1] for record in records])
    overall = [record.overall[-1] for record in records if record.overall]
    of_all = spread(np.array(overall)) if len(overall) == len(records) else NOTHING
    return [*map(spread, per_task_SxT.T), of_all]


def main(folder: tyro.conf.Positional[Path]) -> None:
    """Print the tables of the runs in `folder`."""
    print_table(compared, folder)


if __name__ == "__main__":
    tyro.cli(main)
