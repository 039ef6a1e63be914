"""What the anchor penalty costs a training step: `python -m experiments.benchmarks.penalty`."""

import dataclasses
import json
import statistics
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
import tyro

import mas_jax
from experiments import results
from experiments.benchmarks.networks import init, network
from experiments.benchmarks.timing import measured_in_turns


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Time a training step of an MLP with and without the penalty, in one process, in turns."""

    sizes: tuple[int, ...] = (784, 892, 892, 10)
    """Layer widths; the default has 1.5 million parameters."""
    batch_size: int = 128
    """Samples per step."""
    steps: int = 30
    """Steps per timing."""
    repeats: int = 40
    """Timings of each kind; their medians are compared."""


def main(options: Options) -> None:
    """Print the ratios, and everything else as JSON."""
    params = init(options.sizes)
    batch = jax.random.normal(jax.random.key(1), (options.batch_size, options.sizes[0]))
    labels = jnp.arange(options.batch_size) % options.sizes[-1]
    omega = mas_jax.estimate_importance(network, params, [batch])
    anchor = mas_jax.consolidate(None, params, omega)

    sgd = optax.sgd(1e-2, momentum=0.9)
    penalised = optax.chain(mas_jax.anchor_penalty(1.0), sgd)
    proximal = optax.chain(sgd, mas_jax.anchor_proximal(1.0, 1e-2))
    starts = {
        "plain": (sgd, sgd.init(params)),
        "anchor_penalty": (penalised, mas_jax.with_anchor(penalised.init(params), anchor)),
        "anchor_proximal": (proximal, mas_jax.with_anchor(proximal.init(params), anchor)),
    }
    runners = {
        name: _runner(optimizer, params, opt_state, batch, labels, options.steps)
        for name, (optimizer, opt_state) in starts.items()
    }
    seconds = measured_in_turns(runners, options.repeats)
    plain = seconds["plain"]
    report = {
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(params)),
        "milliseconds_per_step": {
            name: round(1e3 * statistics.median(times) / options.steps, 3)
            for name, times in seconds.items()
        },
        "options": dataclasses.asdict(options),
        "versions": results.versions(),
        "machine": results.machine(),
    }
    for name in ("anchor_penalty", "anchor_proximal"):
        ratios = [theirs / ours for theirs, ours in zip(seconds[name], plain, strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        print(f"{name}: {middle:.3f} × the step without (quartiles {low:.3f} to {high:.3f})")
    print(json.dumps(report, indent=1))


def _runner(
    optimizer: optax.GradientTransformation,
    params: Any,
    opt_state: Any,
    batch: jax.Array,
    labels: jax.Array,
    steps: int,
) -> Callable[[], None]:
    """A function that does `steps` compiled training steps, state donated, and waits."""

    def loss_fn(params: Any) -> jax.Array:
        logits = network(params, batch)
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    def step(params: Any, opt_state: Any) -> Any:
        updates, opt_state = optimizer.update(jax.grad(loss_fn)(params), opt_state, params)
        return optax.apply_updates(params, updates), opt_state

    compiled = jax.jit(step, donate_argnums=(0, 1))
    state = [jax.tree.map(jnp.copy, params), opt_state]

    def run() -> None:
        for _ in range(steps):
            state[:] = compiled(*state)
        jax.block_until_ready(state)

    return run


if __name__ == "__main__":
    main(tyro.cli(Options))
