"""What a network forgets where Ω is kept in fewer bytes, from a run of each code.

    python -m experiments compare split_mnist --only mas --methods.mas.importance-as log8 \
        --out runs/split_mnist_importance_codes/log8
    python -m experiments.analyses.importance_codes runs/split_mnist_importance_codes

and likewise for the other codes; `experiments.analyses.linear_code` makes the last row.
"""

from pathlib import Path

import numpy as np
import tyro

from experiments import results
from experiments.analyses.printed import percent, print_table
from experiments.benchmarks.markdown import table
from experiments.results import Result
from mas_jax import metrics

CODES = {
    "exact": ("exact (default)", "4", "8", "0"),
    "bfloat16": ("bfloat16", "2", "6", "2⁻⁸, 0.4 %"),
    "log8": ("log8", "1.03", "5.03", "3.4 %"),
    "linear8": ("8 bits in equal steps (not offered)", "1.03", "5.03", "100 %"),
}
"""By folder: the name of a code, bytes of Ω and of the anchor a parameter, and the largest relative
error of an entry; for log8 of those above 2⁻²⁴ of the largest in their block."""
HEADS = (
    "stored as",
    "bytes of Ω a parameter",
    "of the anchor",
    "largest relative error",
    "average accuracy, %",
    "forgetting, points",
    "more than exact, points",
)


def compared(folder: Path) -> str:
    """The table of all codes of which `folder` has a run, in percent and points.

    Means over seeds with 95 % intervals; the last column is of the differences seed by seed.

    Raises:
      FileNotFoundError: there is no run of the exact code.
      ValueError: a run has other seeds than that, or not all of their tasks.
    """
    exact = _forgetting(_result(folder / "exact"))
    rows = []
    for code, words in CODES.items():
        if code != "exact" and not (folder / code).is_dir():
            continue
        result = _result(folder / code)
        forgetting = _forgetting(result)
        if forgetting.keys() != exact.keys():
            raise ValueError(f"{folder / code} has finished other seeds than {folder / 'exact'}")
        more = percent(np.array([forgetting[seed] - exact[seed] for seed in exact]), 3)
        rows.append([*words, *_means(result, forgetting), "–" if code == "exact" else more])
    return table(HEADS, rows)


def _result(folder: Path) -> Result:
    """The run of MAS in `folder`."""
    return results.read(folder / "mas" / results.FILE_NAME)


def _forgetting(result: Result) -> dict[int, float]:
    """What each finished seed has forgotten, a fraction."""
    return {
        record.seed: float(metrics.forgetting(np.array(record.accuracy)))
        for record in results.finished(result)
    }


def _means(result: Result, forgetting: dict[int, float]) -> tuple[str, str]:
    """Average accuracy and forgetting over seeds."""
    accuracy = [
        metrics.average_accuracy(np.array(record.accuracy)) for record in results.finished(result)
    ]
    return percent(np.array(accuracy), 2), percent(np.array(list(forgetting.values())), 3)


def main(folder: tyro.conf.Positional[Path]) -> None:
    """Print the table of the runs below `folder`."""
    print_table(compared, folder)


if __name__ == "__main__":
    tyro.cli(main)
