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


def candidates(
    config: SequenceConfig,
    method: str,
    strengths: Sequence[float],
    learning_rates: Sequence[float],
    seeds: int,
    validation_fraction: float,
) -> list[Candidate]:
    """The grid: `config` with each strength and learning rate, evaluated on validation data."""
    tuned = method_of(config, method)
    if "strength" not in {field.name for field in dataclasses.fields(tuned)}:
        raise ValueError(f"method {method!r} has no strength to choose")
    held_out = dataclasses.replace(
        config,
        validation_fraction=validation_fraction,
        evaluate_on="validation",
        seeds=seeds,
        first_seed=FIRST_SEED,
    )
    return [
        Candidate(
            f"strength={strength:g},learning_rate={rate:g}",
            dataclasses.replace(
                held_out,
                learning_rate=rate,
                methods={method: dataclasses.replace(tuned, strength=strength)},  # type: ignore[call-arg]
            ),
        )
        for strength, rate in itertools.product(strengths, learning_rates)
    ]


def best(names: Sequence[str], measured: Sequence[Result]) -> str:
    """The candidate with the highest mean final accuracy on validation data."""
    accuracy = [summary(result)["average_accuracy"][0] for result in measured]
    return max(zip(accuracy, names, strict=True))[1]
