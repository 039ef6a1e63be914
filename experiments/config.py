"""The settings that every experiment on a sequence of tasks shares."""

import abc
import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeAlias, get_args

import flax.linen as nn
import tyro

from experiments.data.types import Task
from experiments.methods import Method
from experiments.names import nearest
from experiments.networks import MLP, Network, Scenario


def scenario_named(name: str) -> Scenario:
    """The scenario of that name; ValueError with the nearest name where there is none."""
    known = get_args(Scenario)
    if name not in known:
        raise nearest("scenario", name, known)
    return name  # pyright: ignore[reportReturnType] (it is one of them)


ScenarioOption: TypeAlias = Annotated[
    Scenario,
    tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar=f"{{{','.join(get_args(Scenario))}}}",
        instance_from_str=lambda texts: scenario_named(texts[0]),
        is_instance=lambda value: value in get_args(Scenario),
        str_from_instance=lambda value: [value],
    ),
]
"""A scenario as an option of the command line."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Search:
    """Strength and learning rate chosen anew for each task, without data of earlier ones.

    De Lange et al. (2021), "A continual learning survey", section 4: the learning rate with which
    the new task alone is learned best; then a high strength, halved until the new task's
    validation accuracy is within a margin of that.
    """

    enabled: bool = False
    """Whether to search."""
    learning_rates: tuple[float, ...] = (1e-2, 5e-3, 1e-3)
    """Tried without a penalty, the new task alone."""
    first_strength: float = 1e6
    """Where the strength starts."""
    margin: float = 0.02
    """How much of the validation accuracy learned alone may be missing, as a fraction of it."""
    max_halvings: int = 40
    """After so many the strength stays."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SequenceConfig(abc.ABC):
    """A sequence of classification tasks, learned one after the other."""

    published: ClassVar[Mapping[str, Mapping[str, float]]] = {}
    """Fractions to hold the results against, by source and metric."""
    measure: ClassVar[str] = "accuracy"
    """What is measured, a name of `experiments.measures`."""

    methods: dict[str, Method]
    """The methods compared, and their settings."""
    scenario: ScenarioOption = "task"
    """task: a head for each, and known at test time which. domain: one head for all, which class
    within the task? class: one head, which class of all tasks?"""
    epochs: int
    """Passes over a task's training examples."""
    steps_per_epoch: int | None = None
    """Steps that count as one pass, for all tasks the same; smaller ones are gone through several
    times. If not given, an epoch is one pass."""
    head_warmup_epochs: int = 0
    """Before them, passes in which the new task's head alone is trained, everything else frozen.
    One head for all tasks (--scenario domain, class) is new before the first task alone."""
    batch_size: int
    """Examples per training step."""
    optimizer: Literal["sgd", "adam"] = "sgd"
    """Which optimizer."""
    reset_optimizer: bool = True
    """Whether each task starts with a fresh state of it."""
    learning_rate: float
    """Learning rate at the start of each task."""
    schedule: Literal["constant", "cosine"] = "cosine"
    """How the learning rate goes on from there, epoch by epoch within a task."""
    momentum: float = 0.9
    """Momentum of stochastic gradient descent."""
    search: Search = dataclasses.field(default_factory=Search)
    """Strength and learning rate chosen for each task on its own validation examples."""
    validation_fraction: float = 0.0
    """Share of the training examples held out. The share is drawn once, the same for all seeds."""
    evaluate_on: Literal["test", "validation"] = "test"
    """Where accuracy is measured. Settings are chosen on validation, never on test."""
    class_accuracy: bool = False
    """Whether accuracy is recorded class by class, too."""
    seeds: int = 3
    """How many random seeds; each gives one run."""
    first_seed: int = 0
    """The first of them."""
    data_dir: Path | None = None
    """Folder with the data's original files; where absent, MAS_JAX_DATA_DIR, then a download."""

    def __post_init__(self) -> None:
        scenario_named(self.scenario)
        for name in ("epochs", "batch_size", "seeds"):
            _require(getattr(self, name) >= 1, name, getattr(self, name), "at least 1")
        for name in ("first_seed", "head_warmup_epochs"):
            _require(getattr(self, name) >= 0, name, getattr(self, name), "at least 0")
        steps = self.steps_per_epoch
        _require(steps is None or steps >= 1, "steps_per_epoch", steps, "at least 1")
        rate = self.learning_rate
        _require(0 < rate < float("inf"), "learning_rate", rate, "above 0, and finite")
        _require(0 <= self.momentum < 1, "momentum", self.momentum, "in [0, 1)")
        fraction = self.validation_fraction
        _require(0 <= fraction <= 0.9, "validation_fraction", fraction, "in [0, 0.9]")
        _require(
            fraction > 0 or (self.evaluate_on == "test" and not self.search.enabled),
            "validation_fraction",
            fraction,
            "above 0 where something is measured on validation examples",
        )
        _check_search(self.search)

    @abc.abstractmethod
    def trunk(self) -> nn.Module:
        """What all tasks share of the network: from inputs to features."""

    def pretrained(self) -> Any:
        """The trunk's parameters to start from, as NumPy arrays; None to draw them at random."""
        return None

    def digests(self) -> dict[str, str]:
        """Files in `data_dir` that the numbers depend on, beside data sets that are known."""
        return {}

    def head_learning_rate(self, learning_rate: float) -> float:
        """The learning rate of heads that are warmed up, where the network's is `learning_rate`."""
        return learning_rate

    def network(self, heads: tuple[tuple[bool, ...], ...], tasks: Sequence[Task]) -> Network:
        """The network that learns `tasks`; `heads` as it wants them."""
        del tasks
        return Network(self.trunk(), heads, self.scenario)


def _check_search(search: Search) -> None:
    """Raise ValueError, naming the setting, where a search could not work."""
    rates = search.learning_rates
    good = bool(rates) and all(0 < rate < float("inf") for rate in rates)
    _require(good, "search.learning-rates", rates, "above 0, and finite")
    first = search.first_strength
    _require(0 < first < float("inf"), "search.first-strength", first, "above 0, and finite")
    _require(0 <= search.margin < 1, "search.margin", search.margin, "in [0, 1)")
    _require(search.max_halvings >= 0, "search.max-halvings", search.max_halvings, "at least 0")


def _require(good: bool, name: str, value: object, wanted: str) -> None:
    """Raise ValueError, naming the setting, unless `good`."""
    if not good:
        raise ValueError(f"--{name.replace('_', '-')} must be {wanted}, got {value}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class DenseConfig(SequenceConfig):
    """A sequence learned by a multi-layer perceptron."""

    hidden_sizes: tuple[int, ...]
    """Widths of the hidden layers."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _require(min(self.hidden_sizes, default=0) >= 1, "hidden-sizes", self.hidden_sizes, "≥ 1")

    def trunk(self) -> nn.Module:
        return MLP(self.hidden_sizes)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SplitConfig(DenseConfig):
    """A sequence cut from one data set by its classes."""

    classes: tuple[tuple[int, ...], ...]
    """The tasks: which classes each of them tells apart."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _require(len(self.classes) >= 2, "classes", self.classes, "at least two tasks")


# Method options that came later: at these values they are left out, so that folders of runs begun
# before, and what is recorded, stay those of the same settings.
LATER = {"importance_as": "exact"}

# What changes no seed's numbers, and the methods, of which the one that runs is added.
WITHOUT_EFFECT = ("seeds", "first_seed", "data_dir", "methods")


def settings(config: SequenceConfig, method: str) -> dict[str, object]:
    """The settings that determine the numbers of one method, as plain JSON (lists, not tuples)."""
    plain = dataclasses.asdict(config)
    without = (*WITHOUT_EFFECT, *(() if config.search.enabled else ("search",)))
    kept = {name: value for name, value in plain.items() if name not in without}
    if digests := config.digests():
        kept["digests"] = digests
    own = plain["methods"][method].items()
    options = {name: value for name, value in own if LATER.get(name) != value}
    return json.loads(json.dumps({**kept, "method": {"name": method, **options}}))
