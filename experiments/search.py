"""Strength and learning rate for one task, chosen without any data of earlier tasks.

De Lange et al., "A continual learning survey" (2021), section 4, the continual hyperparameter
framework: first the learning rate with which the new task alone is learned best (maximal
plasticity), then the highest strength, halved from a high one, that reaches that validation
accuracy within a margin (stability decay). Test data, and earlier tasks' data, are not looked at.
"""

import math

import jax

from experiments.learning import Report, Start, Trained, train
from experiments.setup import Setup
from experiments.training import Rates


def search(setup: Setup, start: Start, report: Report) -> Trained:
    """The network trained with the rates that are chosen for a task; they are in what it returns.

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
        return best
    return _highest_strength(setup, start, best.rates.learning_rate, wanted, report)


def _highest_strength(
    setup: Setup, start: Start, rate: jax.Array | float, wanted: float, report: Report
) -> Trained:
    """The network trained under the highest strength that reaches `wanted` within the margin."""
    settings, trained = setup.config.search, None
    halvings = range(settings.max_halvings + 1)
    strengths = [settings.first_strength / 2**halving for halving in halvings]
    for strength in strengths:
        accuracy, attempted = _attempt(setup, start, Rates(rate, strength), report)
        trained = attempted or trained
        if accuracy >= (1 - settings.margin) * wanted:
            break
    if trained is None:
        raise FloatingPointError(
            f"training diverged with each strength from {strengths[0]:g} down to "
            f"{strengths[-1]:g} in task {setup.task_names[start.task]}, seed {start.seed}. Give a "
            "lower --search.first-strength"
        )
    return trained


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
