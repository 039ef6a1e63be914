"""What the pictures have in common: panels, axes, colour bars, legends, names cut to fit."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter, MaxNLocator

from experiments.measures import Measure
from experiments.report import looks
from experiments.report.sections import Method

_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def panel_grid(
    count: int, columns: int, panel_height: float, share_y: bool
) -> tuple[Figure, list[Axes]]:
    """A figure with `count` panels in rows of at most `columns`, the rows as full as can be."""
    rows = math.ceil(count / columns)
    width = 10.8 if columns > 2 and count > 1 else 3.8
    figure = Figure(figsize=(width, panel_height * rows + 0.9), layout="constrained")
    grid = figure.subplots(rows, math.ceil(count / rows), sharey=share_y, squeeze=False)
    panels = list(grid.flat)
    for axes in panels[count:]:
        axes.remove()
    return figure, panels[:count]


def accuracy_axis(axes: Axes, limits: tuple[float, float], measure: Measure) -> None:
    """The scale of accuracies along y."""
    ticks = looks.scale_ticks(*limits, most=7)
    low, high = looks.error_scale(limits)
    axes.set_yticks(looks.error_scale(ticks), [measure.tick(tick) for tick in ticks])
    axes.set_ylim(low - 0.03 * (high - low), high + 0.03 * (high - low))
    axes.grid(True)


def task_axis(axes: Axes, length: int) -> None:
    """The tasks' numbers along x."""
    step = math.ceil(length / 10)
    axes.set_xticks(range(1, length + 1, step))
    axes.set_xlim(0.6, length + 0.4)


def importance_axes(axes: Axes, log10_edges: Sequence[float], columns: int) -> None:
    """Decades along x, the same in all panels, and counts along y, with room for the notes."""
    low, high = (min(log10_edges), max(log10_edges)) if log10_edges else (-1.0, 1.0)
    # Two columns are a phone's: about as wide as half of four.
    step = math.ceil((high - low) / (5 if columns != 2 else 3))
    decades = np.arange(math.ceil(low), math.floor(high) + 1, step)
    axes.set_xticks(decades, [decade_label(decade) for decade in decades.tolist()])
    axes.set_xlim(low, high)
    axes.set_ylim(0, axes.get_ylim()[1] / max(1 - 0.12 * len(axes.texts), 0.25))
    axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
    axes.yaxis.set_major_formatter(EngFormatter(sep=""))
    axes.grid(True)


def decade_label(exponent: float) -> str:
    """A power of ten as text, as the pictures' texts are no mathematics.

    >>> decade_label(-12)
    '10⁻¹²'
    """
    return "10" + f"{exponent:.0f}".translate(_SUPERSCRIPTS)


def name_cells(axes: Axes, tasks: Sequence[str], measure: Measure) -> None:
    """Ticks, labels and white lines between the cells of a heat map."""
    names = [short(name, 14) for name in tasks]
    slanted = max(map(len, names)) > 6 or len(names) > 8
    rotation = {"rotation": 40, "ha": "right", "rotation_mode": "anchor"} if slanted else {}
    axes.set_xticks(range(len(names)), names, **rotation)
    axes.set_yticks(range(len(names)), names)
    axes.set_xlabel(f"{measure.short} on task{measure.unit}")
    axes.set_ylabel("after task")
    boundaries = np.arange(len(names) - 1) + 0.5
    axes.vlines(boundaries, -0.5, len(names) - 0.5, color="white", linewidth=1.5)
    axes.hlines(boundaries, -0.5, len(names) - 0.5, color="white", linewidth=1.5)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def color_bar(
    figure: Figure,
    image: Any,
    axes: Axes | Sequence[Axes],
    limits: tuple[float, float],
    measure: Measure,
    most: int,
    **placed: Any,
) -> None:
    """The scale of a heat map's colours, or of several's, at its side."""
    bar = figure.colorbar(image, ax=axes, **{"fraction": 0.05, "pad": 0.03, **placed})
    ticks = looks.scale_ticks(*limits, most)
    bar.set_ticks(looks.error_scale(ticks).tolist(), labels=[measure.tick(t) for t in ticks])
    bar.outline.set_visible(False)
    bar.ax.tick_params(length=0)


def legend(figure: Figure, methods: Sequence[Method]) -> None:
    """The methods' names above the panels."""
    legend_of(figure, [(method, short(method.label, 40)) for method in methods])


def legend_of(figure: Figure, entries: Sequence[tuple[Method, str]]) -> None:
    """A method's line and its text for each entry, as many in a row as there is room for."""
    handles = [Line2D([], [], **line_style(method)) for method, _ in entries]
    # Older versions of matplotlib leave out labels that begin with an underscore.
    labels = ["\u2009" + text for _, text in entries]
    # In points: a sample of the line takes about 45, a letter of the text 5.
    longest = 45 + 5 * max(map(len, labels))
    columns = max(1, int(72 * figure.get_figwidth() / longest))
    figure.legend(handles, labels, loc="outside upper left", ncols=columns)


def line_style(method: Method) -> dict[str, Any]:
    """The method's look in matplotlib's words."""
    look = looks.look(method.index)
    return {
        "color": look.color,
        "marker": look.marker,
        "linestyle": look.line,
        "linewidth": 1.6,
        "markersize": 4.2,
        "markeredgecolor": "white",
        "markeredgewidth": 0.6,
    }


def note(axes: Axes, text: str, method: Method, row: int) -> None:
    """Line `row` of the text in a panel's corner, in the method's colour."""
    axes.annotate(
        text,
        xy=(0, 1),
        xycoords="axes fraction",
        xytext=(4, -4 - 11 * row),
        textcoords="offset points",
        va="top",
        fontsize=8,
        color=looks.look(method.index).color,
    )


def title(axes: Axes, text: str, columns: int) -> None:
    """A panel's title, no longer than the panel is wide."""
    axes.set_title(short(text, {2: 22, 3: 36}.get(columns, 27)))


def short(text: str, most: int) -> str:
    """`text` on one line, cut to `most` characters."""
    text = " ".join(text.split())
    return text if len(text) <= most else text[: most - 1] + "…"
