"""Timings that noise falls on alike."""

import time
from collections.abc import Callable


def measured_in_turns(
    runners: dict[str, Callable[[], None]], repeats: int
) -> dict[str, list[float]]:
    """Seconds of each runner, all of them once per round, so that noise falls on all alike."""
    seconds: dict[str, list[float]] = {name: [] for name in runners}
    for round_number in range(repeats + 1):
        for name, run in runners.items():
            start = time.perf_counter()
            run()
            if round_number > 0:  # the first round compiles
                seconds[name].append(time.perf_counter() - start)
    return seconds
