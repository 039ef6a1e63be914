"""The pictures: pure functions from a section to a matplotlib Figure."""

import math
from collections.abc import Sequence

import matplotlib
import matplotlib.colors
import matplotlib.style
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from experiments.measures import Measure
from experiments.report import looks
from experiments.report.axes import (
    accuracy_axis,
    color_bar,
    importance_axes,
    legend,
    line_style,
    name_cells,
    note,
    panel_grid,
    short,
    task_axis,
    title,
)
from experiments.report.importance import Bars, importance_bars, parameters
from experiments.report.sections import Float64Array, Method, Section, interval

# Style sheets of the reader's own must not change the pictures.
_styled = matplotlib.style.context(looks.STYLE, after_reset=True)


def accuracy_limits(section: Section) -> tuple[float, float]:
    """Where the accuracy scales of a section's pictures start and end: around every seed's."""
    lower = np.tril_indices(len(section.tasks))
    seen = [method.accuracy()[:, *lower] for method in section.finished]
    return looks.scale_limits(
        min(float(np.nanmin(of_method)) for of_method in seen),
        max(float(np.nanmax(of_method)) for of_method in seen),
    )


@_styled
def accuracy_heat_map(method: Method, limits: tuple[float, float]) -> Figure:
    """Draw a method's accuracy matrix, the mean over its seeds.

    Args:
      method: with at least one finished seed.
      limits: the accuracies at which the colours start and end.
    """
    mean_TxT = method.accuracy().mean(axis=0)
    length = len(mean_TxT)
    side = min(max(0.44 * length, 1.3), 8.0)
    figure = Figure(figsize=(side + 1.3, side + 0.8), layout="constrained")
    axes = figure.add_subplot()
    image = heat(axes, mean_TxT, limits)
    digits = method.measure.digits - (0 if length <= 7 else 1 if length <= 12 else 2)
    write_cells(axes, image, mean_TxT, digits, method.measure, fontsize=8)
    name_cells(axes, method.result.tasks, method.measure)
    axes.set_title(short(method.label, 40), pad=8)
    color_bar(figure, image, axes, limits, method.measure, most=round(3.5 * side))
    return figure


@_styled
def accuracy_along_sequence(section: Section, columns: int) -> Figure:
    """Draw each task's accuracy from when it is learned, and the mean over the tasks so far.

    Args:
      section: with at least one finished method.
      columns: panels side by side.
    """
    length, limits = len(section.tasks), accuracy_limits(section)
    names = [f"task {number}: {name}" for number, name in enumerate(section.tasks, start=1)]
    names += ["mean, tasks so far"] if length > 1 else []
    figure, panels = panel_grid(len(names), columns, panel_height=1.85, share_y=True)
    curves = [curves_of(method.accuracy()) for method in section.finished]
    for panel, (axes, name) in enumerate(zip(panels, names, strict=True)):
        title(axes, name, columns)
        # As grey as the cells of the heat maps that stand for the same time.
        axes.axvspan(0, panel + 0.5 if panel < length else 0, color=looks.NOT_LEARNED, linewidth=0)
        _lines(axes, section.finished, [of_method[panel] for of_method in curves])
        accuracy_axis(axes, limits, section.measure)
        task_axis(axes, length)
    figure.supylabel(section.measure.axis, fontsize=8.5, color=looks.MUTED)
    figure.supxlabel("after learning task", fontsize=8.5, color=looks.MUTED)
    legend(figure, section.finished)
    return figure


@_styled
def importance_histograms(section: Section, columns: int) -> Figure:
    """Draw the histogram of Ω of each parameter, all methods that have one over each other.

    Args:
      section: with at least one finished method that has an Ω.
      columns: panels side by side.
    """
    names = parameters(section)
    figure, panels = panel_grid(len(names), columns, panel_height=1.9, share_y=False)
    shown = [method for method in section.finished if parameters(section, method)]
    edges = []
    for axes, name in zip(panels, names, strict=True):
        title(axes, name, columns)
        having = [method for method in shown if name in parameters(section, method)]
        for row, method in enumerate(having):
            bars = importance_bars(method, name)
            edges += [*bars.log10_edges[:1], *bars.log10_edges[-1:]]
            _bars(axes, method, bars)
            owner = f"{short(method.label, 18)}: " if len(shown) > 1 else ""
            note(axes, f"{owner}zeros {100 * bars.zero_share:.1f} %", method, row)
    for axes in panels:
        importance_axes(axes, edges, columns)
    figure.supylabel("parameters per bin, all seeds", fontsize=8.5, color=looks.MUTED)
    figure.supxlabel("importance Ω", fontsize=8.5, color=looks.MUTED)
    legend(figure, shown)
    return figure


def heat(axes: Axes, mean_TxT: Float64Array, limits: tuple[float, float]) -> AxesImage:
    """Colour the cells of an accuracy matrix, grey where the task was not learned yet."""
    learned = np.tril(np.ones_like(mean_TxT, bool))
    return axes.imshow(
        np.where(learned, looks.error_scale(mean_TxT), np.nan),
        cmap=matplotlib.colormaps["YlGnBu"].with_extremes(bad=looks.NOT_LEARNED),
        vmin=float(looks.error_scale(limits[0])),
        vmax=float(looks.error_scale(limits[1])),
    )


def write_cells(
    axes: Axes,
    image: AxesImage,
    mean_TxT: Float64Array,
    digits: int,
    measure: Measure,
    fontsize: float,
) -> None:
    """Write the accuracies into the cells; faint where not learned yet."""
    for (row, column), value in np.ndenumerate(mean_TxT):
        (rgba,) = image.to_rgba(looks.error_scale([value]))
        ink = _ink_on(rgba) if column <= row else looks.FAINT
        text = measure.text(value, digits) if math.isfinite(value) else ""
        axes.text(column, row, text, ha="center", va="center", color=ink, fontsize=fontsize)


def curves_of(accuracy_SxTxT: Float64Array) -> list[tuple[Float64Array, ...]]:
    """x, mean and half-width of each task's curve, last of the mean over the tasks so far."""
    length = accuracy_SxTxT.shape[1]
    curves: list[tuple[Float64Array, ...]] = [
        (np.arange(task + 1.0, length + 1), *interval(accuracy_SxTxT[:, task:, task]))
        for task in range(length)
    ]
    so_far = np.stack([accuracy_SxTxT[:, i, : i + 1].mean(-1) for i in range(length)], axis=1)
    return [*curves, (np.arange(1.0, length + 1), *interval(so_far))]


def _lines(
    axes: Axes, methods: Sequence[Method], curves: Sequence[tuple[Float64Array, ...]]
) -> None:
    """The methods' curves, with their intervals (none for a single seed) as bands."""
    # A little beside each other, so that none hides behind another where all reach 100 %.
    spacing = min(0.08, 0.4 / len(methods))
    opacity = 0.16 if len(methods) <= 4 else 0.07
    for rank, (method, (x, mean, half_width)) in enumerate(zip(methods, curves, strict=True)):
        x = x + spacing * (rank - (len(methods) - 1) / 2)
        low, high = (looks.error_scale(mean + sign * half_width) for sign in (-1, 1))
        color = looks.look(method.index).color
        axes.fill_between(x, low, high, color=color, alpha=opacity, linewidth=0)
        axes.plot(x, looks.error_scale(mean), **line_style(method), clip_on=False)


def _bars(axes: Axes, method: Method, bars: Bars) -> None:
    """One method's histogram."""
    if not len(bars.counts):
        return
    look = looks.look(method.index)
    axes.stairs(bars.counts, bars.log10_edges, color=look.color, linewidth=1.5, ls=look.line)
    axes.stairs(bars.counts, bars.log10_edges, color=look.color, alpha=0.14, fill=True)


def _ink_on(rgba: Sequence[float]) -> str:
    """Dark or white, whichever reads better on a colour."""
    red, green, blue = rgba[:3]
    return looks.INK if 0.299 * red + 0.587 * green + 0.114 * blue > 0.42 else "white"
