"""How many per-sample gradients to hold: `python -m experiments.benchmarks.microbatch`."""

import dataclasses
import statistics
from collections.abc import Callable

import jax
import tyro

import mas_jax
from experiments.benchmarks.networks import init, network
from experiments.benchmarks.timing import measured_in_turns


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Time one update of the vmap engine for several micro-batch sizes, in turns."""

    sizes: tuple[int, ...] = (784, 256, 256, 10)
    """Layer widths; the default is Split MNIST's network."""
    batch_size: int = 200
    """Samples per update."""
    microbatch_sizes: tuple[int, ...] = (1, 4, 20, 200)
    """Samples whose gradients are held at a time."""
    repeats: int = 7
    """Timings of each size; medians are printed."""


def main(options: Options) -> None:
    """Print milliseconds per sample for each size."""
    params = init(options.sizes)
    batch = jax.random.normal(jax.random.key(1), (options.batch_size, options.sizes[0]))

    def runner(microbatch_size: int | None) -> Callable[[], None]:
        estimator = mas_jax.importance_estimator(
            network, engine="vmap", microbatch_size=microbatch_size
        )
        state = estimator.init(params)
        return lambda: jax.block_until_ready(estimator.update(state, params, batch)) and None

    sizes = {"default": None, **{str(size): size for size in options.microbatch_sizes}}
    runners = {name: runner(size) for name, size in sizes.items()}
    for name, seconds in measured_in_turns(runners, options.repeats).items():
        milliseconds = 1e3 * statistics.median(seconds) / options.batch_size
        print(f"micro-batch {name}: {milliseconds:.3f} ms per sample")


if __name__ == "__main__":
    main(tyro.cli(Options))
