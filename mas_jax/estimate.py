"""Importance over an iterable of batches: the host loop around the estimator."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple, Unpack

import jax
import jax.numpy as jnp
import numpy as np

from mas_jax import accumulation, checks, importance, multi_process, placement
from mas_jax.independence import check_independence
from mas_jax.options import EstimatorOptions, Options, checked_options, split_callable
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

    With a `mesh` over several processes (`jax.distributed.initialize` is yours to call, before
    anything else) each process passes the same params and its own share of the samples, of at
    least one. Shares may differ in the number and the sizes of their batches. All processes get
    the same Ω, `progress` counts all their samples, and what one of them cannot go on from stops
    all with an error.

    Args:
      apply_fn: as for `importance_estimator`.
      params: θ, any pytree of arrays.
      batches: any iterable of batches, of any sizes; each is a pytree with one leading axis.
      progress: called after each batch with the number of samples seen so far.
      **options: all keyword arguments of `importance_estimator`, with the same defaults.

    Returns:
      Ω, as `importance_estimator`'s `finalize` returns it.

    Raises:
      ValueError: `batches` yields nothing, and all that `importance_estimator` names; between
        processes, a share without samples, batches of different kinds, other params.
      RuntimeError: another process could not read its share.
      TypeError: `batches` is one array or mapping, which would be iterated by rows or keys.
      CoupledSamplesError: as `check_independence`, which is given the first batch.
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
    batches = _checked_first(apply_fn, params, batches, checked)
    array_fn, params = _on_devices(checked, callee.arrays, params)
    state = accumulation.init(checked, params)
    flag, step, seen = None, None, 0
    for following in _steps(checked, batches):
        seen += following.size
        # The flag of the batch before is read while this one runs: the device never waits.
        previous = flag, step
        step = following
        state = accumulation.add_batch_in_place(
            callee.static, checked, array_fn, state, params, *step.rows
        )
        flag = jnp.copy(state.first_nonfinite)  # the state itself is donated to the next batch
        _raise_if_nonfinite(*previous)
        if progress is not None:
            progress(seen)
    if seen == 0:
        raise ValueError("batches yielded nothing: importance needs at least one sample")
    _raise_if_nonfinite(flag, step)
    return importance.finalize(state)


def _checked_first(
    apply_fn: ApplyFn, params: Params, batches: Iterable[Batch], options: Options
) -> Iterator[Batch]:
    """The batches, the first one after a look at whether its samples are independent."""
    for number, batch in enumerate(batches):
        # Under a trace nothing can be run, and one of several processes cannot run alone.
        alone = options.mesh is None or not options.mesh.is_multi_process
        if number == 0 and alone and checks.is_concrete((apply_fn, params, batch)):
            check_independence(apply_fn, params, batch)
        yield batch


class _Step(NamedTuple):
    """One batch of the stream."""

    rows: placement.Rows
    size: int  # how many are real
    sample_name: Callable[[int], str] = importance.sample_name


def _steps(options: Options, batches: Iterable[Batch]) -> Iterator[_Step]:
    """The batches; with a mesh on its devices, and those of all processes side by side."""
    if options.mesh is not None and options.mesh.is_multi_process:
        for step in multi_process.global_steps(options, batches):
            rows = step.batch, step.weights, np.int32(step.size)
            yield _Step(rows, step.size, step.sample_name)
        return
    for batch in batches:
        size, rows = checks.batch_size(batch), (batch, None, None)
        if options.mesh is not None:
            rows = placement.rows_on_mesh(options, batch, None)
        yield _Step(rows, size)


def _on_devices(options: Options, array_fn: Any, params: Params) -> tuple[Any, Params]:
    """What every batch needs, brought to the devices of the mesh once."""
    if options.mesh is None:
        return array_fn, params
    if options.mesh.is_multi_process:
        array_fn, params = multi_process.shared(options.mesh, "params", (array_fn, params))
    return (
        placement.on_mesh(options, "apply_fn", array_fn),
        placement.on_mesh(options, "params", params),
    )


def _raise_if_nonfinite(flag: jax.Array | None, step: _Step | None) -> None:
    """Raise if the batch of `step` had the first sample that is not finite."""
    if flag is not None and step is not None and checks.is_concrete(flag):
        importance.raise_if_nonfinite(int(flag), step.sample_name)
