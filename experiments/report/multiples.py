"""The pictures of many methods: one small panel for each, all to one scale."""

from typing import Any

import matplotlib.style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from experiments.report import looks
from experiments.report.axes import (
    accuracy_axis,
    color_bar,
    importance_axes,
    panel_grid,
    short,
    task_axis,
    title,
)
from experiments.report.figures import accuracy_limits, curves_of, heat, write_cells
from experiments.report.importance import importance_bars, parameters
from experiments.report.sections import Float64Array, Method, Section

_styled = matplotlib.style.context(looks.STYLE, after_reset=True)

_REFERENCES: dict[str, Any] = {"finetune": "--", "joint": ":"}
"""Methods that the others lie between, and their lines."""


@_styled
def sequence_by_method(section: Section, columns: int) -> Figure:
    """Draw the mean accuracy over the tasks so far of each method, its tasks as thin lines.

    Fine-tuning and joint training are in every panel, in grey.

    Args:
      section: with at least one finished method.
      columns: panels side by side.
    """
    length, limits = len(section.tasks), accuracy_limits(section)
    figure, panels = panel_grid(len(section.finished), columns, panel_height=1.6, share_y=True)
    curves = {method.label: curves_of(method.accuracy()) for method in section.finished}
    references = [m for m in section.finished if m.result.method in _REFERENCES]
    for axes, method in zip(panels, section.finished, strict=True):
        title(axes, method.label, columns)
        for other in references:
            if other is not method:
                x, mean, _ = curves[other.label][-1]
                style = {"linestyle": _REFERENCES[other.result.method], "linewidth": 1.3}
                axes.plot(x, looks.error_scale(mean), color=looks.REFERENCE, **style)
        _sequence_panel(axes, method, curves[method.label])
        accuracy_axis(axes, limits, section.measure)
        task_axis(axes, length)
    figure.supylabel(section.measure.axis, fontsize=8.5, color=looks.MUTED)
    figure.supxlabel("after learning task", fontsize=8.5, color=looks.MUTED)
    _sequence_legend(figure, references)
    return figure


def _sequence_panel(axes: Axes, method: Method, curves: list[tuple[Float64Array, ...]]) -> None:
    """One method: thin lines for its tasks, above them the mean with its interval."""
    look = looks.look(method.index)
    tasks, (x, mean, half_width) = curves[:-1], curves[-1]
    for task_x, task_mean, _ in tasks:
        axes.plot(task_x, looks.error_scale(task_mean), color=look.color, lw=0.8, alpha=0.45)
        axes.plot(task_x[0], looks.error_scale(task_mean[0]), "o", color=look.color, ms=1.8)
    low, high = (looks.error_scale(mean + sign * half_width) for sign in (-1, 1))
    axes.fill_between(x, low, high, color=look.color, alpha=0.2, linewidth=0)
    axes.plot(x, looks.error_scale(mean), color=look.color, linewidth=2.2, clip_on=False)


def _sequence_legend(figure: Figure, references: list[Method]) -> None:
    """What the lines are that come in every panel."""
    handles = [Line2D([], [], color=looks.INK, lw=2.2), Line2D([], [], color=looks.INK, lw=0.8)]
    labels = ["mean, tasks so far", "one task"]
    for method in references:
        style = _REFERENCES[method.result.method]
        handles.append(Line2D([], [], color=looks.REFERENCE, lw=1.3, linestyle=style))
        labels.append(f"mean, {short(method.label, 24)}")
    columns = len(handles) if figure.get_figwidth() > 5 else 2
    figure.legend(handles, labels, loc="outside upper left", ncols=columns)


@_styled
def accuracy_matrices(section: Section, columns: int) -> Figure:
    """Draw every method's accuracy matrix, the mean over its seeds, in one grid.

    Args:
      section: with at least one finished method.
      columns: matrices side by side.
    """
    length, limits = len(section.tasks), accuracy_limits(section)
    side = 2.2 if columns > 2 else 1.3
    digits = _digits(section)
    figure, panels = panel_grid(len(section.finished), columns, side + 0.35, share_y=True)
    for axes, method in zip(panels, section.finished, strict=True):
        title(axes, method.label, columns)
        mean_TxT = method.accuracy().mean(axis=0)
        image = heat(axes, mean_TxT, limits)
        if columns > 2 and digits is not None:
            write_cells(axes, image, mean_TxT, digits, section.measure, fontsize=6.5)
        _number_cells(axes, length)
    placed = {"location": "top", "aspect": 40, "fraction": 0.02}
    most = 8 if columns > 2 else 5
    color_bar(figure, panels[0].images[0], panels, limits, section.measure, most, **placed)
    figure.supylabel("after task", fontsize=8.5, color=looks.MUTED)
    label = f"{section.measure.short} on task{section.measure.unit}"
    figure.supxlabel(label, fontsize=8.5, color=looks.MUTED)
    return figure


def _digits(section: Section) -> int | None:
    """How many decimals the cells of small matrices have room for; None where that is too few."""
    length, digits = len(section.tasks), section.measure.digits
    if length <= 6:
        return digits - 1
    if section.measure.factor == 1:
        return digits - 1 if length <= 10 else None
    highest = max(float(method.accuracy().mean(axis=0).max()) for method in section.finished)
    # Without decimals, what is not 100 % must not read as if it were.
    return 0 if length <= 10 and highest < 0.995 else None


def _number_cells(axes: Axes, length: int) -> None:
    """The tasks' numbers at both sides."""
    step = 1 if length <= 10 else 5
    ticks = range(0, length, step)
    axes.set_xticks(ticks, [str(tick + 1) for tick in ticks])
    axes.set_yticks(ticks, [str(tick + 1) for tick in ticks])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


@_styled
def importance_by_method(section: Section, columns: int) -> Figure:
    """Draw the histograms of Ω of each method that has one, all its parameters in one panel.

    As shares of each parameter's values, so that biases show beside kernels.

    Args:
      section: with at least one finished method that has an Ω.
      columns: panels side by side.
    """
    names = largest_parameters(section)
    shown = [method for method in section.finished if parameters(section, method)]
    figure, panels = panel_grid(len(shown), columns, panel_height=1.6, share_y=False)
    edges: list[float] = []
    for axes, method in zip(panels, shown, strict=True):
        title(axes, method.label, columns)
        for name in filter(parameters(section, method).__contains__, names):
            bars = importance_bars(method, name)
            if len(bars.counts):
                edges += [bars.log10_edges[0], bars.log10_edges[-1]]
                share = 100 * bars.counts / bars.total
                color = looks.COLORS[names.index(name)]
                axes.stairs(share, bars.log10_edges, color=color, linewidth=1.3)
    for axes in panels:
        importance_axes(axes, edges, columns)
    figure.supylabel("share of the parameter's values, % per bin", fontsize=8.5, color=looks.MUTED)
    figure.supxlabel("importance Ω", fontsize=8.5, color=looks.MUTED)
    _parameter_legend(figure, names)
    return figure


def largest_parameters(section: Section) -> list[str]:
    """The parameters that have most values, as many as one panel can show, in order."""
    sizes: dict[str, int] = {}
    for method in section.finished:
        for name in parameters(section, method):
            sizes.setdefault(name, importance_bars(method, name).total)
    most = sorted(sizes, key=lambda name: -sizes[name])[: len(looks.COLORS) - 1]
    return [name for name in sizes if name in most]


def _parameter_legend(figure: Figure, names: list[str]) -> None:
    """The parameters' colours."""
    handles = [Line2D([], [], color=color) for color in looks.COLORS[: len(names)]]
    # Older versions of matplotlib leave out labels that begin with an underscore.
    labels = ["\u2009" + short(name, 40) for name in names]
    columns = 3 if figure.get_figwidth() > 5 else 1
    figure.legend(handles, labels, loc="outside upper left", ncols=columns)
