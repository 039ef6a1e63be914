"""What a continual-learning method is: what it adds to plain training on each new task."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import optax
from jax.sharding import Mesh

from experiments import checkpoint
from experiments.bookmark import Bookmark
from experiments.data.types import Task
from experiments.examples import DeviceExamples
from experiments.networks import Network, Seen
from experiments.training import Recorded


class Stage(NamedTuple):
    """Where a run stands: about to learn a task, or just done with it."""

    network: Network
    task: int
    name: str  # the task's
    classes: tuple[int, ...]  # the task's
    earlier_classes: tuple[int, ...]  # those of the tasks before
    labels: tuple[int, ...]  # the class that each output stands for
    params: Any
    opt_state: Any
    train: DeviceExamples  # the task's training examples
    test: DeviceExamples  # those it is evaluated on
    key: jax.Array  # for what the method draws at random
    bookmark: Bookmark  # where what takes long keeps how far it has come
    mesh: Mesh | None = None  # of all devices, where the run uses them


@dataclasses.dataclass(frozen=True)
class Method:
    """Plain training; a method overrides what it does differently.

    It keeps no state itself: what it carries from task to task is its memory, a pytree that it is
    given and returns, None before the first task.
    """

    strength = 0.0
    """λ, the weight of what the method adds; a field in those that have one."""

    def check(self, tasks: Sequence[Task], network: Network) -> None:
        """Raise ValueError where the method cannot learn `tasks`, or not with `network`."""
        del tasks, network

    def optimizer(
        self, base: optax.GradientTransformation, network: Network
    ) -> optax.GradientTransformation:
        """What trains; `base` is the optimizer alone. A hyperparameter "strength" in it is λ."""
        del network
        return base

    def training_tasks(self, task: int) -> Sequence[int]:
        """The tasks whose training examples are used while `task` is learned."""
        return (task,)

    def trained_heads(self, task: int) -> Sequence[int]:
        """The tasks whose heads learn while `task` is learned."""
        return self.training_tasks(task)

    def epochs(self, epochs: int) -> int:
        """Passes over a task's training examples, given the experiment's number."""
        return epochs

    def learns_first_plainly(self) -> bool:
        """Whether it learns the first task as fine-tuning does, and needs nothing of the way."""
        return True

    def begin_task(self, opt_state: Any, memory: Any, params: Any) -> Any:
        """The optimizer's state for a new task."""
        del memory, params
        return opt_state

    def held(self, opt_state: Any) -> Any:
        """What of the optimizer's state is the method's own, beside the anchor it is given."""
        del opt_state

    def record(self, memory: Any, stage: Stage) -> Recorded:
        """What `extra_loss` holds the new task against; before the first task nothing."""
        del memory, stage
        return Recorded()

    def extra_loss(self, network: Network, seen: Seen, targets: Any, constants: Any) -> jax.Array:
        """(B,): what is added to the cross-entropy, times λ, where `record` returned targets."""
        raise NotImplementedError("a method that records targets has a loss for them")

    def end_task(self, memory: Any, stage: Stage) -> Any:
        """The memory after a task."""
        del stage
        return memory

    def as_stored(self, memory: Any) -> Any:
        """The memory after a task as its files will give it back: a run goes on from that."""
        return memory

    def deployed(self, memory: Any, params: Any) -> Any:
        """The parameters that answer after a task; learning goes on from `params`."""
        del memory
        return params

    def save_memory(self, memory: Any, folder: Path, stage: Stage) -> None:
        """Keep the memory, given as NumPy arrays, on disk.

        Done again for the same task, it leaves the same thing. Of several processes one does it.
        """
        checkpoint.save_tree(folder / f"memory_{stage.task}.msgpack", memory)
        (folder / f"memory_{stage.task - 2}.msgpack").unlink(missing_ok=True)

    @property
    def stores(self) -> tuple[str, ...]:
        """The folders in which `save_memory` keeps an anchor of every task, if it does."""
        return ()

    def load_memory(self, params: Any, folder: Path, task: int, name: str) -> Any:
        """The memory that `save_memory` kept after a task; `params` as NumPy arrays."""
        del params, name
        return checkpoint.load_tree(folder / f"memory_{task}.msgpack")

    def importance(self, memory: Any) -> Any:
        """Ω in the memory, for the report's histograms; None for a method without one."""
        del memory
