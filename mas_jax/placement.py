"""Arrays on the devices of a mesh: batches divided by rows, all else whole or as it lies there."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from mas_jax import checks, trees
from mas_jax.options import Options
from mas_jax.types import Batch, Outputs

Rows = tuple[Batch, Any, Any]
"""A batch, its weights or None, and how many of its rows are real, or None if all are."""


def rows_on_mesh(options: Options, batch: Batch, weights: Any) -> Rows:
    """The batch filled up so that the mesh's axis divides its rows, and divided among the devices.

    Where something is being traced, XLA does the dividing.
    """
    mesh, axis = mesh_of(options), options.mesh_axis
    size, devices = checks.batch_size(batch), mesh.shape[axis]
    rows, real = round_up(size, devices), None
    if rows > size:
        if not options.pad_batch:
            raise ValueError(
                f"batch has {size} samples, which the {devices} devices along mesh axis {axis!r} "
                f"cannot share equally: pass a multiple of {devices}, or leave pad_batch=True, "
                "which fills the batch up with copies of a sample at weight 0"
            )
        weights = np.ones(size, np.float32) if weights is None else weights
        batch, weights, real = filled_up(batch, rows), _with_zeros(weights, rows), size
    spec = PartitionSpec(axis)
    return _placed(mesh, spec, "batch", batch), _placed(mesh, spec, "weights", weights), real


def mesh_of(options: Options) -> Mesh:
    """The mesh, in a place where there is one."""
    assert options.mesh is not None
    return options.mesh


def round_up(size: int, divisor: int) -> int:
    """The next multiple of `divisor`."""
    return -(-size // divisor) * divisor


def filled_up(batch: Batch, rows: int) -> Batch:
    """`batch` with its last sample repeated until there are `rows`.

    A real sample, since a row of zeros need not have finite gradients, and not even finite
    outputs (a normalisation by the input's norm, say).
    """

    def fill(x: Any) -> Any:
        # What is on the host is filled up there, and goes to the devices in parts.
        x = x if isinstance(x, jax.Array) else np.asarray(x)
        return x if len(x) == rows else x[np.minimum(np.arange(rows), len(x) - 1)]

    return jax.tree.map(fill, batch)


def _with_zeros(weights: Any, rows: int) -> Any:
    """`weights`, and 0 for the rows that it lacks."""
    library = jnp if isinstance(weights, jax.Array) else np
    weights = library.asarray(weights)
    return library.concatenate([weights, library.zeros(rows - len(weights), weights.dtype)])


def real_rows(options: Options, outputs: Outputs, size: int) -> Outputs:
    """The first `size` rows, which the devices cannot share equally."""
    mesh = mesh_of(options)
    if AxisType.Explicit in mesh.axis_types:
        outputs = jax.sharding.reshard(outputs, NamedSharding(mesh, PartitionSpec()))
    return jax.tree.map(lambda leaf: leaf[:size], outputs)


def on_mesh(options: Options, name: str, tree: Any) -> Any:
    """`tree` on all devices of the mesh: as it lies there already, or else whole on each."""
    return _placed(mesh_of(options), PartitionSpec(), name, tree)


def _placed(mesh: Mesh, spec: PartitionSpec, name: str, tree: Any) -> Any:
    """`tree` on all devices of the mesh: as it lies there already, or else as `spec` says."""
    sharding = NamedSharding(mesh, spec)

    def place(path: trees.KeyPath, leaf: Any) -> Any:
        own = leaf.sharding.device_set if isinstance(leaf, jax.Array) else set()
        where = f"{name}{trees.path_name(path)}" if path else name
        if len(own) > 1:
            if own != sharding.device_set:
                raise ValueError(
                    f"{where} lies on {len(own)} devices that are not the {mesh.size} of mesh: "
                    "jax.device_put it there, or give the mesh it lies on"
                )
            _check_axis_types(mesh, where, leaf.sharding)
            return leaf
        if mesh.is_multi_process:
            raise ValueError(
                f"{where} belongs to this process alone, and mesh spans several. Make it a global "
                "array (parameters: jax.device_put with a NamedSharding of the mesh; a batch: "
                "jax.make_array_from_process_local_data), or let estimate_importance do both"
            )
        return jax.device_put(leaf, sharding)

    return jax.tree_util.tree_map_with_path(place, tree) if checks.is_concrete(tree) else tree


def _check_axis_types(mesh: Mesh, where: str, sharding: Any) -> None:
    """Raise where shardings are part of types, and those of an array are of another mesh."""
    own = getattr(sharding, "mesh", mesh)
    if own != mesh and AxisType.Explicit in (*mesh.axis_types, *own.axis_types):
        raise ValueError(
            f"{where} lies on {own}, and the estimator's mesh is {mesh}. With Explicit axes both "
            "must be one mesh: jax.make_mesh gives such axes by default, jax.sharding.Mesh Auto "
            "ones, and axis_types says which"
        )
