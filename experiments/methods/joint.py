"""Joint training: each task is learned together with all examples of the ones before."""

import dataclasses
from collections.abc import Sequence

from experiments.methods.base import Method


@dataclasses.dataclass(frozen=True, kw_only=True)
class Joint(Method):
    """Joint training on all examples of all tasks so far. The upper reference."""

    passes: int | None = None
    """Epochs for each task, where not the experiment's: those of task t are t times as long."""

    def __post_init__(self) -> None:
        if self.passes is not None and self.passes < 1:
            raise ValueError(f"passes must be at least 1, got {self.passes}")

    def training_tasks(self, task: int) -> Sequence[int]:
        return range(task + 1)

    def learns_first_plainly(self) -> bool:
        return self.passes is None

    def epochs(self, epochs: int) -> int:
        return epochs if self.passes is None else self.passes


METHODS = {"joint": Joint()}
