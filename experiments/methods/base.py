"""What a continual-learning method is: what it adds to plain training on each new task."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import optax
from jax.sharding import Mesh

from experiments.networks import Batch
from experiments.training import DeviceExamples


class Learned(NamedTuple):
    """What a method is shown of a task that has just been learned."""

    name: str
    params: Any
    examples: DeviceExamples  # the task's training examples
    apply_fn: Callable[[Any, Batch], Any]  # the network's outputs, other tasks' heads at 0
    mesh: Mesh | None = None  # of all devices, where the run uses them


@dataclasses.dataclass(frozen=True)
class Method:
    """Plain training; a method overrides what it does differently.

    It keeps no state itself: what it carries from task to task is its memory, a pytree that it is
    given and returns, None before the first task.
    """

    def transformation(self) -> optax.GradientTransformation:
        """What is chained before the optimizer."""
        return optax.identity()

    def training_tasks(self, task: int) -> Sequence[int]:
        """The tasks whose training examples are used while `task` is learned."""
        return (task,)

    def begin_task(self, opt_state: Any, memory: Any) -> Any:
        """The optimizer's state for a new task, given a fresh one."""
        del memory
        return opt_state

    def end_task(self, memory: Any, learned: Learned) -> Any:
        """The memory after a task."""
        del learned
        return memory

    def save_memory(self, memory: Any, folder: Path, learned: Learned) -> None:
        """Keep the memory, given as NumPy arrays, on disk.

        Done again for the same task, it leaves the same thing. Of several processes one does it.
        """

    def load_memory(self, params: Any, folder: Path, task: str) -> Any:
        """The memory that `save_memory` kept after `task`; `params` as NumPy arrays."""
        del params, folder, task

    def importance(self, memory: Any) -> Any:
        """Ω in the memory, for the report's histograms; None for a method without one."""
        del memory
