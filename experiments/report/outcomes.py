"""The picture of what each method came to: final accuracy and forgetting, a row for each."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import matplotlib.style
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D

from experiments.measures import Measure
from experiments.report import looks, published
from experiments.report.axes import short
from experiments.report.sections import Method, Section
from experiments.results import summary

_styled = matplotlib.style.context(looks.STYLE, after_reset=True)

_SOURCE_MARKERS = ("D", "s", "^", "v", "P", "X")


class Mark(NamedTuple):
    """A number with its interval (NaN where there is none)."""

    mean: float
    half_width: float


@_styled
def outcomes(section: Section, columns: int) -> Figure:
    """Draw average accuracy and forgetting after the last task, with 95 % intervals.

    Args:
      section: with at least one finished method.
      columns: below 3, the two panels are above each other and not side by side.
    """
    methods = section.finished
    measures = ["average_accuracy", "forgetting"][: 2 if len(section.tasks) > 1 else 1]
    shape = (1, len(measures)) if columns > 2 else (len(measures), 1)
    height = 0.23 * len(methods) + 0.75
    # Room for the numbers between the panels.
    layout = ConstrainedLayoutEngine(wspace=0.06)
    size = (10.8 if columns > 2 else 3.8, height * shape[0] + 0.3)
    figure = Figure(figsize=size, layout=layout)
    panels = figure.subplots(*shape, sharey=True, squeeze=False).flat
    sources = published.sources(section.published, [m.result.method for m in methods])
    for axes, measure in zip(panels, measures, strict=True):
        marks = [Mark(*summary(method.result)[measure]) for method in methods]
        quoted = _quoted(section, measure)
        for row, (method, mark) in enumerate(zip(methods, marks, strict=True)):
            _own(axes, row, method, mark, measure)
            for source, of_source in quoted[row]:
                _published(axes, row, of_source, sources.index(source), measure)
        every = [*marks, *(mark for of_row in quoted for _, mark in of_row)]
        _axes(axes, measure, every, section.measure, most_ticks=9 if columns > 2 else 6)
        _rows(axes, methods, marks, measure)
    if sources:
        _legend(figure, sources)
    return figure


def _quoted(section: Section, measure: str) -> list[list[tuple[str, Mark]]]:
    """The published marks of each method's row, by source."""
    return [
        [
            (source, Mark(row[measure], row.get(f"{measure}_interval", np.nan)))
            for source, row in published.of_method(section.published, method.result.method)
            if measure in row
        ]
        for method in section.finished
    ]


def _own(axes: Axes, row: int, method: Method, mark: Mark, measure: str) -> None:
    """A method's dot and interval."""
    look = looks.look(method.index)
    axes.plot(*_interval(mark, row, measure), color=look.color, linewidth=2, alpha=0.55)
    dot = _scaled(mark.mean, measure)
    axes.plot(dot, row, look.marker, color=look.color, markersize=5.5, clip_on=False, zorder=4)


def _published(axes: Axes, row: int, mark: Mark, source: int, measure: str) -> None:
    """A hollow mark a little below the method's own."""
    below = row + 0.3
    axes.plot(*_interval(mark, below, measure), color=looks.FAINT, linewidth=1)
    axes.plot(_scaled(mark.mean, measure), below, **_source_style(source), clip_on=False)


def _interval(mark: Mark, row: float, measure: str) -> tuple[list[float], list[float]]:
    """The interval's ends; nothing where there is none."""
    if not np.isfinite(mark.half_width):
        return [], []
    ends = [mark.mean - mark.half_width, mark.mean + mark.half_width]
    return [_scaled(end, measure) for end in ends], [row, row]


def _scaled(value: float, measure: str) -> float:
    """Where a value lies along x."""
    scale = looks.error_scale if measure == "average_accuracy" else looks.loss_scale
    return float(scale(value))


def _axes(axes: Axes, measure: str, marks: Sequence[Mark], of: Measure, most_ticks: int) -> None:
    """The scale along x, around every mark and interval."""
    widths = np.nan_to_num([mark.half_width for mark in marks])
    means = np.array([mark.mean for mark in marks])
    # An interval may reach beyond what is possible; no method does.
    lowest, highest = float((means - widths).min()), float((means + widths).max())
    if measure == "average_accuracy":
        limits = looks.scale_limits(max(lowest, 0.0), min(highest, 1.0))
        ticks = looks.scale_ticks(*limits, most_ticks)
        labels = [of.tick(tick) for tick in ticks]
        ends = [_scaled(limit, measure) for limit in limits]
        axes.set_title(of.average_axis)
    else:
        ticks = looks.loss_ticks(max(lowest, -1.0), min(highest, 1.0), most_ticks)
        labels = [of.tick(tick) for tick in ticks]
        ends = [_scaled(tick, measure) for tick in (ticks[0], ticks[-1])]
        axes.set_title(of.forgetting_axis)
    margin = 0.03 * (ends[1] - ends[0])
    axes.set_xlim(ends[0] - margin, ends[1] + margin)
    axes.set_xticks([_scaled(tick, measure) for tick in ticks], labels)
    axes.grid(True, axis="x")


def _rows(axes: Axes, methods: Sequence[Method], marks: Sequence[Mark], measure: str) -> None:
    """The methods' names at the left, their numbers at the right, a faint line to lead the eye."""
    axes.set_yticks(range(len(methods)), [short(method.label, 22) for method in methods])
    axes.tick_params(axis="y", length=0, labelcolor=looks.INK, labelleft=True)
    axes.spines["left"].set_visible(False)
    axes.set_ylim(len(methods) - 0.4, -0.6)
    for row in range(len(methods) - 1):
        axes.axhline(row + 0.5, color="#eceef1", linewidth=0.6)
    of = methods[0].measure
    write = of.text if measure == "average_accuracy" else of.change
    for row, mark in enumerate(marks):
        axes.annotate(
            write(mark.mean),
            (1, row),
            (34, 0),
            xycoords=axes.get_yaxis_transform(),
            textcoords="offset points",
            ha="right",
            va="center",
            fontsize=8,
            color=looks.MUTED,
        )


def _legend(figure: Figure, sources: Sequence[str]) -> None:
    """Which marks are quoted, and from whom."""
    own = Line2D([], [], color=looks.INK, marker="o", lw=2, markersize=5.5, alpha=0.7)
    handles = [own, *(Line2D([], [], **_source_style(n)) for n in range(len(sources)))]
    labels = ["run here", *(f"published: {short(source, 28)}" for source in sources)]
    columns = len(handles) if figure.get_figwidth() > 5 else 1
    figure.legend(handles, labels, loc="outside upper left", ncols=columns)


def _source_style(source: int) -> dict[str, Any]:
    """The look of a source's marks."""
    return {
        "marker": _SOURCE_MARKERS[source % len(_SOURCE_MARKERS)],
        "markerfacecolor": "white",
        "markeredgecolor": looks.INK,
        "markersize": 4.5,
        "linestyle": "",
        "zorder": 5,
    }
