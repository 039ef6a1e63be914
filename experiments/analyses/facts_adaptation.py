"""Do the sports facts stay where importance is measured on their pictures alone?

    python -m experiments.analyses.facts_adaptation experiments/recorded/facts_adaptation

The mean average precision of "person playing sports" among the first task's pictures after each
task (the paper's Fig. 7), for each method; `python -m experiments report` draws it. In the paper,
on 6DS, it ends at 0.50 with importance from these facts alone, and near 0.20 with fine-tuning and
SI.
"""

from pathlib import Path

import tyro

from experiments import results
from experiments.analyses.printed import print_table
from experiments.benchmarks.markdown import table
from experiments.facts.subsets import subset_precision
from experiments.facts.table import SPORTS
from experiments.results import Result, mean_interval


def compared(folder: Path) -> str:
    """The table in Markdown, a row for each method."""
    found = results.read_all(folder)
    heads = ["method", *(f"after {task}" for task in found[0].tasks)]
    return table(heads, [[result.method, *cells(result)] for result in found])


def cells(result: Result) -> list[str]:
    """Mean and interval over seeds of the subset's precision after each task."""
    subset_SxT = subset_precision(result, SPORTS)
    pairs = [mean_interval(column) for column in subset_SxT.T]
    return [f"{mean:.3f} ± {half_width:.3f}" for mean, half_width in pairs]


def main(folder: tyro.conf.Positional[Path]) -> None:
    """Print the table of the runs in `folder`."""
    print_table(compared, folder)


if __name__ == "__main__":
    tyro.cli(main)
