"""Split MNIST, in the protocol of the MAS authors' demonstration."""

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

from experiments.config import SequenceConfig
from experiments.data import mnist
from experiments.data.types import Splits
from experiments.methods import MAS, FineTune, Joint, Method

# github.com/rahafaljundi/MAS-Memory-Aware-Synapses, the outputs in its notebook.
PUBLISHED = {
    "MAS authors' demo, Ω summed": {"average_accuracy": 0.9886, "forgetting": 0.00071},
    "MAS authors' demo, old data kept": {"average_accuracy": 0.9927, "forgetting": 0.00083},
}


def _methods() -> dict[str, Method]:
    return {"finetune": FineTune(), "joint": Joint(), "mas": MAS(strength=0.1)}


@dataclasses.dataclass(frozen=True, kw_only=True)
class SplitMNIST(SequenceConfig):
    """Five tasks of two digits each, one head for each task, on real MNIST.

    Claim: MAS with Ω summed over tasks keeps all five: mean final accuracy at least 99.2 %,
    average forgetting at most 0.10 points. Published by the authors, 784-256-256-2, SGD with
    momentum 0.9, batch 200, 20 epochs, model selected on test data: 98.86 % and 0.071 points, or
    99.27 % and 0.083 when all old data is kept to measure Ω again. Here nothing is selected on
    test data: see `python -m experiments tune split_mnist`. Run time: 15 minutes on two cores for
    three methods and ten seeds.

        python -m experiments compare split_mnist --data-dir FOLDER
    """

    published: ClassVar[Mapping[str, Mapping[str, float]]] = PUBLISHED

    classes: tuple[tuple[int, ...], ...] = ((1, 2), (3, 4), (5, 6), (7, 8), (9, 0))
    methods: dict[str, Method] = dataclasses.field(default_factory=_methods)
    hidden_sizes: tuple[int, ...] = (256, 256)
    epochs: int = 20
    batch_size: int = 200
    learning_rate: float = 0.05
    seeds: int = 10


def load(config: SplitMNIST) -> Splits:
    """MNIST, from `config.data_dir` or wherever `mnist.load` finds it."""
    return mnist.load(config.data_dir)
