"""Do pictures starve the device? `python -m experiments.benchmarks.pictures`.

Times an epoch of training as experiments do it, from bytes on the device to an optimizer's step,
with pictures drawn, shifted and mirrored, and with their middles; beside it the bare step, forward
and backward and the optimizer, on one batch that is ready. Ratios of about 1 say that nothing
waits.
"""

import dataclasses
import json
import statistics
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro

from experiments import loops, results, trunks
from experiments.benchmarks.timing import measured_in_turns, ratio
from experiments.data.types import Examples
from experiments.examples import DeviceExamples, to_device
from experiments.networks import Network
from experiments.training import Rates, Recorded, make_learner
from experiments.views import Views


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Time training on pictures, in one process, in turns."""

    backbone: str = "squeezenet1_0_caffe"
    """The network."""
    side: int = 64
    """Pixels of the square that it sees."""
    kept_side: int = 72
    """Pixels of the squares that are kept."""
    batch_size: int = 64
    """Pictures per step."""
    steps: int = 2
    """Steps per timing."""
    repeats: int = 7
    """Timings of each kind; their medians are compared."""


def main(options: Options) -> None:
    """Print the ratios, and everything else as JSON."""
    examples = _examples(options)
    runners = {
        "drawn": _epoch(options, Views(options.side, shifted=True, mirrored=(True,)), examples),
        "middle": _epoch(options, Views(options.side), examples),
        "step": _bare_step(options, examples),
    }
    seconds = measured_in_turns(runners, options.repeats)
    for name in ("drawn", "middle"):
        median, low, high = ratio(seconds[name], seconds["step"])
        print(f"{name}: {median:.3f} × the bare step (quartiles {low:.3f} to {high:.3f})")
    pictures = options.batch_size * options.steps
    report = {
        "milliseconds_per_picture": {
            name: round(1e3 * statistics.median(times) / pictures, 3)
            for name, times in seconds.items()
        },
        "options": dataclasses.asdict(options),
        "versions": results.versions(),
        "machine": results.machine(),
    }
    print(json.dumps(report, indent=1))


def _examples(options: Options) -> DeviceExamples:
    """As many random pictures of ten classes as a timing takes."""
    rng = np.random.default_rng(0)
    count = options.batch_size * options.steps
    shape = (count, options.kept_side, options.kept_side, 3)
    pictures = rng.integers(0, 256, shape, np.uint8)
    return to_device([(0, Examples(pictures, np.arange(count, dtype=np.int32) % 10))], count)


def _network(options: Options, views: Views) -> Network:
    return Network(trunks.find(options.backbone), ((True,) * 10,), views=views, stepwise=True)


def _epoch(options: Options, views: Views, examples: DeviceExamples) -> Callable[[], None]:
    """A function that trains for an epoch of `steps` steps, and waits."""
    network = _network(options, views)
    sgd = optax.inject_hyperparams(optax.sgd)(1e-5, momentum=0.9)
    learner = make_learner(network, sgd, sgd, _no_extra_loss, options.batch_size)
    params = learner.init(jax.random.key(0), examples)
    state = [params, learner.init_optimizer(params)]
    trained = np.ones(network.num_outputs, bool)

    def run() -> None:
        *state[:], _ = learner.train_epoch(
            *state, examples, Recorded(), jax.random.key(1), Rates(1e-5, 0.0), trained
        )
        jax.block_until_ready(state)

    return run


def _bare_step(options: Options, examples: DeviceExamples) -> Callable[[], None]:
    """A function that does `steps` steps on one batch of squares of the right size, and waits."""
    network = _network(options, Views())
    batch, labels = jax.tree.map(
        lambda x: x[: options.batch_size], (examples.batch, examples.labels)
    )
    batch = batch._replace(inputs=Views(options.side).middle(batch.inputs).astype(jnp.float32))
    sgd = optax.sgd(1e-5, momentum=0.9)
    params = network.init(jax.random.key(0), batch)
    state: list[Any] = [params, sgd.init(params)]

    def loss_fn(params: Any) -> jax.Array:
        # With dropout, as in training.
        seen = network.seen(params, batch, jax.random.key(2))
        return network.losses(seen.outputs, batch.tasks, labels)[0].mean()

    def step(params: Any, opt_state: Any) -> Any:
        updates, opt_state = sgd.update(jax.grad(loss_fn)(params), opt_state, params)
        return optax.apply_updates(params, updates), opt_state

    compiled = jax.jit(step, donate_argnums=(0, 1), compiler_options=loops.compiler_options())

    def run() -> None:
        for _ in range(options.steps):
            state[:] = compiled(*state)
        jax.block_until_ready(state)

    return run


def _no_extra_loss(*_: Any) -> jax.Array:
    """Nothing is recorded, so that nothing is added."""
    return jnp.zeros(())


if __name__ == "__main__":
    main(tyro.cli(Options))
