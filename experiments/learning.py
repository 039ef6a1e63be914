"""One task is learned: head warm-up, then its epochs."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from experiments.examples import DeviceExamples
from experiments.setup import Setup, learning_rate
from experiments.training import Rates, Recorded


class Epoch(NamedTuple):
    """What the progress display is told after each epoch."""

    seed: int
    task: int
    epoch: int
    loss: float
    accuracy: float


Report = Callable[[Epoch], None]


class Start(NamedTuple):
    """Where a task begins. Training copies what it changes, so that it can begin again."""

    task: int
    seed: int
    params: Any
    opt_state: Any
    memory: Any
    examples: DeviceExamples
    recorded: Recorded
    key: jax.Array


class Trained(NamedTuple):
    """What training on a task leaves."""

    params: Any
    opt_state: Any
    rates: Rates
    losses: tuple[float, ...]


def train(
    setup: Setup, start: Start, rates: Rates, report: Report, *, protected: bool = True
) -> Trained:
    """The network after all epochs of a task; not `protected`, as though it were the first one.

    Raises:
      FloatingPointError: the loss is NaN or infinite; names epoch, task and seed.
    """
    method, config = setup.method, setup.config
    memory, recorded = (start.memory, start.recorded) if protected else (None, Recorded())
    # Copies: what an epoch is given it overwrites.
    params, opt_state = jax.tree.map(jnp.copy, (start.params, start.opt_state))
    params = _warm_up(setup, start, params, rates)
    opt_state = method.begin_task(opt_state, memory, params)
    losses, epochs = [], method.epochs(config.epochs)
    for epoch in range(epochs):
        params, opt_state, info = setup.learner.train_epoch(
            params,
            opt_state,
            start.examples,
            recorded,
            jax.random.fold_in(start.key, epoch),
            rates._replace(
                learning_rate=learning_rate(config, float(rates.learning_rate), epoch, epochs)
            ),
            setup.trained_heads[start.task],
        )
        losses.append(float(info.loss))
        if not math.isfinite(losses[-1]):
            raise FloatingPointError(
                f"training diverged: loss {losses[-1]} in epoch {epoch + 1} of task "
                f"{setup.task_names[start.task]}, seed {start.seed}. Lower --learning-rate or the "
                "method's strength"
            )
        report(Epoch(start.seed, start.task, epoch, losses[-1], float(info.accuracy)))
    return Trained(params, opt_state, rates, tuple(losses))


def _warm_up(setup: Setup, start: Start, params: Any, rates: Rates) -> Any:
    """`params` after a head that is new has been trained alone, everything else frozen."""
    is_new = setup.network.scenario == "task" or start.task == 0
    if not is_new or not setup.config.head_warmup_epochs:
        return params
    examples = setup.measured(start.task)
    features = setup.learner.features(params, examples)
    heads, opt_state = params["heads"], setup.base.init(params["heads"])
    rate = setup.config.head_learning_rate(float(rates.learning_rate))
    for epoch in range(setup.config.head_warmup_epochs):
        # Apart from the keys of the epochs that follow.
        key = jax.random.fold_in(start.key, 2**30 + epoch)
        heads, opt_state = setup.learner.warm_up_heads(
            heads, opt_state, features, examples, key, rate
        )
    return {**params, "heads": heads}
