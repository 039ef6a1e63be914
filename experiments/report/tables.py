"""The tables of results: headline numbers, the same seed by seed, exact zeros of Ω."""

import math
from collections.abc import Iterable

from experiments.report import looks
from experiments.report.importance import importance_bars, parameters
from experiments.report.markup import (
    Markup,
    column_header,
    element,
    group_header,
    row_header,
    table,
)
from experiments.report.sections import Method, Section, interval
from experiments.results import summary
from mas_jax import metrics

NOTHING = "–"
_MEASURES = {
    "average_accuracy": "Average accuracy, %",
    "forgetting": "Forgetting, points",
    "backward_transfer": "Backward transfer, points",
}


def results_table(section: Section) -> Markup:
    """What each method came to, and published numbers beside it."""
    own = {method.label: _outcomes(method) for method in section.methods}
    columns = [*_MEASURES, *range(len(section.tasks))]
    best = {
        column: _best(column, [of_method[column][0] for of_method in own.values()])
        for column in columns
    }
    rows = [
        element(
            "tr",
            row_header(name_of(method)),
            element("td", _seeds(method)),
            [_value_cell(c, own[method.label][c], best[c]) for c in columns],
        )
        for method in section.methods
    ]
    published = [
        element(
            "tr",
            row_header(element("span", "published", class_="tag"), " ", source),
            element("td", NOTHING),
            [_value_cell(c, (numbers.get(c, math.nan), math.nan), None) for c in _MEASURES],
            [element("td", NOTHING) for _ in section.tasks],
            class_="published",
        )
        for source, numbers in section.published.items()
    ]
    return table("After the last task", _results_head(section), rows + published)


def seeds_table(section: Section) -> Markup:
    """Average accuracy, forgetting and wall time of every seed."""
    numbers = {method.label: _per_seed(method) for method in section.finished}
    seeds = sorted({seed for of_method in numbers.values() for seed in of_method})
    measures = ("accuracy, %", "forgetting", "seconds")
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


def zeros_table(section: Section) -> Markup:
    """Which share of each parameter's Ω is exactly zero."""
    methods = [method for method in section.finished if parameters(section, method)]
    rows = [
        element(
            "tr",
            row_header(name),
            [element("td", _zeros(section, method, name)) for method in methods],
        )
        for name in parameters(section)
    ]
    head = [column_header("Parameter"), *(column_header(name_of(method)) for method in methods)]
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
        cells[record.seed] = [_number(accuracy, 2), _number(forgetting, 3), f"{seconds:.1f}"]
    return cells


def _zeros(section: Section, method: Method, parameter: str) -> str:
    """The share of zeros, and of how many values."""
    if parameter not in parameters(section, method):
        return NOTHING
    bars = importance_bars(method, parameter)
    return f"{100 * bars.zero_share:.2f} % of {bars.total:,}"


def _results_head(section: Section) -> list[list[Markup]]:
    """Two rows: the measures, and the tasks under a heading of their own."""
    names = ["Method", "Seeds", *_MEASURES.values()]
    tasks = group_header("Accuracy on each task, %", colspan=len(section.tasks))
    return [
        [*(column_header(name, rowspan=2) for name in names), tasks],
        [column_header(name) for name in section.tasks],
    ]


def _outcomes(method: Method) -> dict[str | int, tuple[float, float]]:
    """Mean and half-width of each measure and, by its position, of each task's final accuracy."""
    missing = (math.nan, math.nan)
    outcomes: dict[str | int, tuple[float, float]] = dict.fromkeys(_MEASURES, missing)
    if not method.finished:
        return outcomes | dict.fromkeys(range(len(method.result.tasks)), missing)
    mean_T, half_width_T = interval(method.accuracy()[:, -1])
    final = zip(mean_T.tolist(), half_width_T.tolist(), strict=True)
    return outcomes | summary(method.result) | dict(enumerate(final))


def _seeds(method: Method) -> str:
    """How many seeds the numbers are from."""
    return str(len(method.result.seeds)) if method.finished else "none finished"


def _best(column: str | int, means: Iterable[float]) -> str | None:
    """The best of `means` as it is printed; None where there is nothing to be better than."""
    known = [mean for mean in means if math.isfinite(mean)]
    if len(known) < 2:
        return None
    return _number(min(known) if column == "forgetting" else max(known), _digits(column))


def _value_cell(column: str | int, value: tuple[float, float], best: str | None) -> Markup:
    """Mean and half-width, in percent; bold where it is the best, ties as printed included."""
    mean, half_width = value
    text = _number(mean, _digits(column))
    shown = element("strong", text) if text == best else element("span", text)
    if not math.isfinite(half_width):
        return element("td", shown)
    width = f"± {_number(half_width, _digits(column))}"
    return element("td", shown, element("span", width, class_="interval"))


def _digits(column: str | int) -> int:
    """How many decimals a column of the results has: good methods forget hundredths of a point."""
    return 3 if column in ("forgetting", "backward_transfer") else 2


def _number(fraction: float, digits: int) -> str:
    """A fraction in percent.

    >>> [_number(x, 2) for x in (0.99214, -0.0008, -0.00001, float("nan"))]
    ['99.21', '−0.08', '0.00', '–']
    """
    if not math.isfinite(fraction):
        return NOTHING
    # Adding 0.0 makes a negative zero a zero.
    return f"{round(100 * fraction, digits) + 0.0:.{digits}f}".replace("-", "−")
