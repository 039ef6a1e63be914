"""Strength and learning rate for one task, chosen without any data of earlier tasks.

De Lange et al., "A continual learning survey" (2021), section 4, the continual hyperparameter
framework: first the learning rate with which the new task alone is learned best (maximal
plasticity), then the highest strength, halved from a high one, that reaches that validation
accuracy within a margin (stability decay). Test data, and earlier tasks' data, are not looked at.
"""

import math
from typing import NamedTuple

import jax

from experiments.learning import Report, Start, Trained, train
from experiments.setup import Setup
from experiments.training import Rates


class Found(NamedTuple):
    """What a search chose for a task, and the network trained with it."""

    trained: Trained
    validation_accuracy: float
    alone: float  # the validation accuracy of the new task alone

    def numbers(self) -> dict[str, float]:
        """What the record keeps."""
        rates = {name: float(rate) for name, rate in self.trained.rates._asdict().items()}
        return {**rates, "validation_accuracy": self.validation_accuracy, "alone": self.alone}


def search(setup: Setup, start: Start, report: Report) -> Found:
    """The network trained with the rates that are chosen for a task.

    Raises:
      FloatingPointError: training diverged whatever the rates.
    """
    settings = setup.config.search
    alone = [
        _attempt(setup, start, Rates(rate, 0.0), report, protected=False)
        for rate in settings.learning_rates
    ]
    wanted, best = max(alone, key=lambda attempt: attempt[0])
    if best is None:
        raise FloatingPointError(
            f"training diverged with each of the learning rates {settings.learning_rates} in task "
            f"{setup.task_names[start.task]}, seed {start.seed}. Give lower --search.learning-rates"
        )
    if start.memory is None and start.recorded.targets is None:
        # The first task, or a method that holds nothing: there is no strength to choose.
        return Found(best, wanted, wanted)
    return _highest_strength(setup, start, best.rates.learning_rate, wanted, report)


def _highest_strength(
    setup: Setup, start: Start, rate: jax.Array | float, wanted: float, report: Report
) -> Found:
    """Under the highest strength that reaches `wanted` within the margin, or the lowest tried."""
    settings, found = setup.config.search, None
    halvings = range(settings.max_halvings + 1)
    strengths = [settings.first_strength / 2**halving for halving in halvings]
    for strength in strengths:
        accuracy, attempted = _attempt(setup, start, Rates(rate, strength), report)
        found = Found(attempted, accuracy, wanted) if attempted else found
        if accuracy >= (1 - settings.margin) * wanted:
            break
    if found is None:
        raise FloatingPointError(
            f"training diverged with each strength from {strengths[0]:g} down to "
            f"{strengths[-1]:g} in task {setup.task_names[start.task]}, seed {start.seed}. Give a "
            "lower --search.first-strength"
        )
    return found


def _attempt(
    setup: Setup, start: Start, rates: Rates, report: Report, *, protected: bool = True
) -> tuple[float, Trained | None]:
    """The new task's validation accuracy with these rates; −∞ and None where training diverged."""
    try:
        trained = train(setup, start, rates, report, protected=protected)
    except FloatingPointError:
        return -math.inf, None
    accuracy = setup.learner.accuracy(trained.params, setup.validated(start.task))
    return float(accuracy.per_task[start.task]), trained
