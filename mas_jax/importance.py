"""The streaming estimator of importance: Ω = (1/N) Σ_k |∂ objective(F(x_k; θ)) / ∂θ|."""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mas_jax import checks, compensated, objectives, placement, trees
from mas_jax.accumulation import ImportanceState, add_batch, init, predict_and_add_batch
from mas_jax.errors import NonFiniteError
from mas_jax.options import (
    Callee,
    EngineName,
    Magnitude,
    OnNonFinite,
    Options,
    Reduction,
    checked_options,
    split_callable,
)
from mas_jax.types import ApplyFn, Batch, Importance, Mask, Objective, Outputs, Params


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
      objective: from the outputs for one sample to a real scalar, ‖F‖₂² by default; or to a real
        vector (O,), such as `every_output`, which takes O backward passes.
      magnitude: of a sample's gradient g. "abs" for MAS; "square" for the mean squared gradient
        (`fisher_estimator` builds on it). Of the gradients g_o of a vector's entries "abs" is
        Σ_o |g_o|, "square" Σ_o g_o², and "l2" √Σ_o g_o²: with `every_output` the paper's vector
        output. For a scalar "l2" is "abs".
      reduction: "sample" is Eq. 2. "batch" reproduces what most other code computes, for
        comparison only: |Σ_k g_k| for each batch passed, divided by N at the end, so that it
        depends on how the stream is cut into batches. It is not defined for a vector.
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
      microbatch_size: samples per pass; by default what the memory budget allows. For a vector
        objective "fused" takes all its entries in one pass, or, one sample at a time, as many
        as the budget allows; "vmap" takes few or one at a time.
      memory_budget: bytes of per-sample gradients to hold at a time. By default as much as the
        parameters take, for "fused", where those of biases and the like, no larger than
        activations, do not count; 1 MiB, what stays in a core's cache, for "vmap" on a CPU;
        and at least 256 MiB for both on an accelerator. For a vector objective "fused" counts
        its entries' cotangents of all activations, too, and goes through as many (sample, entry)
        pairs at a time as the batch has samples, or as fit into the budget of "vmap" if more.
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
        shape, negative or not finite; outputs without a batch axis; an objective of another
        shape, or a vector with reduction="batch"; a state of other params; a mesh without the
        axis, arrays on other devices than its, a batch that does not divide.
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


def _update(
    callee: Callee,
    options: Options,
    state: ImportanceState,
    params: Params,
    batch: Batch,
    weights: Any = None,
) -> ImportanceState:
    """`state` with one batch added; checked here, computed compiled."""
    arguments = _checked(options, callee.arrays, state, params, batch, weights)
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
    arguments = _checked(options, callee.arrays, state, params, batch, weights)
    return predict_and_add_batch(callee.static, options, *arguments)


def _check_update(
    options: Options, state: ImportanceState, params: Params, batch: Batch, weights: Any
) -> None:
    """Raise where the arguments of an update do not fit each other."""
    if not isinstance(state, ImportanceState):
        raise TypeError(
            f"state must be what estimator.init(params) or an update returned, got "
            f"{type(state).__name__}"
        )
    size = checks.batch_size(batch)
    if weights is not None:
        checks.check_weights(weights, size)
    selected = trees.select(params, trees.covered(params, options.mask_tree()))
    checks.check_same_leaves("state", state.sums.value[0], "params", selected)


def _checked(
    options: Options, array_fn: Any, state: Any, params: Params, batch: Batch, weights: Any
) -> tuple[Any, ...]:
    """The arguments, checked, and the number of real rows; with a mesh filled up and on it."""
    _check_update(options, state, params, batch, weights)
    if options.mesh is None:
        return array_fn, state, params, batch, weights, None
    return (
        placement.on_mesh(options, "apply_fn", array_fn),
        placement.on_mesh(options, "state", state),
        placement.on_mesh(options, "params", params),
        *placement.rows_on_mesh(options, batch, weights),
    )


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
