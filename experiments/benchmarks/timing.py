"""Timings that noise falls on alike."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np


class Ratio(NamedTuple):
    """Of the times of two runners: the median over rounds, and the quartiles around it."""

    median: float
    low: float
    high: float


def measured_in_turns(
    runners: Mapping[str, Callable[[], None]], repeats: int, at_least: float = 0.0
) -> dict[str, list[float]]:
    """Seconds of each runner, all of them once per round, so that noise falls on all alike.

    Args:
      runners: what is measured, each waiting for its own result.
      repeats: rounds. One more before them is not counted: it compiles.
      at_least: seconds that a timing takes; a runner that is faster runs several times in it.
    """
    seconds: dict[str, list[float]] = {name: [] for name in runners}
    for round_number in range(repeats + 1):
        for name, run in runners.items():
            taken = _seconds_per_run(run, at_least if round_number > 0 else 0.0)
            if round_number > 0:
                seconds[name].append(taken)
    return seconds


def _seconds_per_run(run: Callable[[], None], at_least: float) -> float:
    """The mean over as many runs as fill `at_least` seconds, or one."""
    start, runs = time.perf_counter(), 0
    while True:
        run()
        runs += 1
        elapsed = time.perf_counter() - start
        if elapsed >= at_least:
            return elapsed / runs


def ratio(numerators: Sequence[float], denominators: Sequence[float]) -> Ratio:
    """Divide round by round: what slows both runners of a round down cancels out.

    >>> ratio([2.0, 6.0, 3.0], [1.0, 2.0, 1.0])
    Ratio(median=3.0, low=2.5, high=3.0)
    """
    ratios = np.divide(numerators, denominators)
    low, median, high = np.quantile(ratios, (0.25, 0.5, 0.75)).tolist()
    return Ratio(median, low, high)
