"""The comparison of methods as a table for the terminal."""

from collections.abc import Sequence

import numpy as np
from rich.table import Table

from experiments.results import Result, mean_interval, summary


def comparison(results: Sequence[Result]) -> Table:
    """One row per method, and one per published number, in percent (forgetting: points)."""
    first = results[0]
    seeds = len(first.seeds)
    over = f"mean ± 95 % interval over {seeds} seeds" if seeds > 1 else "one seed"
    table = Table(title=f"{first.experiment}: {over}, percent")
    table.add_column("method")
    table.add_column("average accuracy", justify="right")
    table.add_column("forgetting", justify="right")
    for task in first.tasks:
        table.add_column(task, justify="right")
    for result in results:
        measures = summary(result)
        last_rows = np.array([record.accuracy[-1] for record in result.seeds])
        table.add_row(
            result.method,
            _percent(*measures["average_accuracy"]),
            _percent(*measures["forgetting"], digits=3) if "forgetting" in measures else "–",
            *[_percent(mean_interval(column)[0], float("nan")) for column in last_rows.T],
        )
    table.add_section()
    for source, numbers in first.published.items():
        table.add_row(
            source,
            _percent(numbers["average_accuracy"], float("nan")),
            _percent(numbers["forgetting"], float("nan"), digits=3),
        )
    return table


def _percent(mean: float, half_width: float, digits: int = 2) -> str:
    """A fraction in percent, with its interval where there is one."""
    interval = "" if np.isnan(half_width) else f" ± {100 * half_width:.{digits}f}"
    return f"{100 * mean:.{digits}f}{interval}"
