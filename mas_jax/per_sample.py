"""Σ_k w_k red(g_k) over the samples of one batch: the engines' common face, and the vmap engine.

An engine sees one batch. It returns the weighted sum over samples of the *reduced* gradient
(absolute value or square, taken per sample, before any sum) and, per sample, the outputs and
whether they were finite. What a stream of batches adds up to is `importance.py`'s business.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, TypeAlias

import jax
import jax.numpy as jnp

from mas_jax import trees
from mas_jax.microbatches import default_budget, fitting_size, sum_over_microbatches
from mas_jax.types import ApplyFn, Batch, Importance, Objective, Outputs, Params, at_least_float32

ReduceFn: TypeAlias = Callable[[jax.Array], jax.Array]
"""red: elementwise, and multiplicative: red(a b) = red(a) red(b)."""


class BatchSums(NamedTuple):
    """What an engine returns for a batch of B samples."""

    sums: Importance  # Σ_k w_k red(g_k), one array per covered leaf
    finite: jax.Array  # (B,) bool: were the outputs for this sample finite?
    outputs: Outputs  # (B, ...) leaves: what apply_fn returned


class Engine(Protocol):
    """From parameters, the tree of bools that covers them, a batch and weights (B,) to sums."""

    def __call__(
        self, params: Params, covered: Any, batch: Batch, weights: jax.Array
    ) -> BatchSums: ...


class BatchTotals(NamedTuple):
    """What is kept of a batch: sums over its samples, wherever these were computed."""

    sums: Importance  # Σ_k w_k red(g_k) over finite samples
    weight: jax.Array  # (), Σ_k w_k over finite samples
    first_nonfinite: jax.Array  # () int32: row of the first other sample of weight > 0, or -1
    outputs: Outputs


def batch_totals(
    engine: Engine, params: Params, covered: Any, batch: Batch, weights: jax.Array
) -> BatchTotals:
    """An engine's answer for one batch, summed up."""
    sums, finite, outputs = engine(params, covered, batch, weights)
    nonfinite = ~finite & (weights > 0)
    first = jnp.where(nonfinite.any(), jnp.argmax(nonfinite), -1)
    return BatchTotals(
        sums, jnp.where(finite, weights, 0.0).sum(), first.astype(jnp.int32), outputs
    )


def vmap_engine(
    apply_fn: ApplyFn,
    objective: Objective,
    reduce_fn: ReduceFn,
    microbatch_size: int | None = None,
    memory_budget: int | None = None,
) -> Engine:
    """Build the reference engine: `vmap(grad)`, which holds microbatch × parameters gradients.

    Samples whose outputs are not finite, and samples of weight 0, add exactly nothing.
    """
    value_fn = sample_value_fn(apply_fn, objective)

    def engine(params: Params, covered: Any, batch: Batch, weights: jax.Array) -> BatchSums:
        selected = trees.select(params, covered)

        def chunk_fn(chunk: Batch, weights_B: jax.Array) -> BatchSums:
            grad_fn = jax.grad(
                lambda chosen, sample: value_fn(trees.overlay(params, chosen), sample), has_aux=True
            )
            grads, (finite_B, outputs) = jax.vmap(grad_fn, in_axes=(None, 0))(selected, chunk)
            weights_B = jnp.where(finite_B, weights_B, 0.0)
            sums = jax.tree.map(lambda grad: weighted_sum(reduce_fn, grad, weights_B), grads)
            return BatchSums(sums, finite_B, outputs)

        gradient_bytes = sum(4 * jnp.size(leaf) for leaf in jax.tree.leaves(selected))
        size = microbatch_size or fitting_size(gradient_bytes, memory_budget or default_budget())
        return BatchSums(*sum_over_microbatches(chunk_fn, selected, batch, weights, size))

    return engine


ValueFn: TypeAlias = Callable[[Params, Batch], tuple[jax.Array, tuple[jax.Array, Outputs]]]
"""(params, one sample) -> the objective, (whether outputs and objective are finite, outputs)."""


def sample_value_fn(apply_fn: ApplyFn, objective: Objective) -> ValueFn:
    """What is differentiated: the objective of the outputs for one sample."""

    def value_fn(params: Params, sample: Batch) -> tuple[jax.Array, tuple[jax.Array, Outputs]]:
        outputs = apply_fn(params, jax.tree.map(lambda x: x[None], sample))
        check_batched_outputs(outputs)
        outputs = jax.tree.map(lambda leaf: leaf[0], outputs)
        value = jnp.asarray(objective(outputs))
        if value.shape != () or not jnp.issubdtype(value.dtype, jnp.floating):
            raise ValueError(
                "objective must return a real scalar for the outputs of one sample, "
                f"got {value.dtype}{list(value.shape)}"
            )
        finite = jnp.isfinite(value)
        for leaf in jax.tree.leaves(outputs):
            if jnp.issubdtype(leaf.dtype, jnp.inexact):
                finite &= jnp.isfinite(leaf).all()
        return value, (finite, outputs)

    return value_fn


def check_batched_outputs(outputs: Outputs) -> None:
    """Raise ValueError unless every output leaf kept the batch axis (of one sample here)."""
    for path, leaf in trees.leaves_by_path(outputs).items():
        if jnp.ndim(leaf) == 0 or jnp.shape(leaf)[0] != 1:
            raise ValueError(
                f"apply_fn's output {trees.path_name(path)} has shape {jnp.shape(leaf)} for a "
                "batch of 1 sample, wanted a leading axis of 1. apply_fn returns the outputs "
                "per sample, batched on axis 0, not a loss or a mean over the batch"
            )


def weighted_sum(reduce_fn: ReduceFn, grads: jax.Array, weights_B: jax.Array) -> jax.Array:
    """Σ_k w_k red(g_k) in float32 or wider."""
    return jnp.sum(weighted(reduce_fn, grads, weights_B), axis=0)


def weighted(reduce_fn: ReduceFn, grads: jax.Array, weights_B: jax.Array) -> jax.Array:
    """w_k red(g_k), and 0 for samples of weight 0, NaN or not (0 · NaN would be NaN)."""
    dtype = at_least_float32(grads.dtype)
    weights = weights_B.astype(dtype).reshape(-1, *[1] * (grads.ndim - 1))
    return jnp.where(weights > 0, weights * reduce_fn(grads.astype(dtype)), 0.0)
