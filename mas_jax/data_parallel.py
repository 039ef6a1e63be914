"""The sums over one batch, on one device or on all devices of a mesh.

On a mesh each device sums over its own rows, and one psum adds up their sums. The library owns
the `shard_map` because of `check_vma=False`: with `check_vma=True` JAX sums the gradient of a
parameter that several devices share over these devices. That is right for the gradient of a loss
and silently wrong here, where the magnitude of each sample's comes before any sum.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from mas_jax import trees
from mas_jax.engines import build_engine
from mas_jax.options import Callee, Options
from mas_jax.per_sample import BatchTotals, batch_totals
from mas_jax.placement import mesh_of
from mas_jax.types import Batch, Params


def totals_of_batch(
    options: Options, callee: Callee, params: Params, batch: Batch, weights: jax.Array
) -> BatchTotals:
    """What is kept of a batch, computed where `options` say."""
    covered = trees.covered(params, options.mask_tree())
    selected = trees.select(params, covered)
    _check_gradients_stay_apart(selected, (callee.arrays, params, batch))

    def totals_fn(shared: Any, batch: Batch, weights: jax.Array) -> BatchTotals:
        array_fn, params = shared
        apply_fn = array_fn if callee.static is None else callee.static
        assert apply_fn is not None
        return batch_totals(build_engine(apply_fn, options), params, covered, batch, weights)

    shared = callee.arrays, params
    if options.mesh is None:
        return totals_fn(shared, batch, weights)
    return _totals_over_mesh(options, totals_fn, shared, batch, weights, selected)


def _totals_over_mesh(
    options: Options,
    totals_fn: Callable[[Any, Batch, jax.Array], BatchTotals],
    shared: Any,
    batch: Batch,
    weights: jax.Array,
    selected: Params,
) -> BatchTotals:
    """`totals_fn` of each device's rows, added up. The axis divides the number of rows.

    Manual over the one axis: what is sharded over others stays so, and is XLA's business.
    """
    mesh, axis = mesh_of(options), options.mesh_axis
    devices = mesh.shape[axis]
    rows = len(weights) // devices

    def local_totals(shared: Any, batch: Batch, weights: jax.Array) -> Any:
        totals = totals_fn(shared, batch, weights)
        # A float per device (exact up to 2²⁴ rows, 0 for none) joins the sums. XLA makes one
        # all-reduce of leaves of one dtype, so that they need not be copied into one vector.
        row = (totals.first_nonfinite + 1).astype(totals.weight.dtype)
        found = jnp.zeros(devices, row.dtype).at[jax.lax.axis_index(axis)].set(row)
        sums, weight, found = jax.lax.psum((totals.sums, totals.weight, found), axis)
        return sums, weight, _first_row(found, rows), totals.outputs

    whole, split = PartitionSpec(), PartitionSpec(axis)
    totals_over_mesh = jax.shard_map(
        local_totals,
        # With Explicit axes every operation of the network would have to state its sharding.
        mesh=Mesh(mesh.devices, mesh.axis_names, (AxisType.Auto,) * mesh.devices.ndim),
        in_specs=(whole, split, split),
        out_specs=(whole, whole, whole, split),
        axis_names={axis},
        check_vma=False,
    )
    if AxisType.Explicit in mesh.axis_types:
        specs = jax.tree.map(lambda leaf: jax.typeof(leaf).sharding.spec, selected)
        shardings = jax.tree.map(
            lambda spec: NamedSharding(mesh, spec), (specs, whole, whole, split)
        )
        totals_over_mesh = jax.sharding.auto_axes(out_sharding=shardings)(totals_over_mesh)
    return BatchTotals(*totals_over_mesh(shared, batch, weights))


def _first_row(found: jax.Array, rows: int) -> jax.Array:
    """The first non-finite row of the batch, or -1, from 1 + that of each device's, or 0."""
    device = jnp.argmax(found > 0)
    row = device * rows + found[device].astype(jnp.int32) - 1
    return jnp.where(found[device] > 0, row, -1).astype(jnp.int32)


def _check_gradients_stay_apart(selected: Params, inputs: Any) -> None:
    """Raise inside a caller's `shard_map` that would sum gradients over devices too early."""
    varying = frozenset().union(*map(_varying_axes, jax.tree.leaves(inputs)))
    for path, leaf in trees.leaves_by_path(selected).items():
        axes = varying - _varying_axes(leaf)
        if axes:
            raise ValueError(
                f"inside a shard_map with check_vma=True, params{trees.path_name(path)} is the "
                f"same on all devices along {', '.join(map(repr, sorted(axes)))} and the batch is "
                "not: JAX would sum its gradient over these devices before the magnitude is "
                "taken. Call the estimator outside shard_map and give it mesh=, or use "
                "check_vma=False"
            )


def _varying_axes(leaf: Any) -> frozenset[str]:
    """The manual mesh axes along which `leaf` differs, as far as JAX keeps track of them."""
    kind = getattr(jax.typeof(leaf), "manual_axis_type", None)
    return getattr(kind, "varying", frozenset())
