"""Strength against accuracy and forgetting: a sweep as a picture and as a table."""

import math
from collections.abc import Sequence

import matplotlib.style
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from experiments.measures import Measure
from experiments.report import looks, sweeps
from experiments.report.axes import accuracy_axis
from experiments.report.markup import Markup, column_header, element, row_header, table
from experiments.report.sections import Method, Sweep
from experiments.report.tables import NOTHING, best_of, headings, seeds_of, value_cell
from experiments.results import summary

_styled = matplotlib.style.context(looks.STYLE, after_reset=True)


def finished_points(sweep: Sweep) -> list[Method]:
    """The points with a finished seed, by strength."""
    done = [point for point in sweep.points if point.finished]
    return sorted(done, key=lambda point: _strength(point))


def rates(sweep: Sweep) -> list[float | None]:
    """The learning rates, from the lowest."""
    found = {sweeps.learning_rate(point.result) for point in sweep.points}
    return sorted(found, key=lambda rate: -1.0 if rate is None else rate)


@_styled
def strength_curves(sweep: Sweep, columns: int) -> Figure:
    """Draw average accuracy and forgetting over the strength, a line per learning rate.

    Args:
      sweep: with at least one finished seed.
      columns: below 3, the two panels are above each other and not side by side.
    """
    points = finished_points(sweep)
    measures = ["average_accuracy", "forgetting"][: 2 if len(points[0].result.tasks) > 1 else 1]
    rows, across = (1, len(measures)) if columns > 2 else (len(measures), 1)
    wide = columns > 2
    figure = Figure(
        figsize=(5.4 * across if wide else 3.8, 3.4 if wide else 2.6 * rows + 0.5),
        layout="constrained",
    )
    panels = list(figure.subplots(rows, across, sharex=True, squeeze=False).flat)
    places = _places([_strength(point) for point in sweep.points])
    for axes, measure in zip(panels, measures, strict=True):
        ends = [
            end
            for number, rate in enumerate(rates(sweep))
            for end in _line(axes, _of_rate(points, rate), places, measure, number)
        ]
        _measure_axis(axes, measure, ends, sweep.whole.measure)
        _strength_axis(axes, places)
    figure.supxlabel("strength (log scale)", fontsize=8.5, color=looks.MUTED)
    if len(rates(sweep)) > 1:
        _legend(figure, rates(sweep))
    return figure


def strength_table(sweep: Sweep) -> Markup:
    """Average accuracy and forgetting of each point, the best in bold."""
    of = sweep.whole.measure
    measures = {name: headings(of)[name] for name in ("average_accuracy", "forgetting")}
    points = sorted(sweep.points, key=lambda point: (_strength(point), _rate(point)))
    missing = dict.fromkeys(measures, (math.nan, math.nan))
    found = [missing | (summary(p.result) if p.finished else {}) for p in points]
    best = {name: best_of(name, [of_point[name][0] for of_point in found], of) for name in measures}
    rows = [
        element(
            "tr",
            row_header(f"{_strength(point):g}"),
            element("td", NOTHING if math.isnan(_rate(point)) else f"{_rate(point):g}"),
            element("td", seeds_of(point)),
            [value_cell(name, of_point[name], best[name], of) for name in measures],
        )
        for point, of_point in zip(points, found, strict=True)
    ]
    names = ("Strength", "Learning rate", "Seeds", *measures.values())
    return table(f"{sweep.whole.label}: every point", [[*map(column_header, names)]], rows)


def _line(
    axes: Axes, points: Sequence[Method], places: dict[float, float], measure: str, number: int
) -> list[float]:
    """One learning rate's line and intervals; the ends of what was drawn, as fractions."""
    if not points:
        return []
    numbers = np.array([summary(point.result)[measure] for point in points])
    mean, half_width = numbers[:, 0], np.nan_to_num(numbers[:, 1])
    low, high = mean - half_width, mean + half_width
    scale = looks.error_scale if measure == "average_accuracy" else looks.loss_scale
    look = looks.look(number)
    x = np.array([places[_strength(point)] for point in points]) + 0.02 * number
    axes.vlines(x, scale(low), scale(high), color=look.color, alpha=0.45, linewidth=2)
    axes.plot(x, scale(mean), color=look.color, marker=look.marker, markersize=4.5, lw=1.5)
    return [*low.tolist(), *high.tolist()]


def _measure_axis(axes: Axes, measure: str, ends: Sequence[float], of: Measure) -> None:
    """The scale along y, around every interval."""
    if measure == "average_accuracy":
        axes.set_title(of.average_axis)
        accuracy_axis(axes, looks.scale_limits(max(min(ends), 0.0), min(max(ends), 1.0)), of)
        return
    axes.set_title(of.forgetting_axis)
    ticks = looks.loss_ticks(max(min(ends), -1.0), min(max(ends), 1.0))
    labels = [of.tick(tick) for tick in ticks]
    places = looks.loss_scale(ticks)
    margin = 0.03 * (places[-1] - places[0])
    axes.set_yticks(places.tolist(), labels)
    axes.set_ylim(places[0] - margin, places[-1] + margin)
    axes.grid(True)


def _places(strengths: Sequence[float]) -> dict[float, float]:
    """Where the strengths lie along x: their logarithm, and zero one step before the lowest."""
    positive = sorted({value for value in strengths if value > 0})
    places = {value: math.log10(value) for value in positive}
    lowest = min(places.values(), default=0.0)
    others = {value: lowest - 1 for value in strengths if value <= 0}
    return others | places


def _strength_axis(axes: Axes, places: dict[float, float]) -> None:
    """A tick at each strength, at every other where they are crowded."""
    across = max(places.values()) - min(places.values())
    ticks: list[float] = []
    for value in sorted(places):
        if not ticks or places[value] - places[ticks[-1]] >= across / 9:
            ticks.append(value)
    axes.set_xticks([places[tick] for tick in ticks], [f"{tick:g}" for tick in ticks])
    axes.tick_params(axis="x", labelbottom=True)


def _legend(figure: Figure, found: Sequence[float | None]) -> None:
    """The learning rates' lines."""
    handles, labels = [], []
    for number, rate in enumerate(found):
        look = looks.look(number)
        handles.append(Line2D([], [], color=look.color, marker=look.marker, markersize=4.5))
        labels.append(f"learning rate {'not stated' if rate is None else f'{rate:g}'}")
    columns = 5 if figure.get_figwidth() > 5 else 2
    figure.legend(handles, labels, loc="outside upper left", ncols=columns)


def _of_rate(points: Sequence[Method], rate: float | None) -> list[Method]:
    """The points at one learning rate."""
    return [point for point in points if sweeps.learning_rate(point.result) == rate]


def _strength(point: Method) -> float:
    """A point's strength."""
    value = sweeps.strength(point.result)
    assert value is not None, "only methods with a strength are swept"
    return value


def _rate(point: Method) -> float:
    """A point's learning rate, NaN where it is not stated."""
    value = sweeps.learning_rate(point.result)
    return math.nan if value is None else value
