"""In which phase a run is, told by a fork to its parent, who kills it and knows where it was.

The run's own functions are wrapped in the fork, and write where they are into shared memory.
"""

import contextlib
import functools
import mmap
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

import mas_jax
from experiments import results, runs, sequence
from experiments.bookmark import Bookmark
from experiments.methods import anchored
from mas_jax import leftovers

PHASES = ("training", "importance", "consolidation", "saving", "deletion")
"""Each has to be killed in."""
ALL = ("other", "evaluation", *PHASES)
"""And what else a run does; at first it is at something else."""
SHORT = ("consolidation", "deletion")
"""They take less than a parent needs to kill."""
HOLD = 0.002
"""Seconds that a fork waits before and after that part of a short phase it is to be killed in."""


class Phases:
    """Shared by a process and its forks: the phase now, and of each how often and for how long."""

    def __init__(self) -> None:
        shared = np.frombuffer(mmap.mmap(-1, mmap.PAGESIZE), np.float64)
        self._now, numbers = shared[:1], shared[1 : 1 + 2 * len(ALL)].reshape(2, -1)
        self._visits, self._seconds = numbers
        self._since = 0.0

    def clear(self) -> None:
        """Begin again, before a fork."""
        for numbers in (self._now, self._visits, self._seconds):
            numbers[:] = 0

    def now(self) -> str:
        """The phase that the fork is in, or was when it ended."""
        return ALL[int(self._now[0])]

    def visits(self, phase: str) -> int:
        """How often it has come into a phase."""
        return int(self._visits[ALL.index(phase)])

    def seconds(self, phase: str) -> float:
        """How long it was in a phase each time, in the mean; other phases within left out."""
        number = ALL.index(phase)
        return float(self._seconds[number] / max(1.0, self._visits[number]))

    @contextlib.contextmanager
    def during(self, phase: str) -> Iterator[None]:
        """Be in a phase, and then in the one before again."""
        before = int(self._now[0])
        self._visits[ALL.index(phase)] += 1
        self._turn_to(ALL.index(phase))
        try:
            yield
        finally:
            self._turn_to(before)

    def _turn_to(self, number: int) -> None:
        """From here on time is that of a phase."""
        now = time.monotonic()
        if self._since:
            self._seconds[int(self._now[0])] += now - self._since
        self._since, self._now[0] = now, number


def install(phases: Phases, held: tuple[str, int] | None) -> None:
    """Wrap what a run does, in this process; it waits where a short phase comes the n-th time."""

    def wrap(owner: Any, name: str, phase: str, is_real: Any = lambda *_: True) -> None:
        _wrap(owner, name, is_real, functools.partial(_around, phases, phase, held))

    wrap(sequence, "_learn_task", "training")
    wrap(anchored, "importance_over", "importance")
    wrap(mas_jax, "consolidate", "consolidation")
    wrap(anchored.Anchored, "as_stored", "consolidation")
    wrap(sequence, "histograms", "consolidation")
    wrap(sequence, "evaluate", "evaluation")
    wrap(sequence, "_save", "saving")
    wrap(results, "write", "saving")
    wrap(Bookmark, "_write", "saving")
    # What removes something only after a kill counts only where there is something.
    wrap(Bookmark, "remove", "deletion", lambda bookmark: bookmark._path.exists())
    wrap(mas_jax.AnchorStore, "delete", "deletion")
    wrap(leftovers, "remove", "deletion", leftovers.found)
    wrap(runs, "remove_leftovers", "deletion", lambda folder: any(folder.glob("*.tmp")))


def _wrap(
    owner: Any,
    name: str,
    is_real: Callable[..., Any],
    around: Callable[[], contextlib.AbstractContextManager[None]],
) -> None:
    """Put a context around the function of that name, where it does something."""
    fn = getattr(owner, name)

    @functools.wraps(fn)
    def wrapped(*arguments: Any, **options: Any) -> Any:
        with around() if is_real(*arguments) else contextlib.nullcontext():
            return fn(*arguments, **options)

    setattr(owner, name, wrapped)


@contextlib.contextmanager
def _around(phases: Phases, phase: str, held: tuple[str, int] | None) -> Iterator[None]:
    """Be in a phase; wait in it before and after what is done, if it is the one to be held."""
    with phases.during(phase):
        is_held = phase in SHORT and (phase, phases.visits(phase)) == held
        time.sleep(HOLD if is_held else 0)
        yield
        time.sleep(HOLD if is_held else 0)
