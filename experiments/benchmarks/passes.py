"""What the benchmarks of importance compare: functions of one batch, compiled, and their cost.

Two comparisons are fair, since both sides do the same job:

- of one batch: from parameters and a batch, the mean gradient (`gradient`) or Ω (`importance`);
- of a stream: the state after a batch from the state before it, donated. Beside the estimator's
  update stands a running sum of gradients (`add_gradient`). The estimator does more: its sums are
  compensated, so that Ω keeps float32's digits however long the stream, and its state is twice
  the size.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

import mas_jax


def gradient(apply_fn: Any, params: Any, batch: jax.Array) -> Any:
    """∂/∂θ of the mean over the batch of ‖F‖²: one ordinary backward pass."""

    def mean(params: Any) -> jax.Array:
        return jax.vmap(mas_jax.squared_l2_norm)(apply_fn(params, batch)).mean()

    return jax.grad(mean)(params)


def importance(apply_fn: Any, params: Any, batch: jax.Array, **options: Any) -> Any:
    """Ω of one batch, with these options of `mas_jax.importance_estimator`."""
    estimator = mas_jax.importance_estimator(apply_fn, **options)
    return estimator.finalize(estimator.update(estimator.init(params), params, batch))


def add_gradient(total: Any, apply_fn: Any, params: Any, batch: jax.Array) -> Any:
    """A running sum of gradients with one batch added."""
    return jax.tree.map(jnp.add, total, gradient(apply_fn, params, batch))


def add_importance(state: Any, apply_fn: Any, params: Any, batch: jax.Array) -> Any:
    """The estimator's state with one batch added by the fused engine."""
    return mas_jax.importance_estimator(apply_fn, engine="fused").update(state, params, batch)


class Pass(NamedTuple):
    """A compiled function with its arguments, and what it holds beside them."""

    run: Callable[[], Any]
    memory: dict[str, int]  # bytes: "temporary", at the peak, and "output"

    def wait(self) -> None:
        """Run, and wait for the result."""
        jax.block_until_ready(self.run())


def one_batch(fn: Callable[..., Any], *args: Any, **options: Any) -> Pass:
    """`fn(*args, **options)`, compiled; arguments may be shapes if it is never run."""
    compiled = jax.jit(functools.partial(fn, **options)).lower(*args).compile()
    return _pass(compiled, lambda: compiled(*args))


def streaming(fn: Callable[..., Any], state: Any, *args: Any) -> Pass:
    """`state = fn(state, *args)`, compiled, the state donated; every run goes on from the last."""
    compiled = jax.jit(fn, donate_argnums=0).lower(state, *args).compile()
    states = [state]

    def run() -> Any:
        states[0] = compiled(states[0], *args)
        return states[0]

    return _pass(compiled, run)


def _pass(compiled: Any, run: Callable[[], Any]) -> Pass:
    """With the memory that XLA planned for it."""
    memory = compiled.memory_analysis()
    return Pass(
        run, {"temporary": memory.temp_size_in_bytes, "output": memory.output_size_in_bytes}
    )


def largest_difference(ours: Any, reference: Any) -> float:
    """The largest difference of two Ωs, relative to the largest entry of its leaf.

    A leaf below 10⁻⁶ of the largest leaf is zero but for rounding (the bias of attention's keys,
    say, which softmax takes out again), and is measured against that largest leaf.
    """
    leaves = jax.tree.leaves(reference)
    largest = max(float(leaf.max()) for leaf in leaves)

    def difference(ours: jax.Array, reference: jax.Array) -> float:
        scale = float(reference.max())
        scale = scale if scale > 1e-6 * largest else largest
        return float(jnp.abs(ours - reference).max()) / scale

    return max(map(difference, jax.tree.leaves(ours), leaves))
