"""The experiments by name, and those that one command compares together."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
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
from experiments.analyses import adaptation as one_class
from experiments.analyses import eight_tasks, fact_tables, facts_adaptation, two_tasks
from experiments.config import SequenceConfig
from experiments.data.types import Task
from experiments.names import nearest

TableFn = Callable[[Path], str]
"""Makes a table in Markdown, in the paper's layout, of what a run left in a folder."""


class Experiment(NamedTuple):
    """A config with its defaults, the tasks it is about, and the paper's table if it has one."""

    config: SequenceConfig
    tasks: Callable[[Any], tuple[Task, ...]]
    table: TableFn | None = None


class Group(NamedTuple):
    """Experiments that the paper shows in one table, compared by one command.

    Attributes:
      config: the settings they share, with their defaults.
      members: the experiments' names; each has a folder of its name.
      own: the settings in which they differ; each keeps its own of these.
      table: the paper's, of the folder that has theirs.
    """

    config: SequenceConfig
    members: tuple[str, ...]
    own: tuple[str, ...]
    table: TableFn

    def configs(self, shared: SequenceConfig) -> dict[str, SequenceConfig]:
        """Each member's config, with the settings of `shared` but those that are its own.

        Raises ValueError where a member is not registered.
        """
        names = [field.name for field in dataclasses.fields(shared) if field.name not in self.own]
        settings: dict[str, Any] = {name: getattr(shared, name) for name in names}
        return {
            member: dataclasses.replace(find(member).config, **settings) for member in self.members
        }


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
    "adaptation": Experiment(adaptation.Adaptation(), adaptation.tasks, one_class.compared),
    **{name: Experiment(config, split_mnist.tasks) for name, config in alpha_order.CONFIGS.items()},
    **{
        name: Experiment(
            config,
            object_recognition.tasks,
            eight_tasks.compared if name.startswith("eight_objects") else None,
        )
        for name, config in object_recognition.CONFIGS.items()
    },
    "flowers_adaptation": Experiment(
        object_recognition.FlowersAdaptation(), object_recognition.tasks, one_class.compared
    ),
    "facts_2": Experiment(fact_learning.FactLearning(), fact_learning.tasks),
    "facts_4": Experiment(fact_learning.FactLearning4(), fact_learning.tasks),
    "facts_2_published": Experiment(fact_learning.FactLearningPublished(), fact_learning.tasks),
    "facts_4_published": Experiment(fact_learning.FactLearningPublished4(), fact_learning.tasks),
    "facts_adaptation": Experiment(
        fact_learning.FactAdaptation(), fact_learning.tasks, facts_adaptation.compared
    ),
}

GROUPS: dict[str, Group] = {
    "two_tasks": Group(
        object_recognition.TwoTasks(), tuple(two_tasks.PAPERS_NAMES), ("data",), two_tasks.compared
    ),
    "two_tasks_published": Group(
        object_recognition.TWO_TASKS_PUBLISHED,
        tuple(f"{name}_published" for name in two_tasks.PAPERS_NAMES),
        ("data",),
        two_tasks.compared,
    ),
    "facts_published": Group(
        fact_learning.BothFactsPublished(),
        tuple(f"{name}_published" for name in fact_tables.PAPER),
        ("num_tasks",),
        fact_tables.compared,
    ),
    "facts": Group(
        fact_learning.BothFacts(),
        tuple(fact_tables.PAPER),
        ("num_tasks", "epochs"),
        fact_tables.compared,
    ),
}


def find(name: str) -> Experiment:
    """The experiment of that name; ValueError with the nearest name where there is none."""
    if name not in EXPERIMENTS:
        raise nearest("experiment", name, list(EXPERIMENTS))
    return EXPERIMENTS[name]


def name_of(config: SequenceConfig) -> str:
    """The name under which the experiment, or the group, of this config is registered."""
    entries: dict[str, Experiment | Group] = {**EXPERIMENTS, **GROUPS}
    return next(name for name, entry in entries.items() if type(entry.config) is type(config))
