"""The streaming estimator of importance: Ω = (1/N) Σ_k |∂ objective(F(x_k; θ)) / ∂θ|."""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mas_jax import checks, compensated, objectives, placement, trees
from mas_jax.data_parallel import totals_of_batch
from mas_jax.errors import NonFiniteError
from mas_jax.options import (
    MAGNITUDES,
    Callee,
    EngineName,
    Magnitude,
    OnNonFinite,
    Options,
    Reduction,
    checked_options,
    split_callable,
)
from mas_jax.types import (
    ApplyFn,
    Batch,
    Importance,
    Mask,
    Objective,
    Outputs,
    Params,
    at_least_float32,
)


class ImportanceState(NamedTuple):
    """What the estimator carries from batch to batch."""

    sums: compensated.CompensatedSum  # of (Σ w_k red(g_k) per covered leaf, Σ w_k)
    num_samples: jax.Array  # () int32: samples seen so far
    first_nonfinite: jax.Array  # () int32: stream index of the first such sample, or -1


class ImportanceEstimator(NamedTuple):
    """Pure functions; see `importance_estimator`."""

    init: Callable[[Params], ImportanceState]
    update: Callable[..., ImportanceState]
    finalize: Callable[[ImportanceState], Importance]
    predict_and_update: Callable[..., tuple[Outputs, ImportanceState]]


def importance_estimator(
    apply_fn: ApplyFn,
    *,
    objective: Objective = objectives.squared_l2_norm,
    magnitude: Magnitude = "abs",
    reduction: Reduction = "sample",
    mask: Mask = None,
    on_nonfinite: OnNonFinite = "raise",
    engine: EngineName = "auto",
    strict: bool | int = False,
    microbatch_size: int | None = None,
    memory_budget: int | None = None,
    mesh: jax.sharding.Mesh | None = None,
    mesh_axis: str = "data",
    pad_batch: bool = True,
) -> ImportanceEstimator:
    """Build the streaming estimator of Ω = (1/Σw) Σ_k w_k |∂ objective(F(x_k; θ)) / ∂θ|.

    `init(params)` gives an empty state, `update(state, params, batch, weights=None)` adds a
    batch, `finalize(state)` gives Ω. `predict_and_update(state, params, batch, weights=None)`
    gives (outputs, state) from one forward pass, for a model in service that learns what it is
    used for. All are pure: jit them, scan them, donate the state.

    Source: Aljundi et al., ECCV 2018, Eq. 2 and section 4.1. The paper's own code, and most
    others, take the absolute value of a whole batch's gradient; here it is taken per sample.

    Args:
      apply_fn: `apply_fn(params, batch) -> outputs`, batched on axis 0, in evaluation mode. It
        is called with one sample at a time (a batch axis of 1, under `vmap`), so that no
        operation can mix samples.
      objective: from the outputs for one sample to a scalar; ‖F‖₂² by default.
      magnitude: "abs" for MAS; "square" for the mean squared gradient (Fisher-like).
      reduction: "sample" is Eq. 2. "batch" reproduces what most other code computes, for
        comparison only: |Σ_k g_k| for each batch passed, divided by N at the end, so that it
        depends on how the stream is cut into batches.
      mask: which parameters carry importance: a pytree of bools like params, a prefix of one,
        or a function from params to that. True is covered. The others, and integer, boolean
        and key leaves, are `optax.MaskedNode()` in Ω.
      on_nonfinite: what a sample with a NaN or infinite output does. "raise": `finalize` raises
        with its index in the stream (under a trace, where nothing can raise, Ω becomes NaN).
        "skip": the sample is left out exactly, as though it had not been in the stream.
      engine: how the magnitudes of per-sample gradients are had; from here on, options change
        speed and memory only. "fused" sums them in one backward pass; parameters it has no rule
        for keep a gradient per sample within that pass (`explain` lists them). "vmap" is
        `vmap(grad)`, the reference. "auto" is "fused", and "vmap" with an EngineWarning should
        that fail on a network.
      strict: raise if a parameter of more than so many entries keeps a gradient per sample; True
        stands for 65,536.
      microbatch_size: samples per pass; by default what the memory budget allows.
      memory_budget: bytes of per-sample gradients to hold at a time. By default as much as the
        parameters take, for "fused"; 1 MiB, what stays in a core's cache, for "vmap" on a CPU;
        and at least 256 MiB for both on an accelerator.
      mesh: divide each batch among the devices along one axis of it. Parameters may lie on the
        mesh in any way: whole on each device, sharded over other axes, or over this one; Ω lies
        as they do. What lies on one device or on the host is brought there. In a program of
        several processes a batch is a global array; `estimate_importance` makes such arrays.
      mesh_axis: the name of that axis.
      pad_batch: fill up a batch that the devices cannot share equally, with copies of a sample
        that count nothing and are cut from the outputs. False: such a batch is an error.

    Returns:
      An `ImportanceEstimator`. Ω has the structure of params; its leaves have the parameters'
      shapes, are ≥ 0, and float32 (float64 for float64 parameters) whatever the model's dtype.

    Raises:
      ValueError: an unknown option; a batch axis missing, unequal or empty; weights of another
        shape, negative or not finite; outputs without a batch axis; a state of other params; a
        mesh without the axis, arrays on other devices than its, a batch that does not divide.
      TypeError: a complex parameter that mask does not exclude.
      FallbackError: under `strict`; names the leaf and why it falls back.
      EngineError: engine="fused" failed on this network for a reason of its own.
      NonFiniteError: from `finalize`; names the sample's index, or the leaf.

    Guarantees:
      Ω does not depend on the order of the samples, on their division into batches,
      micro-batches and devices, nor on jit, but for rounding in the last digits of float32,
      however long the stream: sums across batches are compensated. `update` compiles once per
      batch shape. A weight of 0 leaves its sample out exactly. On a mesh the devices exchange
      one sum per batch.

      `update` inside a `shard_map` of your own gives the state for that device's samples. It
      needs `check_vma=False`: otherwise JAX adds up the gradient of a parameter that devices
      share before its magnitude could be taken, which is refused. `mesh` does this for you.

    Example:
      >>> params = {"kernel": jnp.array([[1.0], [2.0]])}
      >>> estimator = importance_estimator(lambda params, x: x @ params["kernel"])
      >>> state = estimator.update(estimator.init(params), params, jnp.array([[1.0, 0.0]]))
      >>> state = estimator.update(state, params, jnp.array([[0.0, -1.0]]))
      >>> estimator.finalize(state)["kernel"]  # the mean over samples of |2 F xᵀ|
      Array([[1.],
             [2.]], dtype=float32)
    """
    options = checked_options(
        objective=objective,
        magnitude=magnitude,
        reduction=reduction,
        mask=mask,
        on_nonfinite=on_nonfinite,
        engine=engine,
        strict=strict,
        microbatch_size=microbatch_size,
        memory_budget=memory_budget,
        mesh=mesh,
        mesh_axis=mesh_axis,
        pad_batch=pad_batch,
    )
    callee = split_callable(apply_fn)
    return ImportanceEstimator(
        init=functools.partial(init, options),
        update=functools.partial(_update, callee, options),
        finalize=finalize,
        predict_and_update=functools.partial(_predict_and_update, callee, options),
    )


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


def _update(
    callee: Callee,
    options: Options,
    state: ImportanceState,
    params: Params,
    batch: Batch,
    weights: Any = None,
) -> ImportanceState:
    """`state` with one batch added; checked here, computed compiled."""
    _check_update(options, state, params, batch, weights)
    arguments = _placed(options, callee.arrays, state, params, batch, weights)
    return add_batch(callee.static, options, *arguments)


def _predict_and_update(
    callee: Callee,
    options: Options,
    state: ImportanceState,
    params: Params,
    batch: Batch,
    weights: Any = None,
) -> tuple[Outputs, ImportanceState]:
    """apply_fn's outputs for a batch, and `state` with it added: one forward pass for both."""
    _check_update(options, state, params, batch, weights)
    arguments = _placed(options, callee.arrays, state, params, batch, weights)
    return _predict_and_add_batch(callee.static, options, *arguments)


def _check_update(
    options: Options, state: ImportanceState, params: Params, batch: Batch, weights: Any
) -> None:
    """Raise where the arguments of an update do not fit each other."""
    size = checks.batch_size(batch)
    if weights is not None:
        checks.check_weights(weights, size)
    selected = trees.select(params, trees.covered(params, options.mask_tree()))
    checks.check_same_leaves("state", state.sums.value[0], "params", selected)


def _placed(
    options: Options, array_fn: Any, state: Any, params: Params, batch: Batch, weights: Any
) -> tuple[Any, ...]:
    """The arguments and the number of real rows; with a mesh filled up and on its devices."""
    if options.mesh is None:
        return array_fn, state, params, batch, weights, None
    return (
        placement.on_mesh(options, "apply_fn", array_fn),
        placement.on_mesh(options, "state", state),
        placement.on_mesh(options, "params", params),
        *placement.rows_on_mesh(options, batch, weights),
    )


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
_predict_and_add_batch = jax.jit(_predict_and_add, static_argnums=(0, 1, 7))


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


def finalize(state: ImportanceState) -> Importance:
    """Ω = Σ w_k red(g_k) / Σ w_k."""
    sums, weight = compensated.total(state.sums)
    if checks.is_concrete((state, weight)):
        raise_if_nonfinite(int(state.first_nonfinite))
        if math.isnan(float(weight)):
            raise ValueError(
                "weights must be finite and at least 0: a batch of the stream had one that is not"
            )
        if not float(weight) > 0:
            raise ValueError(
                f"importance needs at least one sample that counts, got {int(state.num_samples)} "
                "samples with a total weight of 0"
            )
    # Where nothing can raise (under a trace), NaN is louder than a plausible number.
    divisor = jnp.where((state.first_nonfinite < 0) & (weight > 0), weight, jnp.nan)
    importance = jax.tree.map(lambda leaf: leaf / divisor.astype(leaf.dtype), sums)
    hint = (
        "; a gradient is NaN (a norm or a root at 0?) or overflowed although the outputs were "
        "finite. Look at what that layer computes"
    )
    checks.check_importance(importance, hint)
    return importance


def sample_name(index: int) -> str:
    """How an error names a sample of one stream."""
    return f"{index} of the stream"


def raise_if_nonfinite(index: int, name_fn: Callable[[int], str] = sample_name) -> None:
    """Raise NonFiniteError if `index` is that of a sample."""
    if index >= 0:
        raise NonFiniteError(
            f"the outputs for sample {name_fn(index)} (counted from 0), or the objective of "
            "them, are NaN or infinite: importance is not defined there. Mend the sample, or pass "
            'on_nonfinite="skip" to leave such samples out'
        )
