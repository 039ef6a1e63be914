"""Do the samples of a batch leave each other alone? Importance per sample means nothing if not."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mas_jax import checks, local, trees
from mas_jax.errors import CoupledSamplesError
from mas_jax.options import split_callable
from mas_jax.per_sample import check_batched_outputs
from mas_jax.types import ApplyFn, Batch, Params

TOLERANCE = 1e-2
"""Of the largest output: far above what the order of a sum does to float32, far below what
batch statistics or dropout do. Ten times as much for narrower floats."""


def check_independence(apply_fn: ApplyFn, params: Params, batch: Batch) -> None:
    """Raise if the outputs for a sample change with the other samples in its batch.

    Runs the network on the first and last sample of `batch`, together and one at a time, and
    compares. That finds batch normalisation in training mode, dropout that is on (its masks differ
    from row to row), and normalisation, attention or a mean over the batch axis. It can't find
    what makes no difference for these two samples, and does nothing for a batch of one.
    `estimate_importance` calls it with the first batch.

    Args:
      apply_fn: as for `importance_estimator`. Of what `local_outputs` has returned, which runs
        samples one by one, the network itself is looked at.
      params: θ.
      batch: at least two samples, different ones.

    Raises:
      CoupledSamplesError: naming the output and by how much it differs.

    >>> params = {"kernel": jnp.eye(2)}
    >>> batch = jnp.array([[1.0, 2.0], [3.0, 5.0]])
    >>> check_independence(lambda params, x: x @ params["kernel"], params, batch)
    >>> check_independence(lambda params, x: x - x.mean(axis=0, keepdims=True), params, batch)
    Traceback (most recent call last):
      ...
    mas_jax.errors.CoupledSamplesError: apply_fn's output ...
    """
    if checks.batch_size(batch) < 2:
        return
    callee = split_callable(local.network_of(apply_fn))
    pair = jax.tree.map(_first_and_last, _off_explicit_meshes(batch))
    arrays, params = _off_explicit_meshes((callee.arrays, params))
    together, alone = _both(callee.static, arrays, params, pair)
    alone = trees.leaves_by_path(alone)
    for path, leaf in _comparable(trees.leaves_by_path(together)).items():
        name = f"apply_fn's output {trees.path_name(path)}"
        if jnp.shape(leaf) != jnp.shape(alone[path]):
            raise CoupledSamplesError(
                f"{name} has shape {jnp.shape(leaf)} for two samples together, wanted "
                f"{jnp.shape(alone[path])}: one row for each. {_WANTED}"
            )
        change = _change(leaf, alone[path])
        narrow = jnp.issubdtype(leaf.dtype, jnp.inexact) and jnp.finfo(leaf.dtype).bits < 32
        if change > (10 * TOLERANCE if narrow else TOLERANCE):
            much = f"changes by {change:.0%} of the largest one"
            much = "becomes NaN or infinite, or stops being so," if np.isinf(change) else much
            raise CoupledSamplesError(
                f"{name} for a sample {much} when another sample is in the batch. {_WANTED}"
            )


def _comparable(leaves: dict[Any, Any]) -> dict[Any, Any]:
    """The outputs that tell: numbers with a fraction, or, where there are none, all but keys.

    A class or a rank can change with the last digit of what it was computed from.
    """
    numbers = {
        path: leaf
        for path, leaf in leaves.items()
        if not jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    }
    inexact = {
        path: leaf for path, leaf in numbers.items() if jnp.issubdtype(leaf.dtype, jnp.inexact)
    }
    return inexact or numbers


def _off_explicit_meshes(tree: Any) -> Any:
    """`tree`, from the host where a mesh would have the sharding of every operation stated."""

    def moved(leaf: Any) -> Any:
        mesh = getattr(getattr(leaf, "sharding", None), "mesh", None)
        explicit = mesh is not None and jax.sharding.AxisType.Explicit in mesh.axis_types
        return jax.device_get(leaf) if explicit else leaf

    return jax.tree.map(moved, tree)


def _first_and_last(x: Any) -> Any:
    """Two rows, which go wherever the parameters are: from the host, but for keys."""
    if jnp.issubdtype(jax.dtypes.result_type(x), jax.dtypes.prng_key):
        return x[np.array([0, -1])]
    return np.stack([np.asarray(x[0]), np.asarray(x[-1])])


_WANTED = (
    "Importance is measured sample by sample, so the network must compute each row by itself, and "
    "the same each time: put batch normalisation and dropout into evaluation mode"
)


@partial(jax.jit, static_argnums=0)
def _both(
    static_fn: ApplyFn | None, array_fn: ApplyFn | None, params: Params, pair: Batch
) -> tuple[Any, Any]:
    """The outputs for two samples together, and one at a time."""
    apply_fn = array_fn if static_fn is None else static_fn
    assert apply_fn is not None

    def row(sample: Batch) -> Any:
        outputs = apply_fn(params, jax.tree.map(lambda x: x[None], sample))
        check_batched_outputs(outputs)
        return jax.tree.map(lambda leaf: leaf[0], outputs)

    return apply_fn(params, pair), jax.vmap(row)(pair)


def _change(together: Any, alone: Any) -> float:
    """The largest difference, relative to the largest entry; inf if only one side is finite."""
    wide = np.complex128 if jnp.issubdtype(together.dtype, jnp.complexfloating) else np.float64
    a, b = (np.asarray(leaf).astype(wide) for leaf in (together, alone))
    finite = np.isfinite(a)
    if (finite != np.isfinite(b)).any():
        return np.inf
    if not finite.any():
        return 0.0
    largest = max(np.abs(a[finite]).max(), np.abs(b[finite]).max())
    return float(np.abs(a[finite] - b[finite]).max() / largest) if largest > 0 else 0.0
