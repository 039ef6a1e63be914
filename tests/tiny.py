"""A sequence small enough to learn in a test: three tasks of two Gaussian clusters each."""

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from experiments.config import SplitConfig
from experiments.data.sequences import split_by_classes
from experiments.data.types import Examples, Splits, Task
from experiments.methods import MAS, METHODS, Method
from experiments.registry import Experiment


def _methods() -> dict[str, Method]:
    plain = {name: METHODS[name] for name in ("finetune", "joint")}
    return {**plain, "mas": MAS(strength=0.2)}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tiny(SplitConfig):
    """Three tasks of two clusters in eight dimensions."""

    published: ClassVar[Mapping[str, Mapping[str, float]]] = {
        "a paper": {"average_accuracy": 0.5, "backward_transfer": -0.25}
    }

    classes: tuple[tuple[int, ...], ...] = ((4, 1), (2, 3), (0, 5))
    methods: dict[str, Method] = dataclasses.field(default_factory=_methods)
    hidden_sizes: tuple[int, ...] = (6,)
    epochs: int = 3
    batch_size: int = 16
    learning_rate: float = 0.05
    seeds: int = 2


def splits() -> Splits:
    """Classes of 25 to 50 examples, so that batches are ragged."""
    rng = np.random.default_rng(0)
    centres = 2.0 * rng.normal(size=(6, 8))

    def examples(sizes: list[int]) -> Examples:
        labels = np.repeat(np.arange(6, dtype=np.int32), sizes)
        inputs = centres[labels] + rng.normal(size=(len(labels), 8))
        return Examples(inputs.astype(np.float32), labels)

    return Splits(examples([25, 30, 35, 40, 45, 50]), examples([20] * 6))


def tasks(validation_fraction: float = 0.0) -> tuple[Task, ...]:
    """The splits cut into tasks, 75 examples each."""
    return split_by_classes(splits(), Tiny().classes, validation_fraction=validation_fraction)


EXPERIMENT = Experiment(Tiny(), lambda config: tasks(config.validation_fraction))
"""What a test registers."""
