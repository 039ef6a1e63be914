"""The tables of results: headline numbers, the same seed by seed, exact zeros of Ω."""

import math
from collections.abc import Iterable, Sequence

from experiments.measures import NOTHING, Measure
from experiments.report import looks, published
from experiments.report.importance import importance_bars, parameters
from experiments.report.markup import (
    Markup,
    column_header,
    details,
    element,
    group_header,
    join,
    row_header,
    table,
)
from experiments.report.sections import FEW, Method, Section, interval
from experiments.results import summary
from mas_jax import metrics

_FEW_TASKS = 5
_MISSING = (math.nan, math.nan)


def results_table(section: Section) -> Markup:
    """What each method came to, and published numbers beside it.

    Accuracy on each task stands in the same table, or where that would be too wide in one of its
    own that opens on demand.
    """
    apart = section.crowded or len(section.tasks) > _FEW_TASKS
    tasks = tuple(range(len(section.tasks)))
    measures = tuple(_shown(section))
    if not apart:
        return _results(section, "After the last task", (*measures, *tasks), published_too=True)
    of = section.measure
    name = _capital(of.short)
    return join(
        [
            _results(section, "After the last task", measures, published_too=True),
            details(
                f"{name} on each task after the last one",
                _results(section, f"{name} on each task after the last{of.unit}", tasks, False),
            ),
        ]
    )


def _results(
    section: Section, caption: str, columns: Sequence[str | int], published_too: bool
) -> Markup:
    """A row per method and per published source that is of none; `columns` as in `_outcomes`."""
    own = {method.label: _outcomes(method) for method in section.methods}
    of = section.measure
    best = {c: best_of(c, [of_method[c][0] for of_method in own.values()], of) for c in columns}
    names = [method.result.method for method in section.methods]
    sources = published.sources(section.published, names) if published_too else []
    rows = []
    for method in section.methods:
        cells = [value_cell(c, own[method.label][c], best[c], of) for c in columns]
        quoted = published.of_method(section.published, method.result.method)
        beside = [
            _quoted_cell([row.numbers for row in quoted if row.source == s], of) for s in sources
        ]
        # The published average accuracy stands next to ours.
        cells[1:1] = beside
        seeds = element("td", seeds_of(method))
        rows.append(element("tr", row_header(name_of(method)), seeds, cells))
    if published_too:
        others = published.of_none(section.published, names)
        rows += [_published_row(s, row, columns, len(sources), of) for s, row in others.items()]
    return table(caption, _results_head(section, columns, sources), rows)


def _published_row(
    source: str, numbers: published.Numbers, columns: Sequence[str | int], empty: int, of: Measure
) -> Markup:
    """Published numbers that belong to no method here."""
    cells = [
        value_cell(c, _quoted(numbers, c) if isinstance(c, str) else _MISSING, None, of)
        for c in columns
    ]
    cells[1:1] = [element("td", NOTHING)] * empty
    tag = element("span", "published", class_="tag")
    header = row_header(tag, " ", source)
    return element("tr", header, element("td", NOTHING), cells, class_="published")


def _quoted_cell(rows: Sequence[published.Numbers], of: Measure) -> Markup:
    """What a source published of a method: average accuracy, and below it what else there is."""
    if not rows:
        return element("td", NOTHING)
    numbers = dict(rows[0])
    mean, half_width = _quoted(numbers, "average_accuracy")
    below = [f"± {of.text(half_width)}"] if math.isfinite(half_width) else []
    for name in ("forgetting", "backward_transfer"):
        if name in numbers:
            below.append(f"{name.replace('_', ' ')} {of.change(numbers[name])}")
    lines = [element("span", line, class_="interval") for line in below]
    return element("td", of.text(mean), lines, class_="published")


def _quoted(numbers: published.Numbers, measure: str) -> tuple[float, float]:
    """A published measure and its half-width, NaN where it is not given."""
    return numbers.get(measure, math.nan), numbers.get(f"{measure}_interval", math.nan)


def seeds_table(section: Section) -> Markup:
    """Average accuracy (or what is measured), forgetting and wall time of every seed."""
    if section.crowded:
        return details("Every seed", _seeds_by_method(section))
    numbers = {method.label: _per_seed(method) for method in section.finished}
    seeds = sorted({seed for of_method in numbers.values() for seed in of_method})
    measures = (f"{section.measure.short}{section.measure.unit}", "forgetting", "seconds")
    head = [
        [
            column_header("Seed", rowspan=2),
            *(group_header(name_of(m), colspan=len(measures)) for m in section.finished),
        ],
        [column_header(measure) for _ in section.finished for measure in measures],
    ]
    missing = [NOTHING] * len(measures)
    rows = [
        element(
            "tr",
            row_header(str(seed)),
            [
                element("td", text)
                for method in section.finished
                for text in numbers[method.label].get(seed, missing)
            ],
        )
        for seed in seeds
    ]
    return table("Every seed", head, rows)


def _seeds_by_method(section: Section) -> Markup:
    """The same with a row per method: accuracy, below it forgetting and seconds."""
    numbers = {method.label: _per_seed(method) for method in section.finished}
    seeds = sorted({seed for of_method in numbers.values() for seed in of_method})
    rows = []
    for method in section.finished:
        cells = [numbers[method.label].get(seed) for seed in seeds]
        rows.append(element("tr", row_header(name_of(method)), map(_seed_cell, cells)))
    head = [column_header("Method"), *(column_header(f"seed {seed}") for seed in seeds)]
    of = section.measure
    measures = f"{_capital(of.short)}{of.unit} (forgetting{of.points}; seconds)"
    return table(f"{measures} of every seed", [head], rows)


def _seed_cell(texts: list[str] | None) -> Markup:
    """One seed of one method."""
    if texts is None:
        return element("td", NOTHING)
    accuracy, forgetting, seconds = texts
    below = element("span", f"{forgetting}; {seconds} s", class_="interval")
    return element("td", accuracy, below)


def zeros_table(section: Section) -> Markup:
    """Which share of each parameter's Ω is exactly zero; the longer of the two lists goes down."""
    methods = [method for method in section.finished if parameters(section, method)]
    names = parameters(section)
    if len(methods) > FEW:
        rows = [
            element("tr", row_header(name_of(m)), [_zeros(section, m, name) for name in names])
            for m in methods
        ]
        head = [column_header("Method"), *map(column_header, names)]
    else:
        rows = [
            element("tr", row_header(name), [_zeros(section, m, name) for m in methods])
            for name in names
        ]
        head = [column_header("Parameter"), *(column_header(name_of(m)) for m in methods)]
    return table("Exact zeros in Ω", [head], rows)


def name_of(method: Method) -> Markup:
    """A method's name with the colour it has in the pictures."""
    color = looks.look(method.index).color
    chip = element("span", class_="chip", style=f"background:{color}", aria_hidden="true")
    return element("span", chip, method.label, class_="method")


def _per_seed(method: Method) -> dict[int, list[str]]:
    """The cells of each seed: average accuracy, forgetting, seconds."""
    cells = {}
    for record, matrix in zip(method.result.seeds, method.accuracy(), strict=True):
        forgetting = metrics.forgetting(matrix) if len(matrix) > 1 else math.nan
        seconds = sum(sum(row.values()) for row in record.seconds)
        accuracy = metrics.average_accuracy(matrix)
        of = method.measure
        cells[record.seed] = [of.text(accuracy), of.change(forgetting), f"{seconds:.1f}"]
    return cells


def _zeros(section: Section, method: Method, parameter: str) -> Markup:
    """The share of zeros, and of how many values."""
    if parameter not in parameters(section, method):
        return element("td", NOTHING)
    bars = importance_bars(method, parameter)
    return element("td", f"{100 * bars.zero_share:.2f} % of {bars.total:,}")


def _results_head(
    section: Section, columns: Sequence[str | int], sources: Sequence[str]
) -> list[list[Markup]]:
    """The measures, and in a second row the tasks under a heading of their own."""
    of = section.measure
    names = ["Method", "Seeds", *(headings(of)[c] for c in columns if isinstance(c, str))]
    names[3:3] = [f"Published by {source}{of.unit}" for source in sources]
    tasks = [column_header(section.tasks[c]) for c in columns if isinstance(c, int)]
    if not tasks:
        return [[column_header(name) for name in names]]
    heading = f"{_capital(of.short)} on each task{of.unit}"
    group = group_header(heading, colspan=len(tasks))
    return [[*(column_header(name, rowspan=2) for name in names), group], tasks]


def _outcomes(method: Method) -> dict[str | int, tuple[float, float]]:
    """Mean and half-width of each measure and, by its position, of each task's final accuracy."""
    outcomes: dict[str | int, tuple[float, float]] = dict.fromkeys(
        headings(method.measure), _MISSING
    )
    if not method.finished:
        return outcomes | dict.fromkeys(range(len(method.result.tasks)), _MISSING)
    mean_T, half_width_T = interval(method.accuracy()[:, -1])
    final = zip(mean_T.tolist(), half_width_T.tolist(), strict=True)
    return outcomes | summary(method.result) | dict(enumerate(final))


def seeds_of(method: Method) -> str:
    """How many seeds the numbers are from."""
    return str(len(method.result.seeds)) if method.finished else "none finished"


def best_of(column: str | int, means: Iterable[float], of: Measure) -> str | None:
    """The best of `means` as it is printed; None where there is nothing to be better than."""
    known = [mean for mean in means if math.isfinite(mean)]
    if len(known) < 2:
        return None
    return _text(column, min(known) if column == "forgetting" else max(known), of)


def value_cell(
    column: str | int, value: tuple[float, float], best: str | None, of: Measure
) -> Markup:
    """Mean and half-width; bold where it is the best, ties as printed included."""
    mean, half_width = value
    text = _text(column, mean, of)
    shown = element("strong", text) if text == best else element("span", text)
    if not math.isfinite(half_width):
        return element("td", shown)
    width = f"± {_text(column, half_width, of)}"
    return element("td", shown, element("span", width, class_="interval"))


def headings(of: Measure) -> dict[str, str]:
    """The headline metrics' columns."""
    return {
        "average_accuracy": f"{_capital(of.average)}{of.unit}",
        "overall": f"{_capital(of.overall)}{of.unit}",
        "forgetting": f"Forgetting{of.points}",
        "backward_transfer": f"Backward transfer{of.points}",
    }


def _shown(section: Section) -> list[str]:
    """The headline metrics that the section shows: "overall" where any method has it."""
    found = [summary(method.result) for method in section.finished]
    has_overall = any("overall" in of_method for of_method in found)
    return [name for name in headings(section.measure) if name != "overall" or has_overall]


def _text(column: str | int, value: float, of: Measure) -> str:
    """A value as its column has it."""
    return (of.change if column in ("forgetting", "backward_transfer") else of.text)(value)


def _capital(text: str) -> str:
    """`text` with a capital letter before it."""
    return text[:1].upper() + text[1:]
