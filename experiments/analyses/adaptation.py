"""What is kept when importance is measured on one class alone.

    python -m experiments.analyses.adaptation experiments/recorded/adaptation

of the runs of `adaptation`, or of `flowers_adaptation`.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import tyro

from experiments import adaptation, object_recognition, results
from experiments.analyses.printed import NOTHING, finished_runs, percent, print_table
from experiments.benchmarks.markdown import table
from experiments.names import nearest
from experiments.results import Result


class Asked(NamedTuple):
    """What an experiment asks of its first task.

    Attributes:
      kind: what its classes are.
      kept: those that importance was measured on, one at a time.
      num_classes: how many there are, unless the records tell; their outputs come first.
      paper: rows of the paper's numbers.
    """

    kind: str
    kept: tuple[int, ...]
    num_classes: int
    paper: tuple[tuple[str, ...], ...] = ()


ASKED = {
    "adaptation": Asked("digit", adaptation.KEPT, 10),
    "flowers_adaptation": Asked(
        "flower",
        object_recognition.KEPT,
        17,
        # Section 5.1; its 8 % are of all flowers, the one among them.
        (
            ("paper: all classes", NOTHING, NOTHING, NOTHING, NOTHING, "69"),
            ("paper: one class", "one", "2", "8 of all", NOTHING, "84"),
        ),
    ),
}


def compared(folder: Path) -> str:
    """What is kept when importance is measured on one class alone, in percent and points.

    For each class: how much of it, and of the rest of its task, is forgotten by the end, with
    importance from that class alone and from all, and the accuracy of the later tasks; mean ± 95 %
    interval over seeds.
    """
    runs = finished_runs(folder)
    first = next(iter(runs.values()))
    if first.experiment not in ASKED:
        raise nearest("experiment with one class apart", first.experiment, list(ASKED))
    asked = ASKED[first.experiment]
    heads = (
        f"Ω of {first.tasks[0]} from",
        asked.kind,
        "forgotten of it",
        "forgotten of the others",
        "later tasks",
        "last task",
    )
    rows = []
    for kept in asked.kept:
        for name, label in (
            ("finetune", "nothing (fine-tuning)"),
            ("mas", "all images"),
            (f"mas_class_{kept}", f"images of {kept}"),
        ):
            cells = [NOTHING] * 4
            if name in runs:
                num_classes, *_ = runs[name].num_classes or (asked.num_classes,)
                cells = _cells(runs[name], kept, num_classes)
            rows.append((label, str(kept), *cells))
    return table(heads, [*rows, *asked.paper])


def _cells(result: Result, kept: int, num_classes: int) -> list[str]:
    """Mean and interval over seeds of what a row shows."""
    records = results.finished(result)
    if not all(record.class_accuracy for record in records):
        raise ValueError(
            f"{result.experiment}, {result.method}, has no accuracy of each class after each task; "
            "run it with --class-accuracy"
        )
    of_class_SxTxC = np.array([record.class_accuracy for record in records])
    accuracy_SxT = np.array([record.accuracy[-1] for record in records])
    lost_SxC = of_class_SxTxC[:, 0, :num_classes] - of_class_SxTxC[:, -1, :num_classes]
    return [
        percent(lost_SxC[:, kept]),
        percent(np.delete(lost_SxC, kept, axis=1).mean(axis=1)),
        percent(accuracy_SxT[:, 1:].mean(axis=1)),
        percent(accuracy_SxT[:, -1]),
    ]


def main(folder: tyro.conf.Positional[Path]) -> None:
    """Print the comparison of the runs in `folder`."""
    print_table(compared, folder)


if __name__ == "__main__":
    tyro.cli(main)
