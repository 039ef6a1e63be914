"""Two measurements of one Ω, value by value: how their file is read, drawn and tabulated."""

import dataclasses
from pathlib import Path
from typing import Any

import matplotlib.style
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.report import looks, measured
from experiments.report.axes import decade_label, panel_grid, short, title
from experiments.report.markup import Markup, column_header, element, row_header, table
from experiments.report.sections import Float64Array

FORMAT = 1
KIND = "importance_pairs"
FILE_NAME = "importance_pairs.json"

_styled = matplotlib.style.context(looks.STYLE, after_reset=True)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pair:
    """One parameter's Ω measured on two sets of data.

    Attributes:
      x: what the first was measured on.
      y: what the second was.
      parameter: whose Ω it is.
      points: (P, 2), a sample of the values.
      rank_correlation: Spearman's, over all values.
      count: how many values there are.
      zeros: how many are exactly zero in "both", in "x", in "y".
    """

    x: str
    y: str
    parameter: str
    points: Float64Array
    rank_correlation: float
    count: int
    zeros: dict[str, int]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pairs:
    """A file of pairs.

    Attributes:
      experiment: whose parameters they are.
      description: what is held against what, and why.
      pairs: at least one.
      command: the command line that made the file.
      versions: of Python and the packages.
      machine: what it ran on.
      seed: the random seed of the network.
    """

    experiment: str
    description: str
    pairs: tuple[Pair, ...]
    command: str
    versions: dict[str, str]
    machine: dict[str, Any]
    seed: int


def read_all(directory: Path) -> list[Pairs]:
    """Every file of pairs below `directory`, none if there is none.

    Raises:
      ValueError: a file is not one of pairs of this version.
    """
    return [read(path) for path in sorted(directory.rglob(FILE_NAME))]


def read(path: Path) -> Pairs:
    """Read a file of pairs; ValueError where it is not one."""
    return measured.read(path, (FORMAT, KIND), "pairs", _checked)


@_styled
def scatter(found: Pairs, columns: int) -> Figure:
    """Draw each pair's values against each other, on log scales.

    Args:
      found: what was read.
      columns: panels side by side.
    """
    height = 2.9 if columns > 2 else 1.75
    figure, panels = panel_grid(len(found.pairs), columns, height, share_y=False)
    for axes, pair in zip(panels, found.pairs, strict=True):
        title(axes, pair.parameter, columns)
        # Zero has no logarithm; how many there are is said instead.
        drawn = pair.points[(pair.points > 0).all(axis=1)]
        axes.plot(*drawn.T, ".", color=looks.COLORS[0], ms=2.6, alpha=0.45, mew=0)
        _axes(axes, drawn)
        most = 40 if columns > 2 else 22
        axes.set_xlabel(short(f"Ω, {pair.x}", most), fontsize=8)
        axes.set_ylabel(short(f"Ω, {pair.y}", most), fontsize=8)
        axes.annotate(
            f"rank corr. {_correlation(pair)}",
            (0, 1),
            (4, -4),
            xycoords="axes fraction",
            textcoords="offset points",
            va="top",
            bbox={"boxstyle": "square,pad=0.15", "color": "white", "alpha": 0.8},
        )
    return figure


def pairs_table(found: Pairs) -> Markup:
    """Rank correlation, number of values and zeros of each pair."""
    names = (
        "Parameter", "Ω of", "against Ω of", "Rank correlation", "Values",
        "Zero in both", "Zero in the first", "Zero in the second",
    )  # fmt: skip
    rows = [
        element(
            "tr",
            row_header(pair.parameter),
            [
                element("td", text)
                for text in (
                    pair.x,
                    pair.y,
                    _correlation(pair),
                    f"{pair.count:,}",
                    *(f"{pair.zeros[kind]:,}" for kind in ("both", "x", "y")),
                )
            ],
        )
        for pair in found.pairs
    ]
    return table("Agreement of the two", [[*map(column_header, names)]], rows)


def in_words(found: Pairs) -> str:
    """What the picture shows, for those who do not see it."""
    each = "; ".join(
        f"{pair.parameter}, {pair.x} against {pair.y}: {_correlation(pair)}" for pair in found.pairs
    )
    return f"Scatter plots of one importance against another. Rank correlations: {each}."


def _checked(plain: dict[str, Any]) -> Pairs:
    """What JSON made of a file, at least one pair in it."""
    pairs = tuple(map(_pair, plain.pop("pairs")))
    if not pairs:
        raise ValueError("it holds no pairs")
    return Pairs(**plain, pairs=pairs)


def _pair(plain: dict[str, Any]) -> Pair:
    """One pair from what JSON made of it."""
    points = np.array(plain["points"], np.float64).reshape(-1, 2)
    if not (np.isfinite(points) & (points >= 0)).all():
        raise ValueError(
            f"the points of {plain['parameter']!r} must be finite and at least 0, as every Ω is"
        )
    zeros = {kind: int(plain["zeros"][kind]) for kind in ("both", "x", "y")}
    correlation = float(plain["rank_correlation"])
    return Pair(**{**plain, "points": points, "zeros": zeros, "rank_correlation": correlation})


def _correlation(pair: Pair) -> str:
    """As many digits as tell good from very good; a dash where it has no value."""
    value = pair.rank_correlation
    return f"{value:.3f}".replace("-", "−") if np.isfinite(value) else "–"


def _axes(axes: Axes, drawn: Float64Array) -> None:
    """The same log scale both ways, and the line where both are equal."""
    low, high = (drawn.min() / 1.5, drawn.max() * 1.5) if len(drawn) else (0.1, 10.0)
    if np.floor(np.log10(high)) < np.ceil(np.log10(low)):
        # All between two powers of ten: these are the ticks.
        low, high = 10 ** np.floor(np.log10(low)), 10 ** np.ceil(np.log10(high))
    axes.plot([low, high], [low, high], color=looks.REFERENCE, linewidth=0.9, zorder=1)
    axes.set_xscale("log")
    axes.set_yscale("log")
    first, last = np.ceil(np.log10(low)), np.floor(np.log10(high))
    decades = np.arange(first, last + 1, max(1, (last - first) // 3))
    labels = [decade_label(decade) for decade in decades.tolist()]
    axes.set_xticks(10.0**decades, labels)
    axes.set_yticks(10.0**decades, labels)
    axes.minorticks_off()
    axes.set_xlim(low, high)
    axes.set_ylim(low, high)
    axes.set_aspect("equal")
    axes.grid(True, axis="both")
