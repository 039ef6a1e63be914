"""How things are drawn: a look per method, the scale of accuracies, the style of all pictures."""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

INK = "#1c2430"
MUTED = "#5d6673"
FAINT = "#8d95a0"
RULE = "#d5d9df"
NOT_LEARNED = "#f0f1f3"
REFERENCE = "#a9b0ba"

# Okabe and Ito's colours, told apart with every kind of colour vision; without their yellow,
# too pale for a line on white, and with grey for their black.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#4D4D4D")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
LINES = ("-", "--", ":")

STYLE: dict[str, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 8.5,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": RULE,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 9,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": "#e8eaee",
    "grid.linewidth": 0.8,
    "xtick.color": RULE,
    "ytick.color": RULE,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.frameon": False,
    "savefig.pad_inches": 0.1,
    # Names come from files; a dollar sign in one is a dollar sign.
    "text.parse_math": False,
}

# Keeps 100 % on the scale: there it is as far above 99.9 % as 99.9 % is above 99.7 %.
_SOFTENING = 1e-3
_TENTHS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
_LADDER = (*_TENTHS, 0.95, 0.97, 0.98, 0.99, 0.995, 0.998, 1.0)
_LOSSES = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)


class Look(NamedTuple):
    """What a method is recognised by, with colours or without."""

    color: str
    marker: str
    line: str


def look(index: int) -> Look:
    """The look of method `index`: 21 distinct ones, then again from the first."""
    cycle, position = divmod(index, len(COLORS))
    marker = MARKERS[(position + 3 * cycle) % len(MARKERS)]
    return Look(COLORS[position], marker, LINES[cycle % len(LINES)])


def error_scale(accuracy: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Where an accuracy lies on a logarithmic scale of the error: −log10(1 − accuracy + 0.001).

    It spreads 97 to 100 % and still holds 50 %; clipped to accuracies from 0 to 1.

    >>> error_scale([0.0, 0.9, 0.99, 0.999, 1.0]).round(2)
    array([-0.  ,  1.  ,  1.96,  2.7 ,  3.  ])
    """
    error = 1 - np.clip(np.asarray(accuracy, np.float64), 0, 1)
    return -np.log10(error + _SOFTENING)


def scale_limits(lowest: float, highest: float) -> tuple[float, float]:
    """The closest round accuracies that hold all from `lowest` to `highest`.

    >>> scale_limits(0.934, 0.999), scale_limits(1.0, 1.0)
    ((0.9, 1.0), (0.998, 1.0))
    """
    floor = max(step for step in _LADDER[:-1] if step <= max(lowest, 0.0))
    return floor, min(step for step in _LADDER if step > floor and step >= min(highest, 1.0))


def scale_ticks(floor: float, ceiling: float, most: int = 9) -> list[float]:
    """Round accuracies from `floor` to `ceiling` for ticks: about `most` at most, none crowded."""
    gap = float(error_scale(ceiling) - error_scale(floor)) / most
    ticks = [ceiling]
    for step in reversed(_LADDER):
        if step >= floor and error_scale(ticks[-1]) - error_scale(step) >= gap:
            ticks.append(step)
    return ticks[::-1]


def loss_scale(forgetting: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Where a forgetting lies on a scale that is logarithmic from a tenth of a point on.

    sign(f) log10(1 + |f| / 0.001), clipped to -1 to 1: zero and what was gained have a place.

    >>> loss_scale([-0.009, 0.0, 0.009, 0.099, 0.999]).round(2)
    array([-1.,  0.,  1.,  2.,  3.])
    """
    clipped = np.clip(np.asarray(forgetting, np.float64), -1, 1)
    return np.sign(clipped) * np.log10(1 + np.abs(clipped) / _SOFTENING)


def loss_ticks(lowest: float, highest: float, most: int = 9) -> list[float]:
    """Zero and round losses that hold all from `lowest` to `highest`, about `most` at most.

    >>> loss_ticks(-0.0004, 0.02)
    [-0.001, 0.0, 0.001, 0.003, 0.01, 0.03]
    """
    steps = [*(-step for step in reversed(_LOSSES)), 0.0, *_LOSSES]
    first = max([step for step in steps if step <= min(lowest, 0.0)], default=steps[0])
    last = min([step for step in steps if step >= max(highest, _LOSSES[0])], default=steps[-1])
    gap = float(loss_scale(last) - loss_scale(first)) / most
    ticks = list(dict.fromkeys((0.0, first, last)))
    for step in (step for step in steps if first < step < last):
        if np.abs(loss_scale(ticks) - loss_scale(step)).min() >= gap:
            ticks.append(step)
    return sorted(ticks)
