"""The rule for `gather` of whole rows: embedding look-ups.

A sample that looks a row up twice has the sum of both cotangents as that row's gradient, and
the magnitude comes after the sum: look-ups are merged per sample, then reduced, then added to
the table. Scattering |Δ| look-up by look-up would over-estimate.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.lax import GatherScatterMode

from mas_jax.fused.products import Work
from mas_jax.per_sample import ReduceFn, VectorMagnitude

CLIPPING = {GatherScatterMode.CLIP, GatherScatterMode.PROMISE_IN_BOUNDS}
DROPPING = {GatherScatterMode.FILL_OR_DROP}


class Lookup(NamedTuple):
    """The rule for one use: each sample looks up T = `positions` rows of D in a table of V."""

    table_shape: tuple[int, ...]  # (V, ...), D entries behind the first axis
    positions: int
    row_axes: tuple[int, ...]  # of dy: those that come from the table
    clips: bool  # what is out of bounds is moved to the edge; else it is dropped
    name: str = "embedding"

    def sum_over_samples(
        self,
        reduce_fn: ReduceFn,
        dtype: Any,
        x_B: jax.Array,
        dy_B: jax.Array,
        weights_B: jax.Array,
    ) -> jax.Array:
        """Σ_k w_k red(g_k), of the table's shape, accumulated in `dtype`; x_B are the indices."""
        rows_BxT, merged_BxTxD = jax.vmap(self._merged)(x_B, dy_B.astype(dtype))
        return self._scattered(reduce_fn, dtype, rows_BxT, merged_BxTxD, weights_B)

    def sum_over_outputs(
        self,
        magnitude: VectorMagnitude,
        dtype: Any,
        x_B: jax.Array,
        dy_BxO: jax.Array,
        weights_B: jax.Array,
    ) -> jax.Array:
        """Σ_k w_k |(g_k1, …, g_kO)|: merged output by output, which look up the same rows."""
        merged_fn = jax.vmap(self._merged, in_axes=(None, 0), out_axes=(None, 0))
        rows_BxT, merged_BxOxTxD = jax.vmap(merged_fn)(x_B, dy_BxO.astype(dtype))
        magnitudes_BxTxD = magnitude.of(merged_BxOxTxD, axis=1)
        return self._scattered(lambda x: x, dtype, rows_BxT, magnitudes_BxTxD, weights_B)

    def _scattered(
        self,
        reduce_fn: ReduceFn,
        dtype: Any,
        rows_BxT: jax.Array,
        merged_BxTxD: jax.Array,
        weights_B: jax.Array,
    ) -> jax.Array:
        """Reduced, weighted, and added to the rows of the table; row V is none."""
        weights = weights_B.astype(dtype).reshape(-1, 1, 1)
        reduced = jnp.where(weights > 0, weights * reduce_fn(merged_BxTxD), 0)
        sums = jnp.zeros((self.table_shape[0], reduced.shape[-1]), dtype)
        sums = sums.at[rows_BxT.reshape(-1)].add(
            reduced.reshape(-1, reduced.shape[-1]), mode="drop"
        )
        return sums.reshape(self.table_shape)

    def _merged(self, indices: jax.Array, dy: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Of one sample: T rows, each named once and V for none, and their gradients (T, D)."""
        size = self.table_shape[0]
        # (T, 1) up to here; wide enough for V, whatever the tokens were stored in.
        dtype = indices.dtype if indices.dtype.itemsize >= 4 else jnp.int32
        rows_T = indices.reshape(-1).astype(dtype)
        if self.clips:
            rows_T = jnp.clip(rows_T, 0, size - 1)
        else:
            rows_T = jnp.where((rows_T >= 0) & (rows_T < size), rows_T, size)
        others = [axis for axis in range(dy.ndim) if axis not in self.row_axes]
        dy_TxD = jnp.transpose(dy, (*others, *self.row_axes)).reshape(len(rows_T), -1)

        order = jnp.argsort(rows_T)
        rows_T, dy_TxD = rows_T[order], dy_TxD[order]
        is_new_T = jnp.concatenate([jnp.ones(1, bool), rows_T[1:] != rows_T[:-1]])
        segment_T = jnp.cumsum(is_new_T) - 1
        merged_TxD = jax.ops.segment_sum(
            dy_TxD, segment_T, num_segments=len(rows_T), indices_are_sorted=True
        )
        return jnp.full_like(rows_T, size).at[segment_T].set(rows_T), merged_TxD

    def bytes_held(self, size: int) -> int:
        """The sorted and the merged gradients."""
        return 2 * 4 * size * self.positions * math.prod(self.table_shape[1:])

    def work(self, size: int) -> Work:
        """Sorted, merged and reduced before what a plain gradient does too: read, add, write."""
        moved = size * self.positions * math.prod(self.table_shape[1:])
        return Work(3 * moved, 9 * moved)


def match(eqn: Any, kernel: int) -> Lookup | str:
    """The rule for input number `kernel` of a gather, or why there is none."""
    if kernel != 0:
        return "used as indices"
    table, indices = (atom.aval for atom in eqn.invars)
    numbers = eqn.params["dimension_numbers"]
    whole_rows = (
        numbers.collapsed_slice_dims == (0,)
        and numbers.start_index_map == (0,)
        and not numbers.operand_batching_dims
        and tuple(eqn.params["slice_sizes"]) == (1, *table.shape[1:])
    )
    mode = eqn.params["mode"]
    if not whole_rows or mode not in CLIPPING | DROPPING:
        return "indexed other than by whole rows"
    positions = math.prod(indices.shape[:-1])
    return Lookup(table.shape, positions, tuple(numbers.offset_dims), mode in CLIPPING)
