"""The experiments, by name."""

import difflib
from collections.abc import Callable
from typing import Any, NamedTuple

from experiments import split_digits, split_mnist
from experiments.config import SequenceConfig
from experiments.data.types import Splits


class Experiment(NamedTuple):
    """A config with its defaults, and the data it is about."""

    config: SequenceConfig
    load: Callable[[Any], Splits]


EXPERIMENTS: dict[str, Experiment] = {
    "split_digits": Experiment(split_digits.SplitDigits(), split_digits.load),
    "split_mnist": Experiment(split_mnist.SplitMNIST(), split_mnist.load),
}


def nearest(kind: str, name: str, known: list[str]) -> ValueError:
    """The error for an unknown name, with the one probably meant."""
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else "."
    return ValueError(f"no {kind} is called {name!r}{hint} There are: {', '.join(known)}")


def find(name: str) -> Experiment:
    """The experiment of that name; ValueError with the nearest name where there is none."""
    if name not in EXPERIMENTS:
        raise nearest("experiment", name, list(EXPERIMENTS))
    return EXPERIMENTS[name]
