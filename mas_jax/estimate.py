"""Importance over an iterable of batches: the host loop around the estimator."""

from collections.abc import Callable, Iterable, Mapping
from typing import Unpack

import jax.numpy as jnp

from mas_jax import checks, importance
from mas_jax.options import EstimatorOptions, checked_options, split_callable
from mas_jax.types import ApplyFn, Batch, Importance, Params


def estimate_importance(
    apply_fn: ApplyFn,
    params: Params,
    batches: Iterable[Batch],
    *,
    progress: Callable[[int], None] | None = None,
    **options: Unpack[EstimatorOptions],
) -> Importance:
    """Compute Ω over an iterable of unlabelled batches: the host loop around the estimator.

    One compilation per batch shape, also from call to call with the same `apply_fn`: what varies
    between tasks (params and, if it is a `jax.tree_util.Partial`, the arrays in it) is an
    argument. A new lambda each time is a new function, and compiles.

    Args:
      apply_fn: as for `importance_estimator`.
      params: θ, any pytree of arrays.
      batches: any iterable of batches, of any sizes; each is a pytree with one leading axis.
      progress: called after each batch with the number of samples seen so far.
      **options: all keyword arguments of `importance_estimator`, with the same defaults.

    Returns:
      Ω, as `importance_estimator`'s `finalize` returns it.

    Raises:
      ValueError: `batches` yields nothing, and all that `importance_estimator` names.
      TypeError: `batches` is one array or mapping, which would be iterated by rows or keys.
      NonFiniteError: at the latest one batch after the sample that caused it.

    >>> params = {"kernel": jnp.array([[1.0], [2.0]])}
    >>> batches = [jnp.array([[1.0, 0.0]]), jnp.array([[0.0, -1.0]])]
    >>> apply_fn = lambda params, x: x @ params["kernel"]
    >>> estimate_importance(apply_fn, params, batches)["kernel"]
    Array([[1.],
           [2.]], dtype=float32)
    """
    if hasattr(batches, "shape") or isinstance(batches, Mapping):
        raise TypeError(
            f"batches must be an iterable of batches, got one {type(batches).__name__}: for a "
            "single batch pass [batch]"
        )
    checked = checked_options(**options)
    callee = split_callable(apply_fn)
    state = importance.init(checked, params)
    flag, seen = None, 0
    for batch in batches:
        seen += checks.batch_size(batch)
        # The flag of the batch before is read while this one runs: the device never waits.
        previous = flag
        state = importance.add_batch_in_place(
            callee.static, checked, callee.arrays, state, params, batch, None
        )
        flag = jnp.copy(state.first_nonfinite)  # the state itself is donated to the next batch
        if previous is not None and checks.is_concrete(previous):
            importance.raise_if_nonfinite(int(previous))
        if progress is not None:
            progress(seen)
    if seen == 0:
        raise ValueError("batches yielded nothing: importance needs at least one sample")
    return importance.finalize(state)
