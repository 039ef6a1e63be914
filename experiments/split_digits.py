"""Split digits: the demonstration that needs no download."""

import dataclasses

from experiments.config import SplitConfig
from experiments.data import digits
from experiments.data.sequences import split_by_classes
from experiments.data.types import Task
from experiments.methods import Method, every_method


def _methods() -> dict[str, Method]:
    methods = every_method()
    return {name: methods[name] for name in ("finetune", "joint", "mas")}


@dataclasses.dataclass(frozen=True, kw_only=True)
class SplitDigits(SplitConfig):
    """Five tasks of two digits each, from scikit-learn's bundled 8×8 images.

    Claim: with the anchor penalty a small network keeps what it learned; fine-tuned, it does not.
    Published numbers: none; this is the demonstration. Run time: under a minute on two cores.

        python -m experiments compare split_digits
    """

    classes: tuple[tuple[int, ...], ...] = ((1, 2), (3, 4), (5, 6), (7, 8), (9, 0))
    methods: dict[str, Method] = dataclasses.field(default_factory=_methods)
    hidden_sizes: tuple[int, ...] = (64, 64)
    epochs: int = 20
    batch_size: int = 16
    learning_rate: float = 0.05
    seeds: int = 5


def tasks(config: SplitDigits) -> tuple[Task, ...]:
    """The digits, cut into tasks."""
    return split_by_classes(
        digits.load(), config.classes, validation_fraction=config.validation_fraction
    )
