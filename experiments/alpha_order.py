"""Does balancing the tasks' importances help? Split MNIST with its first task in every place."""

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

from experiments.methods import Method, every_method
from experiments.split_mnist import SplitMNIST

FIRST = (0, 1)
OTHERS = ((2, 3), (4, 5), (6, 7), (8, 9))
STRENGTH = 3.0
"""λ, that of split_mnist."""


def _methods() -> dict[str, Method]:
    methods = every_method(mas=STRENGTH, alpha=STRENGTH)
    return {name: methods[name] for name in ("mas", "alpha")}


@dataclasses.dataclass(frozen=True, kw_only=True)
class AlphaOrder(SplitMNIST):
    """MAS with summed and with balanced importance, the tasks' total strength the same.

    Claim: to be tested; from a public repository with one seed and another total strength for the
    two: balancing takes the average forgetting from 0.066 to 0.032 %, and that of the first task,
    as it moves from the fifth place to the first, from up to 0.14 to up to 0.03 %. Here: ten
    seeds, the task 0/1 in each of the five places (alpha_order_1 to alpha_order_5), and
    Σ_t α_t ΣΩ_t = Σ_t ΣΩ_t at the same λ. Run time: two minutes on two cores for each place.

        python -m experiments compare alpha_order_1 --data-dir FOLDER
        python -m experiments.analyses.alpha_order runs
    """

    published: ClassVar[Mapping[str, Mapping[str, float]]] = {}

    methods: dict[str, Method] = dataclasses.field(default_factory=_methods)


def _in_place(place: int) -> AlphaOrder:
    """The config with the task 0/1 as number `place`; of a class of its own, as all configs are."""
    order = (*OTHERS[: place - 1], FIRST, *OTHERS[place - 1 :])
    # The default of a field, so that the command line's options start from it.
    fields = [("classes", tuple[tuple[int, ...], ...], dataclasses.field(default=order))]
    config_class = dataclasses.make_dataclass(
        f"AlphaOrder{place}", fields, bases=(AlphaOrder,), frozen=True, kw_only=True
    )
    description = AlphaOrder.__doc__ or ""
    config_class.__doc__ = description.replace(
        "compare alpha_order_1", f"compare alpha_order_{place}"
    )
    return config_class()


CONFIGS = {f"alpha_order_{place}": _in_place(place) for place in range(1, 6)}
