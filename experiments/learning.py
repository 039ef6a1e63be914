"""One task is learned: head warm-up, then its epochs."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from experiments.bookmark import Bookmark
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
    setup: Setup,
    start: Start,
    rates: Rates,
    report: Report,
    bookmark: Bookmark | None = None,
    *,
    protected: bool = True,
) -> Trained:
    """The network after all epochs of a task; not `protected`, as though it were the first one.

    With a `bookmark` it goes on after the last epoch kept there, and keeps those that follow.

    Raises:
      FloatingPointError: the loss is NaN or infinite; names epoch, task and seed.
      Preempted: a signal asked to stop.
    """
    bookmark = bookmark or Bookmark()
    method, config = setup.method, setup.config
    memory, recorded = (start.memory, start.recorded) if protected else (None, Recorded())
    params, opt_state, losses = _begin(setup, start, rates, memory, bookmark)
    epochs = method.epochs(config.epochs)
    for epoch in range(len(losses), epochs):
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
        _check_finite(setup, start, losses)
        report(Epoch(start.seed, start.task, epoch, losses[-1], float(info.accuracy)))
        bookmark.keep("training", (params, opt_state), losses=losses)
    return Trained(params, opt_state, rates, tuple(losses))


def _begin(
    setup: Setup, start: Start, rates: Rates, memory: Any, bookmark: Bookmark
) -> tuple[Any, Any, list[float]]:
    """Parameters, the optimizer's state and losses after the last epoch kept, or before any."""
    # Copies: what an epoch is given it overwrites.
    params, opt_state = jax.tree.map(jnp.copy, (start.params, start.opt_state))
    kept = bookmark.found(
        "training", lambda: (params, setup.method.begin_task(opt_state, memory, params))
    )
    if kept is not None:
        return *kept.tree, list(kept.told["losses"])
    bookmark.pass_by()
    params = _warm_up(setup, start, params, rates, bookmark)
    return params, setup.method.begin_task(opt_state, memory, params), []


def _check_finite(setup: Setup, start: Start, losses: list[float]) -> None:
    """Raise FloatingPointError if the latest epoch's loss is no number."""
    if not math.isfinite(losses[-1]):
        raise FloatingPointError(
            f"training diverged: loss {losses[-1]} in epoch {len(losses)} of task "
            f"{setup.task_names[start.task]}, seed {start.seed}. Lower --learning-rate or the "
            "method's strength"
        )


def _warm_up(setup: Setup, start: Start, params: Any, rates: Rates, bookmark: Bookmark) -> Any:
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
        bookmark.pass_by()
    return {**params, "heads": heads}
