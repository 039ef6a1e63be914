"""What is kept when importance is measured on one class alone, from the runs of `adaptation`.

    python -m experiments.analyses.adaptation experiments/recorded/adaptation

For each class: how much of it, and of the rest of its task, is forgotten by the end, with
importance from that class alone and from all, and the accuracy of the later tasks.
"""

from pathlib import Path

import numpy as np
import tyro

from experiments import results
from experiments.adaptation import KEPT
from experiments.analyses.printed import percent, print_table
from experiments.benchmarks.markdown import table
from experiments.results import Result

NUM_CLASSES = 10
"""Of the first task, whose outputs come first."""
HEADS = (
    "Ω of MNIST from",
    "digit",
    "forgotten of it",
    "forgotten of the others",
    "later tasks",
    "last task",
)


def compared(folder: Path) -> str:
    """The comparison as a Markdown table, in percent and points."""
    rows = []
    for digit in KEPT:
        for name, label in (
            ("finetune", "nothing (fine-tuning)"),
            ("mas", "all images"),
            (f"mas_class_{digit}", f"images of {digit}"),
        ):
            result = results.read(folder / name / results.FILE_NAME)
            rows.append((label, str(digit), *_cells(result, digit)))
    return table(HEADS, rows)


def _cells(result: Result, digit: int) -> list[str]:
    """Mean and interval over seeds of what a row shows."""
    records = results.finished(result)
    of_class_SxTxC = np.array([record.class_accuracy for record in records])
    accuracy_SxT = np.array([record.accuracy[-1] for record in records])
    lost_SxC = of_class_SxTxC[:, 0, :NUM_CLASSES] - of_class_SxTxC[:, -1, :NUM_CLASSES]
    return [
        percent(lost_SxC[:, digit]),
        percent(np.delete(lost_SxC, digit, axis=1).mean(axis=1)),
        percent(accuracy_SxT[:, 1:].mean(axis=1)),
        percent(accuracy_SxT[:, -1]),
    ]


def main(folder: tyro.conf.Positional[Path]) -> None:
    """Print the comparison of the runs in `folder`."""
    print_table(compared, folder)


if __name__ == "__main__":
    tyro.cli(main)
