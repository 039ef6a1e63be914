"""Methods on the tiny sequence, and what they are shown and return on the way."""

import dataclasses
import functools
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments import sequence
from experiments.data.types import Task
from experiments.examples import DeviceExamples
from experiments.methods import METHODS, Method, Stage
from experiments.networks import Scenario
from experiments.results import SeedRecord
from experiments.sequence import Epoch
from experiments.setup import Setup, prepare
from experiments.training import Recorded
from tests import tiny

# The tiny network has six features, which a code of the usual size could copy.
SMALL: dict[str, Method] = {**METHODS, "ebll": dataclasses.replace(METHODS["ebll"], code_size=3)}  # pyright: ignore[reportCallIssue]
"""All methods, as the tiny network can have them."""

CARRIED: dict[str, Any] = {"optimizer": "adam", "learning_rate": 0.02, "reset_optimizer": False}
"""The settings of an optimizer whose state goes on from task to task."""


class StopError(Exception):
    """What a test stops a run with."""


class Record(NamedTuple):
    """A task about to be learned."""

    memory: Any
    stage: Stage
    recorded: Recorded


class End(NamedTuple):
    """A task just learned."""

    before: Any  # the memory
    stage: Stage
    after: Any  # the memory


class Watched:
    """A method, and what it was given and returned."""

    def __init__(self, method: Method) -> None:
        self._method = method
        self.records: list[Record] = []
        self.ends: list[End] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._method, name)

    def record(self, memory: Any, stage: Stage) -> Recorded:
        recorded = self._method.record(memory, stage)
        self.records.append(Record(memory, stage, recorded))
        return recorded

    def end_task(self, memory: Any, stage: Stage) -> Any:
        after = self._method.end_task(memory, stage)
        self.ends.append(End(memory, stage, after))
        return after


class Learned(NamedTuple):
    """What a test looks at."""

    record: SeedRecord
    ends: list[End]
    records: list[Record]


def setup_of(method: Method, scenario: Scenario = "task", **settings: Any) -> Setup:
    """The method on the tiny sequence."""
    return prepare(tiny.Tiny(scenario=scenario, **settings), method, tiny.tasks())


@functools.cache
def prepared(name: str, *, carried: bool = False) -> Setup:
    """Compiled once for all tests of a file."""
    return setup_of(SMALL[name], **(CARRIED if carried else {}))


def learn(
    setup: Setup,
    folder: Path,
    *,
    strength: float | None = None,
    stop_at: tuple[int, int] | None = None,
    stop_after: int | None = None,
) -> Learned:
    """One seed; with another strength no new program is compiled."""
    method = setup.method
    if strength is not None:
        method = dataclasses.replace(method, strength=strength)  # pyright: ignore[reportCallIssue]
    watched: Any = Watched(method)

    def report(epoch: Epoch) -> None:
        if stop_at == (epoch.task, epoch.epoch):
            raise StopError

    watching = setup._replace(method=watched)
    record = sequence.learn(watching, 0, folder, report, stop_after=stop_after)
    return Learned(record, watched.ends, watched.records)


def without_times(record: SeedRecord) -> SeedRecord:
    """What two runs that learn the same have in common."""
    return dataclasses.replace(record, seconds=())


def real(part: DeviceExamples) -> tuple[np.ndarray, np.ndarray]:
    """(inputs, labels) without the filling."""
    size = int(part.size)
    return np.asarray(part.batch.inputs)[:size], np.asarray(part.labels)[:size]


def real_batch(part: DeviceExamples) -> Any:
    """The batch without the filling."""
    return jax.tree.map(lambda x: x[: int(part.size)], part.batch)


def seen(task: Task | int) -> list[int]:
    """The outputs of a task of the tiny sequence that has a head of its own."""
    own = tiny.Tiny().classes[task] if isinstance(task, int) else task.classes
    return sorted(own)
