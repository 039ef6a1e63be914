"""Loops over batches of rows: one compiled program, or a compiled step that the host calls."""

import functools
from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

Step: TypeAlias = Callable[..., tuple[Any, Any]]
"""(carry, batch, weights (B,), number, *constants) -> (carry, report)."""

Loop: TypeAlias = Callable[..., tuple[Any, Any]]
"""(carry, rows (S, B), weights (S, B), examples, *constants) -> (carry, reports, stacked).

A step is given the rows of `examples`, a pytree of (N, …) arrays, that are its batch. Batches of
which no row counts, those with weights of 0 alone, are skipped; their reports are 0.
"""

_CPU_OPTIONS = {"xla_cpu_experimental_ynn_fusion_type": "", "xla_cpu_use_onednn": True}
"""XLA's older ways with a convolution, twice as fast as YNNPACK's of jax 0.10 and 0.12."""


def make_loop(step: Step, *, stepwise: bool, **jit_options: Any) -> Loop:
    """The loop that takes `step` for every batch.

    Args:
      step: what is done with a batch.
      stepwise: whether the host calls it, compiled, for each batch, so that what it does can be
        large: XLA on a CPU runs convolutions inside a loop without threads, ten times slower.
        What is compiled does not depend on how many examples there are. Otherwise the loop is a
        scan, for a caller's program.
      **jit_options: how the step is compiled where it is called by the host, which gives `carry`
        away.
    """
    return _from_host(step, jit_options) if stepwise else functools.partial(_scan, step)


def _scan(
    step: Step,
    carry: Any,
    rows_SxB: jax.Array,
    weights_SxB: jax.Array,
    examples: Any,
    *constants: Any,
) -> tuple[Any, Any]:
    """The loop as part of a program."""
    nothing = _no_report(step, carry, rows_SxB, weights_SxB, examples, *constants)

    def scan_step(carry: Any, xs: Any) -> tuple[Any, Any]:
        rows, *rest = xs
        # A step of filling alone must not happen: momentum would move the parameters.
        return jax.lax.cond(
            rest[0].any(),
            lambda carry: step(carry, _taken(examples, rows), *rest, *constants),
            lambda carry: (carry, nothing),
            carry,
        )

    return jax.lax.scan(scan_step, carry, (rows_SxB, weights_SxB, jnp.arange(len(rows_SxB))))


def _from_host(step: Step, jit_options: dict[str, Any]) -> Loop:
    """The loop as calls of a program."""
    options = {"compiler_options": compiler_options(), **jit_options}
    compiled = jax.jit(step, donate_argnums=0, **options)

    def loop(
        carry: Any,
        rows_SxB: jax.Array,
        weights_SxB: jax.Array,
        examples: Any,
        *constants: Any,
    ) -> tuple[Any, Any]:
        reports = {}
        for number in np.flatnonzero(np.any(np.asarray(weights_SxB), axis=1)).tolist():
            batch = _batch(examples, rows_SxB, number)
            carry, reports[number] = compiled(carry, batch, weights_SxB[number], number, *constants)
        if reports:
            nothing = jax.tree.map(jnp.zeros_like, next(iter(reports.values())))
        else:
            # Traces the step, which is seconds for a large one.
            nothing = _no_report(step, carry, rows_SxB, weights_SxB, examples, *constants)
        every = [reports.get(number, nothing) for number in range(len(rows_SxB))]
        return carry, jax.tree.map(lambda *each: jnp.stack(each), *every)

    return loop


def _taken(examples: Any, rows: jax.Array) -> Any:
    """These rows of all arrays."""
    return jax.tree.map(lambda leaf: leaf[rows], examples)


@jax.jit
def _batch(examples: Any, rows_SxB: jax.Array, number: int) -> Any:
    """The rows of one batch."""
    return _taken(examples, rows_SxB[number])


def _no_report(step: Step, carry: Any, rows: Any, weights: Any, examples: Any, *rest: Any) -> Any:
    """What stands for the report of a batch that is skipped."""
    batch = jax.eval_shape(_taken, examples, rows[0])
    like = jax.eval_shape(step, carry, batch, weights[0], 0, *rest)[1]
    return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), like)


@functools.cache
def compiler_options() -> dict[str, Any] | None:
    """Options for XLA that make convolutions faster here; None where it does not know them."""
    if jax.default_backend() != "cpu":
        return None
    try:
        jax.jit(lambda: jnp.zeros(()), compiler_options=_CPU_OPTIONS)()
    except jax.errors.JaxRuntimeError:
        return None
    return _CPU_OPTIONS
