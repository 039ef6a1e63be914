"""Do seeds learn faster together? `python -m experiments.benchmarks.seeds`.

One epoch of an experiment's first task for several seeds: one after the other through one compiled
function, as `run` does it, and together through `vmap` of it.
"""

import dataclasses
import functools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import tyro

from experiments.benchmarks.markdown import spread, table, time
from experiments.benchmarks.timing import measured_in_turns, ratio
from experiments.registry import find
from experiments.setup import Setup, prepare
from experiments.training import Rates, Recorded


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Time one epoch of all seeds, in turns."""

    experiment: str = "split_mnist"
    """Whose first task, network and optimizer."""
    seeds: int = 10
    """How many learn."""
    repeats: int = 5
    """Rounds; medians are printed."""
    data_dir: Path | None = None
    """Folder with the data's original files."""


def main(options: Options) -> None:
    """Print the seconds of both ways, and their ratio."""
    entry = find(options.experiment)
    config = dataclasses.replace(entry.config, data_dir=options.data_dir)
    setup = prepare(config, config.methods["finetune"], entry.tasks(config))
    seconds = measured_in_turns(
        {
            "one by one": functools.partial(_one_by_one, setup, options.seeds),
            "together": _together(setup, options.seeds),
        },
        options.repeats,
    )
    ratios = {name: ratio(each, seconds["one by one"]) for name, each in seconds.items()}
    rows = [(name, time(each), spread(ratios[name])) for name, each in seconds.items()]
    print(table((f"{options.seeds} seeds", "time", "/ one by one"), rows))


def _one_by_one(setup: Setup, seeds: int) -> None:
    """Each seed's epoch after the one before."""
    for seed in range(seeds):
        jax.block_until_ready(_epoch(setup, setup.learner.train_epoch, jax.random.key(seed)))


def _together(setup: Setup, seeds: int) -> Any:
    """All seeds' epochs at once."""
    keys = jax.vmap(jax.random.key)(jnp.arange(seeds))
    together = jax.jit(
        jax.vmap(functools.partial(_epoch, setup, setup.learner.train_epoch)),
    )
    return lambda: jax.block_until_ready(together(keys)) and None


def _epoch(setup: Setup, train_epoch: Any, key: jax.Array) -> Any:
    """The parameters of a seed after its first epoch."""
    examples = setup.training(0)
    params = setup.learner.init(key, examples)
    rates = Rates(setup.config.learning_rate, 0.0)
    params, _, _ = train_epoch(
        params,
        setup.learner.init_optimizer(params),
        examples,
        Recorded(),
        key,
        rates,
        setup.trained_heads[0],
    )
    return params


if __name__ == "__main__":
    main(tyro.cli(Options))
