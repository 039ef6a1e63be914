"""The comparison of methods as a table for the terminal."""

from collections.abc import Sequence

import numpy as np
from rich.table import Table

from experiments.results import Result, finished, summary

MEASURES = {"average_accuracy": 2, "forgetting": 3, "backward_transfer": 3}
"""The headline metrics, and their decimals."""


def comparison(results: Sequence[Result]) -> Table:
    """One row per method, and one per published source, in percent (transfer: points)."""
    first = results[0]
    seeds = len(finished(first))
    over = f"mean ± 95 % interval over {seeds} seeds" if seeds > 1 else "one seed"
    where = first.config.get("evaluate_on", "test")
    table = Table(title=f"{first.experiment}: {over}, percent of {where} examples")
    table.add_column("method")
    for heading in ("average accuracy", "forgetting", "backward transfer", *first.tasks):
        table.add_column(heading, justify="right")
    for result in results:
        measures = summary(result)
        last_rows = np.array([record.accuracy[-1] for record in finished(result)])
        table.add_row(
            result.method,
            *[_cell(measures.get(name), digits) for name, digits in MEASURES.items()],
            *[_cell((column.mean(), float("nan")), 2) for column in last_rows.T],
        )
    table.add_section()
    for source, numbers in first.published.items():
        known = {name: (value, float("nan")) for name, value in numbers.items()}
        table.add_row(
            source, *[_cell(known.get(name), digits) for name, digits in MEASURES.items()]
        )
    return table


def _cell(measure: tuple[float, float] | None, digits: int) -> str:
    """A fraction in percent, with its interval where there is one."""
    if measure is None:
        return "–"
    mean, half_width = measure
    interval = "" if np.isnan(half_width) else f" ± {100 * half_width:.{digits}f}"
    return f"{100 * mean:.{digits}f}{interval}"
