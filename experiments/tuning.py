"""Settings chosen without test data: a grid, measured on held-out training examples."""

import dataclasses
import itertools
from collections.abc import Sequence
from typing import NamedTuple

from experiments.config import SequenceConfig
from experiments.results import Result, summary
from experiments.runs import method_of

FIRST_SEED = 1000
"""Seeds for tuning, apart from those whose test results are reported."""


class Candidate(NamedTuple):
    """One point of the grid."""

    name: str
    config: SequenceConfig


def held_out(config: SequenceConfig) -> SequenceConfig:
    """`config` as tuning starts from it: measured on training examples that are held out."""
    return dataclasses.replace(
        config, validation_fraction=0.1, evaluate_on="validation", seeds=3, first_seed=FIRST_SEED
    )


def candidates(
    config: SequenceConfig,
    method: str,
    strengths: Sequence[float],
    learning_rates: Sequence[float],
) -> list[Candidate]:
    """The grid: `config` with each strength and learning rate."""
    tuned = method_of(config, method)
    if "strength" not in {field.name for field in dataclasses.fields(tuned)}:
        raise ValueError(f"method {method!r} has no strength to choose")
    if not strengths or not learning_rates:
        raise ValueError("--strengths and --learning-rates each need at least one value")
    if config.search.enabled:
        raise ValueError("a search would choose each task's strength itself: --no-search.enabled")
    if config.evaluate_on == "test":
        raise ValueError("settings are never chosen on test data: --evaluate-on validation")
    return [
        Candidate(
            f"strength={strength:g},learning_rate={rate:g}",
            dataclasses.replace(
                config,
                learning_rate=rate,
                methods={
                    method: dataclasses.replace(tuned, strength=strength)  # pyright: ignore[reportCallIssue]
                },
            ),
        )
        for strength, rate in itertools.product(strengths, learning_rates)
    ]


def best(names: Sequence[str], measured: Sequence[Result]) -> str:
    """The candidate with the highest mean final accuracy on validation data."""
    accuracy = [summary(result)["average_accuracy"][0] for result in measured]
    return max(zip(accuracy, names, strict=True))[1]
