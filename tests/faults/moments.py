"""Moments at which a run is killed, drawn from a seed."""

import random
from collections.abc import Sequence
from typing import Literal, NamedTuple

from tests.faults.phases import HOLD, PHASES, SHORT, Phases

Kind = Literal["any", "work", "write", "phase"]


class Moment(NamedTuple):
    """When a start is killed."""

    kind: Kind  # at any moment; after it has begun to write; right at a write; within a phase
    seconds: float  # from the start, from the first write, from the write, from the phase's begin
    number: int = 0  # of the change of the seed's folder, or of the time that the phase comes
    phase: str = ""


class Usual(NamedTuple):
    """A run that is left alone."""

    seconds: float
    working: float  # of these after its first write
    writes: int  # changes of the seed's folder that were seen
    phases: dict[str, tuple[int, float]]  # how often each came, and how long it took in the mean
    end: dict[str, str]


def drawn(seed: int, number: int, usual: Usual) -> Moment:
    """The moment of a kill."""
    rng = random.Random(f"{seed}/{number}")
    kind: Kind = rng.choice(("any", "work", "write", "phase", "phase", "phase"))
    if kind == "phase":
        # A run that goes on has fewer of everything before it.
        phase = rng.choice(PHASES)
        visits, seconds = usual.phases[phase]
        seconds += 2 * HOLD if phase in SHORT else 0.0
        return Moment(kind, rng.uniform(0.0, seconds), rng.randint(1, max(1, visits // 2)), phase)
    seconds = {"any": usual.seconds, "work": usual.working, "write": 0.004}[kind]
    return Moment(kind, rng.uniform(0.0, seconds), rng.randint(1, max(1, usual.writes // 2)))


class Clock:
    """When it is time to kill, given what has been seen."""

    def __init__(self, moment: Moment | None) -> None:
        self._moment, self._begun = moment, float("inf")

    def is_due(self, now: float, changes: Sequence[float], phases: Phases) -> bool:
        """Whether a start that began `now` seconds ago is to be killed."""
        if self._moment is None:
            return False
        kind, seconds, number, phase = self._moment
        match kind:
            case "any":
                self._begun = 0.0
            case "work" | "write":
                wanted = number if kind == "write" else 1
                if len(changes) >= wanted:
                    self._begun = changes[wanted - 1]
            case "phase":
                if phases.visits(phase) >= number:
                    self._begun = min(self._begun, now)
        return now >= self._begun + seconds
