"""Measurements as tables in Markdown, aligned so that they are read as well in a terminal."""

import statistics
from collections.abc import Sequence

from experiments.benchmarks.timing import Ratio


def table(heading: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """The first column to the left, the others to the right.

    >>> print(table(["model", "time"], [["MLP", "4.1 ms"], ["SqueezeNet", "19 ms"]]))
    | model      |   time |
    |:-----------|-------:|
    | MLP        | 4.1 ms |
    | SqueezeNet |  19 ms |
    """
    widths = [max(map(len, column)) for column in zip(heading, *rows, strict=True)]
    rules = [":" + "-" * (widths[0] + 1), *("-" * (width + 1) + ":" for width in widths[1:])]
    lines = [
        _line([first.ljust(widths[0]), *_right(others, widths[1:])])
        for first, *others in (heading, *rows)
    ]
    return "\n".join([lines[0], f"|{'|'.join(rules)}|", *lines[1:]])


def number(ratio: float) -> str:
    """A ratio with as many digits as mean something."""
    return f"{ratio:.3f}" if ratio < 10 else f"{ratio:.1f}"


def spread(ratio: Ratio) -> str:
    """A median and its quartiles.

    >>> spread(Ratio(1.02, 0.98, 1.051))
    '1.020 (0.980–1.051)'
    """
    return f"{number(ratio.median)} ({number(ratio.low)}–{number(ratio.high)})"


def time(seconds: Sequence[float]) -> str:
    """The median.

    >>> time([0.0041, 0.0042, 0.3]), time([0.346]), time([12.5])
    ('4.2 ms', '346 ms', '12.5 s')
    """
    median = statistics.median(seconds)
    return f"{median:.1f} s" if median >= 1 else f"{1e3 * median:.{_decimals(1e3 * median)}f} ms"


def memory(num_bytes: int) -> str:
    """In MiB.

    >>> memory(3 * 2**19), memory(2**30)
    ('1.5 MiB', '1,024 MiB')
    """
    mebibytes = num_bytes / 2**20
    return f"{mebibytes:,.{_decimals(mebibytes)}f} MiB"


def _decimals(value: float) -> int:
    """Two digits at least."""
    return 0 if value >= 10 else 1 if value >= 1 else 2


def _right(cells: Sequence[str], widths: Sequence[int]) -> list[str]:
    """Cells moved to the right of their columns."""
    return [cell.rjust(width) for cell, width in zip(cells, widths, strict=True)]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
