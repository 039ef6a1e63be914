"""Do the sports facts stay where importance is measured on their pictures alone?

    python -m experiments.analyses.facts_adaptation experiments/recorded/facts_adaptation

`python -m experiments report` draws what its table has.
"""

from pathlib import Path

import tyro

from experiments.analyses.printed import (
    NOTHING,
    finished_runs,
    print_table,
    rows_for,
    spread,
)
from experiments.benchmarks.markdown import table
from experiments.facts.subsets import subset_precision
from experiments.facts.table import SPORTS
from experiments.results import Result

PAPER = {"finetune": "near 0.20", "si": "near 0.20", "mas_sports": "0.50"}
"""Where the paper's curves end (Aljundi et al., ECCV 2018, Fig. 7, read off)."""


def compared(folder: Path) -> str:
    """Do the sports facts stay where importance is measured on their pictures alone?

    A cell is the mean average precision of "person playing sports" among the first task's pictures
    after a task (the paper's Fig. 7), mean ± 95 % interval over seeds. In the paper, on 6DS, it
    ends at 0.50 with importance from these facts alone, and near 0.20 with fine-tuning and SI.
    Ours is on Stanford 40 Actions.
    """
    runs = finished_runs(folder)
    tasks = next(iter(runs.values())).tasks
    heads = ["method", *(f"after {task}" for task in tasks), "paper: at the end"]
    rows = []
    for method in rows_for(runs, PAPER):
        ours = cells(runs[method]) if method in runs else [NOTHING] * len(tasks)
        rows.append([method, *ours, PAPER.get(method, NOTHING)])
    return table(heads, rows)


def cells(result: Result) -> list[str]:
    """Mean and interval over seeds of the subset's precision after each task."""
    return [spread(column) for column in subset_precision(result, SPORTS).T]


def main(folder: tyro.conf.Positional[Path]) -> None:
    """Print the table of the runs in `folder`."""
    print_table(compared, folder)


if __name__ == "__main__":
    tyro.cli(main)
