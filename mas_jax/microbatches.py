"""A batch cut into micro-batches, one after the other, so that what each holds fits into memory."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from mas_jax import compensated
from mas_jax.types import Batch, Importance, Outputs

GRADIENT_MEMORY_BYTES = {"cpu": 2**20, "gpu": 2**28, "tpu": 2**28}
"""Per-sample gradients to hold at a time when no budget is given: what stays in a CPU core's
cache, what fills an accelerator."""


def default_budget() -> int:
    """GRADIENT_MEMORY_BYTES of the backend that runs by default."""
    return GRADIENT_MEMORY_BYTES.get(jax.default_backend(), 2**28)


def fitting_size(bytes_per_sample: int, budget: int) -> int:
    """How many samples of `bytes_per_sample` fit into `budget` bytes, at least one."""
    return max(1, budget // max(1, bytes_per_sample))


ChunkFn = Callable[[Batch, jax.Array], tuple[Importance, jax.Array, Outputs]]
"""From a micro-batch and its weights (B,) to sums, finite (B,) and outputs (B, ...)."""


def sum_over_microbatches(
    chunk_fn: ChunkFn, like: Any, batch: Batch, weights: jax.Array, microbatch_size: int
) -> tuple[Importance, jax.Array, Outputs]:
    """`chunk_fn` of each micro-batch in turn: sums added up (trees like `like`), rows put back."""
    size = len(weights)
    if microbatch_size >= size:
        return chunk_fn(batch, weights)
    chunks = -(-size // microbatch_size)
    padding = chunks * microbatch_size - size

    def cut(x: jax.Array, filling: jax.Array) -> jax.Array:
        # Micro-batch i takes rows i, i + chunks, i + 2 chunks, …: strided, so that each has its
        # share of every device's rows where the batch is sharded.
        x = jnp.concatenate([x, filling]) if padding else x
        return jnp.moveaxis(x.reshape(microbatch_size, chunks, *x.shape[1:]), 1, 0)

    def uncut(x: jax.Array) -> jax.Array:
        return jnp.moveaxis(x, 0, 1).reshape(chunks * microbatch_size, *x.shape[2:])[:size]

    # Filled up with copies of real samples, which are finite where a row of zeros need not be (a
    # normalisation by the input's norm, say), at weight 0.
    batch = jax.tree.map(jnp.asarray, batch)
    batches = jax.tree.map(lambda x: cut(x, x[:padding]), batch)
    weights_CxB = cut(weights, jnp.zeros(padding, weights.dtype))

    def step(total: compensated.CompensatedSum, xs: tuple[Batch, jax.Array]) -> Any:
        sums, *rows = chunk_fn(*xs)
        return compensated.add(total, sums), rows

    total, rows = jax.lax.scan(step, compensated.zeros(like), (batches, weights_CxB))
    finite, outputs = jax.tree.map(uncut, rows)
    return compensated.total(total), finite, outputs
