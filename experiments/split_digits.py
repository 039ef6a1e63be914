"""Split digits: the demonstration that needs no download."""

import dataclasses

from experiments.config import SequenceConfig
from experiments.data import digits
from experiments.data.types import Splits
from experiments.methods import MAS, FineTune, Joint, Method


def _methods() -> dict[str, Method]:
    return {"finetune": FineTune(), "joint": Joint(), "mas": MAS(strength=1.0)}


@dataclasses.dataclass(frozen=True, kw_only=True)
class SplitDigits(SequenceConfig):
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


def load(config: SplitDigits) -> Splits:
    """The digits; nothing of `config` changes them."""
    del config
    return digits.load()
