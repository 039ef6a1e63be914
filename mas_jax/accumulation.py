"""The estimator's state, and a batch added to it: the compiled part of `importance`."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mas_jax import checks, compensated, placement, trees
from mas_jax.data_parallel import totals_of_batch
from mas_jax.options import MAGNITUDES, Callee, Options
from mas_jax.types import ApplyFn, Batch, Importance, Outputs, Params, at_least_float32


class ImportanceState(NamedTuple):
    """What the estimator carries from batch to batch."""

    sums: compensated.CompensatedSum  # of (Σ w_k red(g_k) per covered leaf, Σ w_k)
    num_samples: jax.Array  # () int32: samples seen so far
    first_nonfinite: jax.Array  # () int32: stream index of the first such sample, or -1


def init(options: Options, params: Params) -> ImportanceState:
    """The empty state for `params`, on the devices that hold them, or on the mesh."""
    selected = trees.select(params, trees.covered(params, options.mask_tree()))
    if options.mesh is not None:
        selected = placement.on_mesh(options, "params", selected)
    leaves = jax.tree.leaves(selected)
    if not leaves:
        raise ValueError(
            "no leaf of params can carry importance: wanted at least one floating-point leaf "
            f"that mask includes, got none among {len(jax.tree.leaves(params))} leaves"
        )
    dtypes = {at_least_float32(jnp.result_type(leaf)) for leaf in leaves}
    weight = jnp.zeros((), max(dtypes, key=lambda dtype: jnp.dtype(dtype).itemsize))
    return ImportanceState(
        sums=compensated.zeros((selected, _beside(leaves[0], weight))),
        num_samples=_beside(leaves[0], jnp.zeros((), jnp.int32)),
        first_nonfinite=_beside(leaves[0], jnp.full((), -1, jnp.int32)),
    )


def _beside(leaf: Any, scalar: jax.Array) -> jax.Array:
    """`scalar` on the devices of `leaf`, so that the first update's state is like all others."""
    if not checks.is_concrete(leaf) or not getattr(leaf, "committed", False):
        return scalar
    sharding = leaf.sharding
    if isinstance(sharding, jax.sharding.NamedSharding):
        sharding = jax.sharding.NamedSharding(sharding.mesh, jax.sharding.PartitionSpec())
    return jax.device_put(scalar, sharding)


def _add_rows(
    static_fn: ApplyFn | None,
    options: Options,
    array_fn: ApplyFn | None,
    state: ImportanceState,
    params: Params,
    batch: Batch,
    weights: Any,
    size: Any = None,
) -> tuple[Outputs, ImportanceState]:
    """The outputs for all rows, and `state` with the batch added, of which `size` rows count."""
    rows = checks.batch_size(batch)
    dtype = state.sums.value[1].dtype
    weights = jnp.ones(rows, dtype) if weights is None else jnp.asarray(weights, dtype)
    # Under a trace nothing can raise: a weight that is no weight makes Ω NaN.
    weights = jnp.where(jnp.isfinite(weights) & (weights >= 0), weights, jnp.nan)

    totals = totals_of_batch(options, Callee(static_fn, array_fn), params, batch, weights)
    sums = totals.sums
    if options.reduction == "batch":
        sums = _reduce_batch_mean(MAGNITUDES[options.magnitude], sums, totals.weight)
    num_samples = state.num_samples + (rows if size is None else size)
    new_state = ImportanceState(
        sums=compensated.add(state.sums, (sums, totals.weight)),
        # Past 2³¹ − 1 the count stays there: it says where a bad sample was, no more.
        num_samples=jnp.where(num_samples < 0, jnp.iinfo(jnp.int32).max, num_samples),
        first_nonfinite=_first_nonfinite(options, state, totals.first_nonfinite),
    )
    return totals.outputs, new_state


def _predict_and_add(
    static_fn: ApplyFn | None, options: Options, *arguments: Any
) -> tuple[Outputs, ImportanceState]:
    """The outputs for the rows that are real, and the state."""
    outputs, state = _add_rows(static_fn, options, *arguments)
    size = arguments[-1]
    return (outputs if size is None else placement.real_rows(options, outputs, size)), state


def _add(*arguments: Any) -> ImportanceState:
    """The state alone."""
    return _add_rows(*arguments)[1]


# Compiled here and not left to the caller: a call outside jit would compile its loop anew each
# time. Inside a caller's own jit, scan or vmap it is part of that.
add_batch = jax.jit(_add, static_argnums=(0, 1))
add_batch_in_place = jax.jit(_add, static_argnums=(0, 1), donate_argnums=(3,))
predict_and_add_batch = jax.jit(_predict_and_add, static_argnums=(0, 1, 7))


def _reduce_batch_mean(
    reduce_fn: Callable[[jax.Array], jax.Array], sums: Importance, weight: jax.Array
) -> Importance:
    """W red(Σ w_k g_k / W): a whole batch counted as W samples with its mean gradient."""
    divisor = jnp.where(weight > 0, weight, 1.0)
    return jax.tree.map(
        lambda leaf: weight.astype(leaf.dtype) * reduce_fn(leaf / divisor.astype(leaf.dtype)), sums
    )


def _first_nonfinite(options: Options, state: ImportanceState, row: jax.Array) -> jax.Array:
    """The stream index of the first non-finite sample so far, or -1; `row` is this batch's."""
    if options.on_nonfinite == "skip":
        return state.first_nonfinite
    index = state.num_samples + row
    index = jnp.where(index < 0, jnp.iinfo(jnp.int32).max, index)
    here = jnp.where(row >= 0, index, -1)
    return jnp.where(state.first_nonfinite >= 0, state.first_nonfinite, here)
