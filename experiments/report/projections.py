"""Pictures of facts before and after other tasks: how their file is read, drawn and tabulated."""

import dataclasses
from pathlib import Path
from typing import Any

import matplotlib.style
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke

from experiments.report import looks, measured
from experiments.report.axes import panel_grid, short, title
from experiments.report.markup import Markup, column_header, element, row_header, table
from experiments.report.sections import Float64Array

FORMAT = 1
KIND = "fact_projections"
FILE_NAME = "projections.json"

_ON_WHITE = withStroke(linewidth=3.2, foreground="white")

_styled = matplotlib.style.context(looks.STYLE, after_reset=True)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Projections:
    """A file of projections.

    Attributes:
      experiment: whose networks they are.
      description: what is shown.
      facts: their names.
      vectors: (F, 2), where the facts' own vectors lie.
      share: of the vectors' variance, that is in the plane.
      labels: (N,) int, the fact of each picture.
      before: (N, 2), where pictures lie after the first task.
      after: by method, (N, 2): where they lie after the last.
      distances: mean squared distances to the own fact, in all dimensions: "before", "after".
      command: the command line that made the file.
      versions: of Python and the packages.
      machine: what it ran on.
      seed: the random seed of the networks.
    """

    experiment: str
    description: str
    facts: tuple[str, ...]
    vectors: Float64Array
    share: float
    labels: np.ndarray
    before: Float64Array
    after: dict[str, Float64Array]
    distances: dict[str, Any]
    command: str
    versions: dict[str, str]
    machine: dict[str, Any]
    seed: int

    @property
    def caption(self) -> str:
        """How to read the picture."""
        return (
            f"Test pictures of {len(self.facts)} facts of the first task, seed {self.seed}, where "
            "the network places them: hollow after the first task, filled after the last, a line "
            "from mean to mean. Crosses: the vectors of the facts' own words; those further off "
            "than the pictures are at the edge, in their direction. The axes are the two principal "
            f"ones of these vectors, which hold {100 * self.share:.0f} % of their variance, the "
            "same in all panels. The network after the first task is fine-tuning's, which every "
            "method goes on from but for SI, which learns that task by itself."
        )


def read_all(directory: Path) -> list[Projections]:
    """Every file of projections below `directory`, none if there is none.

    Raises:
      ValueError: a file is not one of projections of this version.
    """
    return [read(path) for path in sorted(directory.rglob(FILE_NAME))]


def read(path: Path) -> Projections:
    """Read a file of projections; ValueError where it is not one."""
    return measured.read(path, (FORMAT, KIND), "projections", _checked)


@_styled
def planes(found: Projections, columns: int) -> Figure:
    """Draw each method's panel, all to one scale.

    Args:
      found: what was read.
      columns: panels side by side.
    """
    height = 3.0 if columns > 2 else 1.9
    figure, panels = panel_grid(len(found.after), columns, height, share_y=True)
    limits = _limits(found)
    for axes, (method, after) in zip(panels, found.after.items(), strict=True):
        title(axes, method, columns)
        for fact in range(len(found.facts)):
            _fact(axes, found, fact, after, limits)
        axes.set_xlim(*limits[0])
        axes.set_ylim(*limits[1])
        axes.set_aspect("equal")
        axes.grid(True, axis="both")
    # Titles stand close to the ticks of the row above.
    figure.get_layout_engine().set(h_pad=0.12)  # pyright: ignore[reportOptionalMemberAccess, reportCallIssue]
    figure.supxlabel("first principal axis of the facts", fontsize=8.5, color=looks.MUTED)
    figure.supylabel("second", fontsize=8.5, color=looks.MUTED)
    _legend(figure, found.facts)
    return figure


def distances_table(found: Projections) -> Markup:
    """How far pictures lie from their facts, before and after."""
    before = f"{found.distances['before']:.3f}"
    rows = [
        element("tr", row_header(method), element("td", before), element("td", f"{distance:.3f}"))
        for method, distance in found.distances["after"].items()
    ]
    head = [*map(column_header, ("Method", "After the first task", "After the last task"))]
    return table("Mean squared distance of pictures to their fact's vector", [head], rows)


def in_words(found: Projections) -> str:
    """What the picture shows, for those who do not see it."""
    ends = ", ".join(f"{m} {distance:.3f}" for m, distance in found.distances["after"].items())
    return (
        f"Scatter plots, one per method, of pictures of {', '.join(found.facts)} on a plane, after "
        "the first task and after the last. Their mean squared distance to their fact is "
        f"{found.distances['before']:.3f} before and afterwards: {ends}."
    )


def _checked(plain: dict[str, Any]) -> Projections:
    """What JSON made of a file, as arrays that fit each other."""
    facts, labels = tuple(map(str, plain["facts"])), np.array(plain["labels"], int)
    if not len(labels) or not np.isin(labels, np.arange(len(facts))).all():
        raise ValueError(f"labels must be of the {len(facts)} facts, and not none")
    after = {
        method: _points(method, places, len(labels)) for method, places in plain["after"].items()
    }
    if not after:
        raise ValueError("it holds no method")
    distances = plain["distances"]
    if list(distances["after"]) != list(after) or not np.isfinite(distances["before"]):
        raise ValueError("distances must be those of the methods in 'after'")
    arrays = {
        "facts": facts,
        "labels": labels,
        "after": after,
        "vectors": _points("vectors", plain["vectors"], len(facts)),
        "before": _points("before", plain["before"], len(labels)),
        "share": float(plain["share"]),
    }
    return Projections(**{**plain, **arrays})


def _points(name: str, plain: Any, count: int) -> Float64Array:
    """Places on the plane."""
    points = np.array(plain, np.float64).reshape(-1, 2)
    if len(points) != count or not np.isfinite(points).all():
        raise ValueError(f"{name!r} must be {count} places of finite values, got {len(points)}")
    return points


def _fact(
    axes: Axes, found: Projections, fact: int, after: Float64Array, limits: Float64Array
) -> None:
    """One fact's pictures and vector, in one colour and with one marker."""
    look, own = looks.look(fact), found.labels == fact
    style: dict[str, Any] = {"color": look.color, "marker": look.marker, "ls": "", "ms": 3.4}
    axes.plot(*found.before[own].T, **style, mfc="none", mew=0.7, alpha=0.55)
    axes.plot(*after[own].T, **style, mew=0, alpha=0.75)
    if own.any():
        moved = np.stack([found.before[own].mean(axis=0), after[own].mean(axis=0)])
        axes.plot(*moved.T, color=look.color, linewidth=1.5, zorder=3, path_effects=[_ON_WHITE])
    # White around it, as it lies among the pictures.
    place = inside(found.vectors[fact], limits)
    axes.plot(*place, "x", color="white", ms=9, mew=4.2, zorder=4)
    axes.plot(*place, "x", color=look.color, ms=7.5, mew=2.2, zorder=5)


def inside(point: Float64Array, limits: Float64Array) -> Float64Array:
    """`point`, or where the line to it from the middle of the panel comes near the edge.

    >>> limits = np.array([[-1.0, 1.0], [-2.0, 2.0]])
    >>> inside(np.array([0.5, 0.0]), limits).tolist(), inside(np.array([4.0, 4.0]), limits).tolist()
    ([0.5, 0.0], [0.92, 0.92])
    """
    middle, half = limits.mean(axis=1), 0.92 * (limits[:, 1] - limits[:, 0]) / 2
    offset = point - middle
    return middle + offset * min(1.0, float((half / np.maximum(np.abs(offset), 1e-12)).min()))


def _limits(found: Projections) -> Float64Array:
    """(2, 2): from where to where pictures lie along x and y, with a margin."""
    every = np.concatenate([found.before, *found.after.values()])
    low, high = every.min(axis=0), every.max(axis=0)
    margin = 0.06 * max(float((high - low).max()), 1e-9)
    return np.stack([low - margin, high + margin], axis=1)


def _legend(figure: Figure, facts: tuple[str, ...]) -> None:
    """The facts' looks, and what is hollow, filled and a cross."""
    handles = []
    for number in range(len(facts)):
        look = looks.look(number)
        handles.append(Line2D([], [], color=look.color, marker=look.marker, ls="", ms=5))
    ink: dict[str, Any] = {"color": looks.INK, "ls": ""}
    handles.append(Line2D([], [], **ink, marker="o", mfc="none", ms=5))
    handles.append(Line2D([], [], **ink, marker="o", ms=5))
    handles.append(Line2D([], [], **ink, marker="x", ms=7, mew=2))
    kinds = ("after the first task", "after the last", "the fact's vector")
    labels = ["\u2009" + short(name, 32) for name in (*facts, *kinds)]
    few = 2 if max(map(len, labels)) <= 23 else 1
    columns = 3 if figure.get_figwidth() > 5 else few
    figure.legend(handles, labels, loc="outside upper left", ncols=columns)
