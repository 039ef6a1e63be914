"""Joint training: each task is learned together with all examples of the ones before."""

import dataclasses
from collections.abc import Sequence

from experiments.methods.base import Method


@dataclasses.dataclass(frozen=True, kw_only=True)
class Joint(Method):
    """Joint training on all examples of all tasks so far. The upper reference."""

    def training_tasks(self, task: int) -> Sequence[int]:
        return range(task + 1)
