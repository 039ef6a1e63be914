"""Σ_k w_k red(g_k) over the samples of one batch: the engines' common face, and the vmap engine.

An engine sees one batch. It returns the weighted sum over samples of the *reduced* gradient
(absolute value or square, taken per sample, before any sum) and, per sample, whether its
outputs were finite. What a stream of batches adds up to is `importance.py`'s business.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp

from mas_jax import compensated, trees
from mas_jax.types import ApplyFn, Batch, Importance, Objective, Outputs, Params, at_least_float32

GRADIENT_MEMORY_BYTES = {"cpu": 2**20, "gpu": 2**28, "tpu": 2**28}
"""Per-sample gradients the vmap engine holds at a time when no micro-batch size is given: what
stays in a CPU core's cache, what fills an accelerator."""


class BatchSums(NamedTuple):
    """What an engine returns for a batch of B samples."""

    sums: Importance  # Σ_k w_k red(g_k), one array per covered leaf
    finite: jax.Array  # (B,) bool: were the outputs for this sample finite?


class Engine(Protocol):
    """From parameters, the tree of bools that covers them, a batch and weights (B,) to sums."""

    def __call__(
        self, params: Params, covered: Any, batch: Batch, weights: jax.Array
    ) -> BatchSums: ...


def vmap_engine(
    apply_fn: ApplyFn,
    objective: Objective,
    reduce_fn: Callable[[jax.Array], jax.Array],
    microbatch_size: int | None = None,
) -> Engine:
    """Build the reference engine: `vmap(grad)`, which holds microbatch × parameters gradients.

    Samples whose outputs are not finite, and samples of weight 0, add exactly nothing.
    """
    value_fn = _single_sample_value(apply_fn, objective)

    def engine(params: Params, covered: Any, batch: Batch, weights: jax.Array) -> BatchSums:
        selected = trees.select(params, covered)

        def chunk_sums(chunk: Batch, weights_B: jax.Array) -> BatchSums:
            grad_fn = jax.grad(
                lambda chosen, sample: value_fn(trees.overlay(params, chosen), sample), has_aux=True
            )
            grads, finite_B = jax.vmap(grad_fn, in_axes=(None, 0))(selected, chunk)
            weights_B = jnp.where(finite_B, weights_B, 0.0)
            sums = jax.tree.map(lambda grad: _weighted_sum(reduce_fn, grad, weights_B), grads)
            return BatchSums(sums, finite_B)

        size = len(weights)
        chunk = min(size, microbatch_size or _fitting_microbatch(selected))
        return _sum_over_chunks(chunk_sums, selected, batch, weights, chunk)

    return engine


def _single_sample_value(
    apply_fn: ApplyFn, objective: Objective
) -> Callable[[Params, Batch], tuple[jax.Array, jax.Array]]:
    """(params, one sample) -> (the objective, whether outputs and objective are finite)."""

    def value_fn(params: Params, sample: Batch) -> tuple[jax.Array, jax.Array]:
        outputs = apply_fn(params, jax.tree.map(lambda x: x[None], sample))
        _check_batched_outputs(outputs)
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
        return value, finite

    return value_fn


def _check_batched_outputs(outputs: Outputs) -> None:
    """Raise ValueError unless every output leaf kept the batch axis (of one sample here)."""
    for path, leaf in trees.leaves_by_path(outputs).items():
        if jnp.ndim(leaf) == 0 or jnp.shape(leaf)[0] != 1:
            raise ValueError(
                f"apply_fn's output {trees.path_name(path)} has shape {jnp.shape(leaf)} for a "
                "batch of 1 sample, wanted a leading axis of 1. apply_fn returns the outputs "
                "per sample, batched on axis 0, not a loss or a mean over the batch"
            )


def _weighted_sum(
    reduce_fn: Callable[[jax.Array], jax.Array], grads: jax.Array, weights_B: jax.Array
) -> jax.Array:
    """Σ_k w_k red(g_k) with samples of weight 0 left out, NaN or not (0 · NaN would be NaN)."""
    dtype = at_least_float32(grads.dtype)
    weights = weights_B.astype(dtype).reshape(-1, *[1] * (grads.ndim - 1))
    reduced = weights * reduce_fn(grads.astype(dtype))
    return jnp.sum(jnp.where(weights > 0, reduced, 0.0), axis=0)


def _fitting_microbatch(selected: Params) -> int:
    """How many samples' gradients fit into GRADIENT_MEMORY_BYTES, at least one."""
    gradient_bytes = sum(4 * jnp.size(leaf) for leaf in jax.tree.leaves(selected))
    budget = GRADIENT_MEMORY_BYTES.get(jax.default_backend(), 2**28)
    return max(1, budget // max(1, gradient_bytes))


def _sum_over_chunks(
    chunk_sums: Callable[[Batch, jax.Array], BatchSums],
    selected: Params,
    batch: Batch,
    weights: jax.Array,
    chunk: int,
) -> BatchSums:
    """`chunk_sums` over micro-batches of `chunk` samples, one after the other."""
    size = len(weights)
    if chunk == size:
        return chunk_sums(batch, weights)
    chunks = -(-size // chunk)
    padding = chunks * chunk - size

    def cut(x: jax.Array, filling: jax.Array) -> jax.Array:
        # Micro-batch i takes rows i, i + chunks, i + 2 chunks, …: strided, so that each has its
        # share of every device's rows where the batch is sharded.
        x = jnp.concatenate([x, filling]) if padding else x
        return jnp.moveaxis(x.reshape(chunk, chunks, *x.shape[1:]), 1, 0)

    # Filled up with copies of real samples, which are finite where a row of zeros need not be (a
    # normalisation by the input's norm, say), at weight 0.
    batch = jax.tree.map(jnp.asarray, batch)
    batches = jax.tree.map(lambda x: cut(x, x[:padding]), batch)
    weights_CxB = cut(weights, jnp.zeros(padding, weights.dtype))

    def step(total: compensated.CompensatedSum, xs: tuple[Batch, jax.Array]) -> Any:
        result = chunk_sums(*xs)
        return compensated.add(total, result.sums), result.finite

    total, finite_CxB = jax.lax.scan(step, compensated.zeros(selected), (batches, weights_CxB))
    return BatchSums(compensated.total(total), finite_CxB.T.reshape(-1)[:size])
