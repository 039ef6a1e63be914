"""The picture and the table of a scaling report: pure functions of what `scaling` measured."""

import statistics
from collections.abc import Sequence
from typing import Any

import matplotlib.style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter, NullLocator

from experiments.benchmarks.comparison import memory_ratio, num_bytes, seconds, time_ratio
from experiments.benchmarks.markdown import memory, number, spread, table, time
from experiments.report import looks

AXES = {"batch_size": "batch", "width": "width", "depth": "depth"}
"""What grows, and what it is called."""
TIMED = ("plain", "fused", "vmap")
LABELS = {"plain": "plain", "fused": "fused", "vmap": "vmap", "whole": "vmap, whole batch"}


def ranges(options: dict[str, Any], family: str) -> dict[str, Sequence[int]]:
    """The values of each axis that a family is measured at."""
    return {
        "batch_size": options["batch_sizes"],
        "width": options[f"{family}_widths"],
        "depth": options["depths"],
    }


def middle(options: dict[str, Any], family: str) -> dict[str, int]:
    """The size where a family's three curves cross."""
    return {axis: values[len(values) // 2] for axis, values in ranges(options, family).items()}


def curve(report: dict[str, Any], family: str, axis: str) -> list[dict[str, Any]]:
    """The points of a family along one axis, the other two at their middle."""
    others = {key: value for key, value in middle(report["options"], family).items() if key != axis}
    points = [
        point
        for point in report["points"]
        if point["family"] == family and all(point[key] == others[key] for key in others)
    ]
    return sorted(points, key=lambda point: point[axis])


def points_table(report: dict[str, Any]) -> str:
    """Every point in Markdown."""
    heading = [
        "network",
        *AXES.values(),
        *(f"{LABELS[name]}, time" for name in TIMED),
        "fused / plain time",
        *(f"{label}, memory" for label in LABELS.values()),
        "fused / plain memory",
    ]
    return table(heading, [_row(point) for point in report["points"]])


def _row(point: dict[str, Any]) -> list[str]:
    """A point's cells."""
    return [
        point["title"],
        *[str(point[axis]) for axis in AXES],
        *[time(seconds(point, name)) for name in TIMED],
        spread(time_ratio(point, "fused", "plain")),
        *[memory(num_bytes(point, name)) for name in LABELS],
        number(memory_ratio(point, "fused", "plain")),
    ]


@matplotlib.style.context(looks.STYLE, after_reset=True)
def draw(report: dict[str, Any]) -> Figure:
    """One column per axis; for each family a row of times and one of memory."""
    families = {point["family"]: point["title"] for point in report["points"]}
    figure = Figure(figsize=(10.8, 2.6 * 2 * len(families) + 0.6), layout="constrained")
    grid = figure.subplots(2 * len(families), len(AXES), sharey="row", squeeze=False)
    for row, (family, title) in enumerate(families.items()):
        for column, axis in enumerate(AXES):
            points = curve(report, family, axis)
            times, memories = grid[2 * row][column], grid[2 * row + 1][column]
            for name in TIMED:
                _line(times, name, points, axis, [_milliseconds(point, name) for point in points])
            for name in LABELS:
                _line(memories, name, points, axis, [_mebibytes(point, name) for point in points])
            times.set_title(f"{title}: time")
            memories.set_title(f"{title}: memory")
            for axes in (times, memories):
                _scales(axes, [point[axis] for point in points])
                axes.set_xlabel(_axis_label(report, family, axis))
        grid[2 * row][0].set_ylabel("milliseconds")
        grid[2 * row + 1][0].set_ylabel("MiB")
    handles, labels = grid[1][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=len(LABELS))
    return figure


def _milliseconds(point: dict[str, Any], name: str) -> float:
    return 1e3 * float(statistics.median(seconds(point, name)))


def _mebibytes(point: dict[str, Any], name: str) -> float:
    return num_bytes(point, name) / 2**20


def _axis_label(report: dict[str, Any], family: str, axis: str) -> str:
    """What grows, and at what the others are held."""
    held = {AXES[key]: value for key, value in middle(report["options"], family).items()}
    held.pop(AXES[axis])
    return f"{AXES[axis]} ({', '.join(f'{name} {value}' for name, value in held.items())})"


def _line(
    axes: Axes, name: str, points: Sequence[dict[str, Any]], axis: str, values: Sequence[float]
) -> None:
    """A pass's curve in its look."""
    look = looks.look(list(LABELS).index(name))
    axes.plot(
        [point[axis] for point in points],
        values,
        color=look.color,
        marker=look.marker,
        markersize=4.2,
        linewidth=1.6,
        label=LABELS[name],
        # It lies on another in places: dashed and on top, so that both are seen.
        linestyle="--" if name == "fused" else "-",
        zorder=4 if name == "fused" else 3,
    )


def _scales(axes: Axes, values: Sequence[int]) -> None:
    """Logarithmic both ways, with the measured sizes as ticks."""
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xticks(values, [str(value) for value in values])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.grid(True)
