"""The settings that every experiment on a sequence of tasks shares."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Literal

from experiments.methods import Method


@dataclasses.dataclass(frozen=True, kw_only=True)
class SequenceConfig:
    """A sequence of classification tasks, one head for each, learned one after the other."""

    published: ClassVar[Mapping[str, Mapping[str, float]]] = {}
    """Fractions to hold the results against, by source and metric."""

    classes: tuple[tuple[int, ...], ...]
    """The tasks: which classes each of them tells apart."""
    methods: dict[str, Method]
    """The methods compared, and their settings."""
    hidden_sizes: tuple[int, ...]
    """Widths of the hidden layers."""
    epochs: int
    """Passes over a task's training examples."""
    batch_size: int
    """Examples per training step."""
    learning_rate: float
    """Learning rate at the start of each task."""
    schedule: Literal["constant", "cosine"] = "cosine"
    """How the learning rate goes on from there, epoch by epoch within a task."""
    momentum: float = 0.9
    """Momentum of stochastic gradient descent."""
    validation_fraction: float = 0.0
    """Share of the training examples held out. The share is drawn once, the same for all seeds."""
    evaluate_on: Literal["test", "validation"] = "test"
    """Where accuracy is measured. Settings are chosen on validation, never on test."""
    seeds: int = 3
    """How many random seeds; each gives one run."""
    first_seed: int = 0
    """The first of them."""
    data_dir: Path | None = None
    """Folder with the data's original files; where absent, MAS_JAX_DATA_DIR, then a download."""

    def __post_init__(self) -> None:
        _require(len(self.classes) >= 1, "classes", self.classes, "at least one task")
        _require(min(self.hidden_sizes, default=0) >= 1, "hidden-sizes", self.hidden_sizes, "≥ 1")
        for name in ("epochs", "batch_size", "seeds"):
            _require(getattr(self, name) >= 1, name, getattr(self, name), "at least 1")
        _require(self.first_seed >= 0, "first_seed", self.first_seed, "at least 0")
        rate = self.learning_rate
        _require(0 < rate < float("inf"), "learning_rate", rate, "above 0, and finite")
        _require(0 <= self.momentum < 1, "momentum", self.momentum, "in [0, 1)")
        fraction = self.validation_fraction
        _require(0 <= fraction <= 0.9, "validation_fraction", fraction, "in [0, 0.9]")
        _require(
            fraction > 0 or self.evaluate_on == "test",
            "validation_fraction",
            fraction,
            "above 0 where accuracy is measured on validation examples",
        )


def _require(good: bool, name: str, value: object, wanted: str) -> None:
    """Raise ValueError, naming the setting, unless `good`."""
    if not good:
        raise ValueError(f"--{name.replace('_', '-')} must be {wanted}, got {value}")


# What changes no seed's numbers, and the methods, of which the one that runs is added.
WITHOUT_EFFECT = ("seeds", "first_seed", "data_dir", "methods")


def settings(config: SequenceConfig, method: str) -> dict[str, object]:
    """The settings that determine the numbers of one method, as plain JSON (lists, not tuples)."""
    plain = dataclasses.asdict(config)
    kept = {name: value for name, value in plain.items() if name not in WITHOUT_EFFECT}
    return json.loads(json.dumps({**kept, "method": {"name": method, **plain["methods"][method]}}))
