"""The comparison of methods as a table: for the terminal, and in Markdown."""

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

from experiments.measures import MEASURES, NOTHING, Measure
from experiments.report import published, sections
from experiments.results import Result, finished, summary

HEADLINES = ("average_accuracy", "overall", "forgetting", "backward_transfer")
"""The headline metrics, of which "overall" is shown where a method has it."""

REFERENCES = ("joint",)
"""Methods that have all data at once."""

_MOST_TASKS = 5
"""With more, the tasks have no columns of their own."""


def comparison(results: Sequence[Result], width: int | None = None) -> Table:
    """One row per method, and one per published source of none, in percent (transfer: points);
    of facts mean average precisions, as fractions.

    Each task has a column where there are at most five and all fit.

    Args:
      results: of one experiment.
      width: of the terminal, in characters; None if there is no limit.
    """
    if len(results[0].tasks) <= _MOST_TASKS:
        table = _table(results, with_tasks=True)
        unlimited = Console(width=10_000)
        needed = Measurement.get(unlimited, unlimited.options, table).maximum
        if width is None or needed <= width:
            return table
    return _table(results, with_tasks=False)


def as_markdown(results: Sequence[Result]) -> str:
    """A Markdown table: methods, their headline metrics and, where known, published numbers.

    Args:
      results: of one experiment.

    Returns:
      Lines without one at the end; the best mean of a column is bold, ties as printed included.
    """
    of = MEASURES[results[0].measure]
    found = [summary(result) if finished(result) else {} for result in results]
    columns = {
        name: [_cell(name, of_method.get(name), of) for of_method in found]
        for name in _shown(found)[:-1]
    }
    methods = [result.method for result in results]
    for name, cells in columns.items():
        columns[name] = _bold(cells, methods, min if name == "forgetting" else max)
    published_beside = [_published(result.published, result.method, of, ", ") for result in results]
    rows = list(zip(_names(results), *columns.values(), published_beside, strict=True))
    units = {"forgetting": of.points}
    names = _headings(of)
    headings = ["method", *(names[name] + units.get(name, of.unit) for name in columns)]
    headings.append(f"published{of.unit}")
    if not any(published_beside):
        headings, rows = headings[:-1], [row[:-1] for row in rows]
    lines = [headings, ["---", *["---:"] * (len(headings) - 1)], *rows]
    return "\n".join(f"| {' | '.join(_escaped(cell) for cell in line)} |" for line in lines)


def _names(results: Sequence[Result]) -> list[str]:
    """The methods' names, with what differs in one that is there several times."""
    found = [sections.differing(result, results) for result in results]
    apart = [", ".join(f"{name} {value}" for name, value in each.items()) for each in found]
    return [
        f"{result.method} ({settings})" if settings else result.method
        for result, settings in zip(results, apart, strict=True)
    ]


def _table(results: Sequence[Result], with_tasks: bool) -> Table:
    """The table for the terminal."""
    first = results[0]
    seeds = len(finished(first))
    over = f"mean ± 95 % interval over {seeds} seeds" if seeds > 1 else "one seed"
    where = first.config.get("evaluate_on", "test")
    of = MEASURES[first.measure]
    what = "percent of" if of.factor == 100 else f"{of.name} on"
    table = Table(title=f"{first.experiment}: {over}, {what} {where} examples")
    found = [summary(result) if finished(result) else {} for result in results]
    shown = _shown(found)
    quoted = [_published(result.published, result.method, of) for result in results]
    headings = [_headings(of)[name] for name in shown]
    headings[1:1] = ["published"] if any(quoted) else []
    table.add_column("method")
    for heading in (*headings, *(first.tasks if with_tasks else ())):
        table.add_column(heading, justify="right")
    for result, measures, beside in zip(results, found, quoted, strict=True):
        cells = [_cell(name, measures.get(name), of) for name in shown]
        cells[1:1] = [beside] if any(quoted) else []
        table.add_row(result.method, *cells, *(_last_row(result) if with_tasks else ()))
    table.add_section()
    others = published.of_none(first.published, [result.method for result in results])
    for source, numbers in others.items():
        cells = [_cell(name, _quoted(numbers, name), of) for name in shown]
        cells[1:1] = [""] if any(quoted) else []
        table.add_row(source, *cells)
    return table


def _last_row(result: Result) -> list[str]:
    """The mean accuracy on every task after the last one; nothing without a finished seed."""
    rows = [record.accuracy[-1] for record in finished(result)]
    means = [float(np.mean(column)) for column in zip(*rows, strict=True)]
    return [_cell("", (mean, float("nan")), MEASURES[result.measure]) for mean in means]


def _published(
    numbers: Mapping[str, Mapping[str, float]], method: str, of: Measure, separator: str = "\n"
) -> str:
    """The average accuracies published of `method`; each with its source."""
    rows = [
        row for row in published.of_method(numbers, method) if "average_accuracy" in row.numbers
    ]
    name = "average_accuracy"
    cells = [_cell(name, _quoted(row.numbers, name), of) for row in rows]
    return separator.join(f"{cell} ({row.source})" for cell, row in zip(cells, rows, strict=True))


def _quoted(numbers: Mapping[str, float], measure: str) -> tuple[float, float] | None:
    """A published measure and its half-width (NaN where it has none)."""
    if measure not in numbers:
        return None
    return numbers[measure], numbers.get(f"{measure}_interval", float("nan"))


def _cell(name: str, measure: tuple[float, float] | None, of: Measure) -> str:
    """A fraction as it is written, with its interval where there is one."""
    if measure is None:
        return NOTHING
    mean, half_width = measure
    digits = 3 if name in ("forgetting", "backward_transfer") else of.digits
    interval = "" if np.isnan(half_width) else f" ± {of.factor * half_width:.{digits}f}"
    return f"{of.factor * mean:.{digits}f}{interval}"


def _shown(found: Sequence[Mapping[str, object]]) -> list[str]:
    """The headline metrics of a table about methods with these."""
    has_overall = any("overall" in of_method for of_method in found)
    return [name for name in HEADLINES if name != "overall" or has_overall]


def _headings(of: Measure) -> dict[str, str]:
    """The headline metrics' columns."""
    others = {name: name.replace("_", " ") for name in HEADLINES}
    return others | {"average_accuracy": of.average, "overall": of.overall}


def _bold(
    cells: Sequence[str], names: Sequence[str], best_fn: Callable[[Iterable[float]], float]
) -> list[str]:
    """The best mean in bold, where there is something for it to be better than.

    References, which have what the others do without, are not among those compared.
    """
    compared = [cell for cell, name in zip(cells, names, strict=True) if name not in REFERENCES]
    means = [float(cell.split(" ")[0]) for cell in compared if cell != NOTHING]
    if len(means) < 2:
        return list(cells)
    best = best_fn(means)
    parts = [cell.partition(" ± ") for cell in cells]
    return [
        f"**{mean}**{sign}{width}"
        if name not in REFERENCES and mean != NOTHING and float(mean) == best
        else mean + sign + width
        for name, (mean, sign, width) in zip(names, parts, strict=True)
    ]


def _escaped(cell: str) -> str:
    """A cell as Markdown takes it."""
    return cell.replace("|", "\\|")
