"""What is kept when importance is measured on one class alone.

    python -m experiments.analyses.adaptation experiments/recorded/adaptation

of the runs of `adaptation`, or of `flowers_adaptation`.

For each class: how much of it, and of the rest of its task, is forgotten by the end, with
importance from that class alone and from all, and the accuracy of the later tasks.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import tyro

from experiments import adaptation, object_recognition, results
from experiments.analyses.printed import percent, print_table
from experiments.benchmarks.markdown import table
from experiments.names import nearest
from experiments.results import Result


class Asked(NamedTuple):
    """What an experiment asks of its first task.

    Attributes:
      kind: what its classes are.
      kept: those that importance was measured on, one at a time.
      num_classes: how many there are; their outputs come first.
    """

    kind: str
    kept: tuple[int, ...]
    num_classes: int


ASKED = {
    "adaptation": Asked("digit", adaptation.KEPT, 10),
    "flowers_adaptation": Asked("flower", object_recognition.KEPT, 17),
}


def compared(folder: Path) -> str:
    """The comparison as a Markdown table, in percent and points."""
    plain = results.read(folder / "finetune" / results.FILE_NAME)
    if plain.experiment not in ASKED:
        raise nearest("experiment with one class apart", plain.experiment, list(ASKED))
    asked = ASKED[plain.experiment]
    heads = (
        f"Ω of {plain.tasks[0]} from",
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
            result = results.read(folder / name / results.FILE_NAME)
            rows.append((label, str(kept), *_cells(result, kept, asked.num_classes)))
    return table(heads, rows)


def _cells(result: Result, kept: int, num_classes: int) -> list[str]:
    """Mean and interval over seeds of what a row shows."""
    records = results.finished(result)
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
