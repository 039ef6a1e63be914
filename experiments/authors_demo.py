"""The MAS authors' demonstration: Split MNIST in their protocol."""

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

from experiments.config import SplitConfig
from experiments.data import mnist
from experiments.data.sequences import split_by_classes
from experiments.data.types import Task
from experiments.methods import Method, every_method

# github.com/rahafaljundi/MAS-Memory-Aware-Synapses, the outputs in its notebook. What it prints as
# forgetting is the accuracy of a task when it was learned minus that at the end.
PUBLISHED = {
    "MAS authors' demo, Ω summed": {"average_accuracy": 0.9886, "backward_transfer": -0.00071},
    "MAS authors' demo, old data kept": {
        "average_accuracy": 0.9927,
        "backward_transfer": -0.00083,
    },
}


def _methods() -> dict[str, Method]:
    methods = every_method(mas=0.1)
    return {name: methods[name] for name in ("finetune", "joint", "mas")}


@dataclasses.dataclass(frozen=True, kw_only=True)
class AuthorsDemo(SplitConfig):
    """Five tasks of two digits each, one head for each task, on real MNIST.

    Claim: MAS with Ω summed over tasks keeps all five: mean final accuracy at least 99.2 %,
    average forgetting at most 0.10 points. Published by the authors, model selected on test
    data: 98.86 % and 0.071 points lost, or 99.27 % and 0.083 when all old data is kept to measure
    Ω again. Run time: 10 minutes on two cores for three methods and ten seeds.

    Theirs: 784-256-256-2, SGD with momentum 0.9; first task 10 epochs, batch 200, rate 0.01; then
    20 epochs, batch 150, rate 0.001 with Ω summed and 0.01 with old data kept; λ = 1 with gradient
    2λΩ(θ − θ*); Ω of the batch's gradient. Ours: the same network and momentum; 20 epochs, batch
    200, rate 0.05 falling along a cosine, for every task; Ω per sample and summed. Strength and
    rate were chosen for MAS on held-out training examples, `python -m experiments tune
    authors_demo`; the other methods run at that rate.

        python -m experiments compare authors_demo --data-dir FOLDER
    """

    published: ClassVar[Mapping[str, Mapping[str, float]]] = PUBLISHED

    classes: tuple[tuple[int, ...], ...] = ((1, 2), (3, 4), (5, 6), (7, 8), (9, 0))
    methods: dict[str, Method] = dataclasses.field(default_factory=_methods)
    hidden_sizes: tuple[int, ...] = (256, 256)
    epochs: int = 20
    batch_size: int = 200
    learning_rate: float = 0.05
    seeds: int = 10


def tasks(config: AuthorsDemo) -> tuple[Task, ...]:
    """MNIST, from `config.data_dir` or wherever `mnist.load` finds it, cut into tasks."""
    return split_by_classes(
        mnist.load(config.data_dir),
        config.classes,
        validation_fraction=config.validation_fraction,
    )
