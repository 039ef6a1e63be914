"""Loops over batches of rows: one compiled program, or a compiled step that the host calls."""

import functools
from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

Step: TypeAlias = Callable[..., tuple[Any, Any]]
"""(carry, rows (B,), weights (B,), number, *constants) -> (carry, report)."""

Loop: TypeAlias = Callable[..., tuple[Any, Any]]
"""(carry, rows (S, B), weights (S, B), *constants) -> (carry, reports, stacked).

Batches of which no row counts, those with weights of 0 alone, are skipped; their reports are 0.
"""

_CPU_OPTIONS = {"xla_cpu_experimental_ynn_fusion_type": "", "xla_cpu_use_onednn": True}
"""XLA's older ways with a convolution, twice as fast as YNNPACK's of jax 0.10 and 0.12."""


def make_loop(step: Step, *, stepwise: bool, **jit_options: Any) -> Loop:
    """The loop that takes `step` for every batch.

    Args:
      step: what is done with a batch.
      stepwise: whether the host calls it, compiled, for each batch, so that what it does can be
        large: XLA on a CPU runs convolutions inside a loop without threads, ten times slower.
        Otherwise the loop is a scan, for a caller's program.
      **jit_options: how the step is compiled where it is called by the host, which gives `carry`
        away.
    """
    return _from_host(step, jit_options) if stepwise else functools.partial(_scan, step)


def _scan(
    step: Step, carry: Any, rows_SxB: jax.Array, weights_SxB: jax.Array, *constants: Any
) -> tuple[Any, Any]:
    """The loop as part of a program."""
    nothing = _no_report(step, carry, rows_SxB, weights_SxB, *constants)

    def scan_step(carry: Any, xs: Any) -> tuple[Any, Any]:
        # A step of filling alone must not happen: momentum would move the parameters.
        return jax.lax.cond(
            xs[1].any(),
            lambda carry: step(carry, *xs, *constants),
            lambda carry: (carry, nothing),
            carry,
        )

    return jax.lax.scan(scan_step, carry, (rows_SxB, weights_SxB, jnp.arange(len(rows_SxB))))


def _from_host(step: Step, jit_options: dict[str, Any]) -> Loop:
    """The loop as calls of a program."""

    def numbered(carry: Any, number: Any, rows_SxB: Any, weights_SxB: Any, *constants: Any) -> Any:
        return step(carry, rows_SxB[number], weights_SxB[number], number, *constants)

    compiled = jax.jit(
        numbered, donate_argnums=0, compiler_options=compiler_options(), **jit_options
    )

    def loop(
        carry: Any, rows_SxB: jax.Array, weights_SxB: jax.Array, *constants: Any
    ) -> tuple[Any, Any]:
        nothing = _no_report(step, carry, rows_SxB, weights_SxB, *constants)
        counts, reports = np.any(np.asarray(weights_SxB), axis=1).tolist(), []
        for number in range(len(counts)):
            report = nothing
            if counts[number]:
                carry, report = compiled(carry, number, rows_SxB, weights_SxB, *constants)
            reports.append(report)
        return carry, jax.tree.map(lambda *each: jnp.stack(each), *reports)

    return loop


def _no_report(step: Step, carry: Any, rows: Any, weights: Any, *constants: Any) -> Any:
    """What stands for the report of a batch that is skipped."""
    like = jax.eval_shape(step, carry, rows[0], weights[0], 0, *constants)[1]
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
