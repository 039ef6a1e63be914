"""The experiments, by name."""

from collections.abc import Callable
from typing import Any, NamedTuple

from experiments import (
    adaptation,
    alpha_order,
    authors_demo,
    fact_learning,
    mixed_characters,
    object_recognition,
    permuted_mnist,
    split_digits,
    split_mnist,
)
from experiments.config import SequenceConfig
from experiments.data.types import Task
from experiments.names import nearest


class Experiment(NamedTuple):
    """A config with its defaults, and the tasks it is about."""

    config: SequenceConfig
    tasks: Callable[[Any], tuple[Task, ...]]


EXPERIMENTS: dict[str, Experiment] = {
    "split_digits": Experiment(split_digits.SplitDigits(), split_digits.tasks),
    "authors_demo": Experiment(authors_demo.AuthorsDemo(), authors_demo.tasks),
    "split_mnist": Experiment(split_mnist.SplitMNIST(), split_mnist.tasks),
    "split_mnist_domain": Experiment(split_mnist.SplitMNISTDomain(), split_mnist.tasks),
    "split_mnist_class": Experiment(split_mnist.SplitMNISTClass(), split_mnist.tasks),
    "split_mnist_search": Experiment(split_mnist.SplitMNISTSearch(), split_mnist.tasks),
    "permuted_mnist": Experiment(permuted_mnist.PermutedMNIST(), permuted_mnist.tasks),
    "permuted_mnist_wide": Experiment(permuted_mnist.PermutedMNISTWide(), permuted_mnist.tasks),
    "mixed_characters": Experiment(mixed_characters.MixedCharacters(), mixed_characters.tasks),
    "adaptation": Experiment(adaptation.Adaptation(), adaptation.tasks),
    **{name: Experiment(config, split_mnist.tasks) for name, config in alpha_order.CONFIGS.items()},
    **{
        name: Experiment(config, object_recognition.tasks)
        for name, config in object_recognition.CONFIGS.items()
    },
    "flowers_adaptation": Experiment(
        object_recognition.FlowersAdaptation(), object_recognition.tasks
    ),
    "facts_2": Experiment(fact_learning.FactLearning(), fact_learning.tasks),
    "facts_4": Experiment(fact_learning.FactLearning4(), fact_learning.tasks),
    "facts_adaptation": Experiment(fact_learning.FactAdaptation(), fact_learning.tasks),
}


def find(name: str) -> Experiment:
    """The experiment of that name; ValueError with the nearest name where there is none."""
    if name not in EXPERIMENTS:
        raise nearest("experiment", name, list(EXPERIMENTS))
    return EXPERIMENTS[name]
