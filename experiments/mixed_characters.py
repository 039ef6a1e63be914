"""Mixed characters: five tasks from five data sets, a head for each."""

import dataclasses
from typing import Literal

from experiments.config import DenseConfig
from experiments.data import mixed
from experiments.data.types import Task
from experiments.methods import Method, every_method

STRENGTHS = {
    "l2": 0.1,
    "ewc": 1_000.0,
    "si": 1_000.0,
    "lwf": 4.0,
    "ebll": 4.0,
    "imm": 0.001,
    "mas": 100.0,
    "lmas": 30.0,
    "alpha": 100.0,
}
"""Chosen by `tune` on held-out training examples, one seed a point; ebll's and alpha's are those of
lwf and mas."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class MixedCharacters(DenseConfig):
    """Five tasks from different data sets: digits, clothes, an alphabet, letters, small digits.

    MNIST, Fashion-MNIST, Omniglot's Glagolitic, the capital letters of Chars74K and scikit-learn's
    digits, all grey and 28 pixels wide; 10, 10, 45, 26 and 10 classes, 60,000 to 675 training
    examples. Claim: penalties that hold forget next to nothing, and learn the middle tasks less
    well than fine-tuning does. Published numbers: none for this sequence. An epoch is 200 steps for
    each task, large or small; each head is warmed up for one epoch before its task. Strengths were
    chosen on held-out training examples. Run time: half an hour on two cores for 16 methods and
    three seeds, half of it for the vector output.

        python -m experiments compare mixed_characters --data-dir FOLDER
    """

    methods: dict[str, Method] = dataclasses.field(
        default_factory=lambda: every_method(**STRENGTHS)
    )
    hidden_sizes: tuple[int, ...] = (400, 400)
    epochs: int = 5
    steps_per_epoch: int | None = 200
    head_warmup_epochs: int = 1
    batch_size: int = 128
    optimizer: Literal["sgd", "adam"] = "adam"
    learning_rate: float = 1e-3
    seeds: int = 3


def tasks(config: MixedCharacters) -> tuple[Task, ...]:
    """The five data sets."""
    return mixed.load(config.data_dir, validation_fraction=config.validation_fraction)
