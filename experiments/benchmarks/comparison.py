"""One network measured: a plain backward pass, the engines, and a stream of batches.

All in one process, and in turns, so that what slows the machine down slows all of them down:

- plain: one ordinary batched backward pass, the gradient of the batch's mean ‖F‖²;
- fused: Ω of the same batch, by the fused engine;
- vmap: the same by the vmap engine, with the micro-batches that it chooses itself;
- whole: the same with the whole batch at once, which is `vmap(grad)` as one would write it;
- sum and update: a stream's running sum of gradients, and the fused estimator's state.

Why plain and fused are a fair comparison, and the last two another, is told in `passes`. Memory
is what XLA plans for a pass beside its arguments: temporary at the peak, and the result.
"""

import dataclasses
from collections.abc import Collection, Sequence
from typing import Any

import jax
import jax.numpy as jnp

import mas_jax
from experiments.benchmarks import passes
from experiments.benchmarks.models import Network, num_parameters
from experiments.benchmarks.passes import Pass
from experiments.benchmarks.timing import Ratio, measured_in_turns, ratio

Turn = tuple[str, ...]
"""Names of passes that take turns. The slow ones are apart from plain and fused, which would
otherwise start with caches emptied by them."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Measuring:
    """How carefully to measure."""

    repeats: int = 20
    """Rounds of timings; ratios are taken round by round, and their median is reported."""
    vmap_repeats: int = 3
    """Rounds of those with the vmap engine, which is slow."""
    timing_seconds: float = 0.1
    """How long a timing takes at least; what is faster runs several times in it."""
    microbatch_size: int | None = None
    """Samples whose gradients the vmap engine holds at a time; its own choice if not given."""


def measured(
    network: Network,
    turns: Sequence[Turn],
    measuring: Measuring,
    memory_only: Collection[str] = (),
) -> dict[str, Any]:
    """Measure one network: the time of the passes in `turns`, the memory of all named.

    Returns:
      As JSON has it: "title", "batch_size", "parameters"; "largest_difference" of Ω between the
      fused and the vmap engine; "memory", bytes by pass; "turns", a list of seconds by pass, one
      per round.
    """
    apply_fn, params = network.init()
    names = {name for turn in turns for name in turn} | {"fused", "vmap", *memory_only}
    compiled = compiled_passes(apply_fn, params, network.batch(), names, measuring.microbatch_size)
    ours, reference = compiled["fused"].run(), compiled["vmap"].run()
    return {
        "title": network.title,
        "batch_size": network.batch_size,
        "parameters": num_parameters(params),
        "largest_difference": passes.largest_difference(ours, reference),
        "memory": {name: each.memory for name, each in compiled.items()},
        "turns": [_seconds(turn, compiled, measuring) for turn in turns],
    }


def compiled_passes(
    apply_fn: Any,
    params: Any,
    batch: jax.Array,
    names: Collection[str],
    microbatch_size: int | None = None,
) -> dict[str, Pass]:
    """The passes of these names, in the order of the list above."""

    def omega(**options: Any) -> Pass:
        return passes.one_batch(passes.importance, apply_fn, params, batch, **options)

    def stream(fn: Any, state: Any) -> Pass:
        return passes.streaming(fn, state, apply_fn, params, batch)

    makers = {
        "plain": lambda: passes.one_batch(passes.gradient, apply_fn, params, batch),
        "fused": lambda: omega(engine="fused"),
        "vmap": lambda: omega(engine="vmap", microbatch_size=microbatch_size),
        "whole": lambda: omega(engine="vmap", microbatch_size=len(batch)),
        "sum": lambda: stream(passes.add_gradient, jax.tree.map(jnp.zeros_like, params)),
        "update": lambda: stream(
            passes.add_importance, mas_jax.importance_estimator(apply_fn).init(params)
        ),
    }
    return {name: make() for name, make in makers.items() if name in names}


def _seconds(turn: Turn, compiled: dict[str, Pass], measuring: Measuring) -> dict[str, Any]:
    """The seconds of passes that take turns, round by round."""
    repeats = measuring.vmap_repeats if "vmap" in turn else measuring.repeats
    runners = {name: compiled[name].wait for name in turn}
    return measured_in_turns(runners, repeats, measuring.timing_seconds)


def time_ratio(measurements: dict[str, Any], ours: str, theirs: str) -> Ratio:
    """The time of one pass over that of another, which it took turns with."""
    turn = next(turn for turn in measurements["turns"] if ours in turn and theirs in turn)
    return ratio(turn[ours], turn[theirs])


def memory_ratio(measurements: dict[str, Any], ours: str, theirs: str) -> float:
    """The memory of one pass over that of another."""
    return num_bytes(measurements, ours) / num_bytes(measurements, theirs)


def num_bytes(measurements: dict[str, Any], name: str) -> int:
    """What a pass holds beside its arguments."""
    return sum(measurements["memory"][name].values())


def seconds(measurements: dict[str, Any], name: str) -> list[float]:
    """The times of a pass, of the first turn that has it."""
    return next(turn[name] for turn in measurements["turns"] if name in turn)
