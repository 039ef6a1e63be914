"""What a result's numbers are: accuracies in percent, or mean average precisions as fractions."""

import math
from typing import Any, NamedTuple

NOTHING = "–"
"""A cell of what there is no number for."""


class Measure(NamedTuple):
    """How a measure is named and written."""

    name: str
    short: str  # where there is little room
    average: str  # the mean over tasks
    overall: str  # of all tasks together
    factor: int  # 100 where it is written in percent
    unit: str  # after a heading
    points: str  # after a heading of differences
    symbol: str  # after a number
    digits: int
    error: str  # one minus it, of which axes show the logarithm

    def text(self, fraction: float, digits: int | None = None) -> str:
        """A fraction as it is written.

        >>> [ACCURACY.text(x) for x in (0.99214, -0.0008, -0.00001, float("nan"))]
        ['99.21', '−0.08', '0.00', '–']
        >>> MAP.text(0.2896)
        '0.290'
        """
        if not math.isfinite(fraction):
            return NOTHING
        digits = self.digits if digits is None else digits
        # Adding 0.0 makes a negative zero a zero.
        return f"{round(self.factor * fraction, digits) + 0.0:.{digits}f}".replace("-", "−")

    def change(self, difference: float) -> str:
        """A forgetting or a transfer: good methods forget hundredths of a point."""
        return self.text(difference, 3)

    def tick(self, fraction: float) -> str:
        """A round fraction as a tick's text.

        >>> [ACCURACY.tick(x) for x in (0.5, 0.995, -0.001)], MAP.tick(0.5)
        (['50', '99.5', '−0.1'], '0.5')
        """
        return f"{self.factor * fraction:g}".replace("-", "−")

    @property
    def axis(self) -> str:
        """What stands along an axis."""
        return f"{self.short}{self.unit} (log scale of {self.error})"

    @property
    def average_axis(self) -> str:
        """What stands along an axis of means over tasks."""
        return f"{self.average}{self.unit} (log scale of {self.error})"

    @property
    def forgetting_axis(self) -> str:
        """What stands along an axis of forgetting."""
        return f"forgetting{self.points} (log scale)"


ACCURACY = Measure(
    name="accuracy",
    short="accuracy",
    average="average accuracy",
    overall="accuracy, all tasks",
    factor=100,
    unit=", %",
    points=", points",
    symbol=" %",
    digits=2,
    error="error",
)
MAP = Measure(
    name="mean average precision (MAP)",
    short="MAP",
    average="average MAP",
    overall="MAP, all facts",
    factor=1,
    unit="",
    points="",
    symbol="",
    digits=3,
    error="1 − MAP",
)
MEASURES = {"accuracy": ACCURACY, "mean_average_precision": MAP}
"""By the name that results hold."""


def recorded(content: dict[str, Any]) -> str:
    """The name of the measure of a result as JSON has it.

    Records from before it was kept have it in their settings: facts, cut into tasks by a seed of
    their own, are measured by mean average precision.

    Raises ValueError for an unknown name.
    """
    facts = "split_seed" in content.get("config", {})
    name = content.get("measure", "mean_average_precision" if facts else "accuracy")
    if name not in MEASURES:
        raise ValueError(f"measure must be one of {', '.join(MEASURES)}, got {name!r}")
    return name
