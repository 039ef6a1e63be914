"""The fused engine: exact Σ_k w_k red(g_k) from one ordinary backward pass.

1. The function of *one sample* is traced to a jaxpr: there is no batch axis in it to mix up.
2. `plan` finds the leaves that are used once, by an operation that has a rule.
3. `interpret` evaluates the jaxpr with these uses replaced by `sites`, whose backward pass sums
   over samples as it goes.
4. One `vmap` of one `vjp` does it all: what comes from sites has no batch axis left (and
   `out_axes=None` refuses it if it has one), the other leaves' gradients are per sample, and
   reduced here.
"""

import contextlib
import functools
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mas_jax import trees
from mas_jax.errors import EngineError, FallbackError
from mas_jax.fused import interpret, jaxprs
from mas_jax.fused.interpret import Magnitude
from mas_jax.fused.outputs import Passes, activation_bytes, fitting_passes
from mas_jax.fused.plan import Plan, make_plan
from mas_jax.fused.sites import Weight
from mas_jax.microbatches import default_budget, fitting_size, sum_over_microbatches
from mas_jax.per_sample import (
    BatchSums,
    Engine,
    ReduceFn,
    ValueFn,
    VectorMagnitude,
    sample_value_fn,
    sum_over_outputs,
    vector_magnitude,
    weighted_sum,
)
from mas_jax.types import ApplyFn, Batch, Objective, OverOutputs, Params, at_least_float32

STRICT_SIZE = 2**16
"""Entries from which a leaf that falls back is an error under `strict=True`."""


def fused_engine(
    apply_fn: ApplyFn,
    objective: Objective,
    reduce_fn: ReduceFn,
    microbatch_size: int | None = None,
    memory_budget: int | None = None,
    over_outputs: OverOutputs | None = "sum",
    strict: bool | int = False,
) -> Engine:
    """Build the engine. For a scalar objective there are micro-batches only where leaves fall back
    and their gradients need them; for a vector, see `outputs.fitting_passes`.

    Raises what apply_fn raises, FallbackError under `strict`, and EngineError for anything that
    goes wrong once the network itself could be traced.
    """
    value_fn = sample_value_fn(apply_fn, objective)

    def engine(params: Params, covered: Any, batch: Batch, weights: jax.Array) -> BatchSums:
        selected = trees.select(params, covered)
        traced, plan = plan_for(value_fn, params, selected, batch, strict)
        size = fitting_microbatch(plan, selected, microbatch_size, memory_budget)
        chunk_fn = functools.partial(_sums_of_chunk, traced, plan, reduce_fn, 1)
        if traced.num_outputs is not None:
            magnitude = vector_magnitude(reduce_fn, over_outputs)
            passes = passes_for(traced, plan, len(weights), microbatch_size, memory_budget)
            size = passes.samples
            chunk_fn = functools.partial(_sums_of_vectors, traced, plan, magnitude, passes.outputs)
        with _engine_errors():
            return BatchSums(*sum_over_microbatches(chunk_fn, selected, batch, weights, size))

    return engine


class Traced(NamedTuple):
    """The function of one sample as a jaxpr: inputs are covered leaves, then the sample's."""

    closed: Any
    structure: Any  # of (value, (finite, outputs))
    selected: Params

    @property
    def leaves(self) -> list[Any]:
        """The covered leaves, in the order of the jaxpr's inputs."""
        return jax.tree.leaves(self.selected)

    @property
    def num_outputs(self) -> int | None:
        """How many entries the objective of one sample has; None for a scalar."""
        shape = self.closed.out_avals[0].shape
        return shape[0] if shape else None


def plan_for(
    value_fn: ValueFn, params: Params, selected: Params, batch: Batch, strict: bool | int
) -> tuple[Traced, Plan]:
    """The traced function, and what becomes of each selected leaf; raises under `strict`."""
    traced = trace(value_fn, params, selected, batch)
    with _engine_errors():
        plan = make_plan(traced.closed, len(traced.leaves))
    if strict is not False:
        check_fallback(traced, plan, STRICT_SIZE if strict is True else strict)
    return traced, plan


def fitting_microbatch(
    plan: Plan, selected: Params, microbatch_size: int | None, memory_budget: int | None
) -> int:
    """Samples per pass: as many as `memory_budget` holds gradients of leaves that fall back.

    By default it may be another copy of the parameters, or the vmap engine's budget if larger,
    and only gradients larger than the network's own activations count.
    """
    if microbatch_size is not None:
        return microbatch_size
    if memory_budget is not None:
        return fitting_size(plan.fallback_bytes, memory_budget)
    return fitting_size(plan.large_bytes, max(default_budget(), _total_bytes(selected)))


def passes_for(
    traced: Traced,
    plan: Plan,
    batch_size: int,
    microbatch_size: int | None,
    memory_budget: int | None,
) -> Passes:
    """The same for a vector objective: samples, and entries of their vectors, per pass.

    A backward pass holds a cotangent of each activation, and a gradient of each leaf that falls
    back, for each (sample, output) pair. By default there may be as many pairs as the batch has
    samples, so that a pass holds no more than an ordinary one of the whole batch, or as many as
    fit into the vmap engine's budget if these are more.
    """
    assert traced.num_outputs is not None
    inputs = traced.closed.jaxpr.invars
    activations = activation_bytes(traced.closed.jaxpr, set(inputs[len(traced.leaves) :]))
    if memory_budget is not None:
        pairs = fitting_size(activations + plan.fallback_bytes, memory_budget)
    else:
        pairs = min(
            fitting_microbatch(plan, traced.selected, None, None),
            max(batch_size, fitting_size(activations, default_budget())),
        )
    return fitting_passes(traced.num_outputs, pairs, microbatch_size)


def trace(value_fn: ValueFn, params: Params, selected: Params, batch: Batch) -> Traced:
    """Trace `value_fn` for one sample of `batch`, as a function of the selected leaves."""
    leaves, treedef = jax.tree.flatten(selected)
    sample = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(
            jnp.shape(x)[1:], jax.dtypes.canonicalize_dtype(_dtype(x), allow_extended_dtype=True)
        ),
        batch,
    )

    def fn(leaves: list[Any], sample: Batch) -> Any:
        return value_fn(trees.overlay(params, treedef.unflatten(leaves)), sample)

    closed, structure = jaxprs.single_sample_jaxpr(fn, leaves, sample)
    return Traced(closed, structure, selected)


def check_fallback(traced: Traced, plan: Plan, max_size: int) -> None:
    """Raise FallbackError if a leaf of more than `max_size` entries falls back."""
    for (path, leaf), leaf_plan in zip(
        trees.leaves_by_path(traced.selected).items(), plan.leaves, strict=True
    ):
        if leaf_plan.falls_back and math.prod(jnp.shape(leaf)) > max_size:
            raise FallbackError(
                f"params{trees.path_name(path)} of shape {jnp.shape(leaf)} falls back to one "
                f"gradient per sample ({leaf_plan.reason}), and strict allows that up to "
                f"{max_size} entries. mas_jax.explain lists all leaves; pass strict=False, or a "
                "larger number, to accept the cost"
            )


@contextlib.contextmanager
def _engine_errors() -> Iterator[None]:
    """Turn whatever goes wrong inside into an EngineError: the network has been traced already."""
    try:
        yield
    except Exception as error:
        raise EngineError(
            f"the fused engine failed on this network: {type(error).__name__}: {error}. Pass "
            'engine="vmap", which takes any network'
        ) from error


def _sums_of_vectors(
    traced: Traced,
    plan: Plan,
    magnitude: VectorMagnitude,
    at_a_time: int,
    batch: Batch,
    weights_B: jax.Array,
) -> BatchSums:
    """One forward pass, and a backward pass of all entries of the vectors, or of some at a time."""
    assert traced.num_outputs is not None
    if at_a_time >= traced.num_outputs or magnitude.over_outputs == "sum":
        return _sums_of_chunk(traced, plan, magnitude, at_a_time, batch, weights_B)
    # The root comes after the last of several passes: each sample's terms must stay its own, as
    # those of a micro-batch of one do.
    assert len(weights_B) == 1
    ones = jnp.where(weights_B > 0, jnp.ones_like(weights_B), 0.0)
    terms = _sums_of_chunk(traced, plan, magnitude.terms, at_a_time, batch, ones)
    sums = jax.tree.map(
        lambda terms: weighted_sum(magnitude.root, terms[None], weights_B), terms.sums
    )
    return terms._replace(sums=sums)


def _sums_of_chunk(
    traced: Traced,
    plan: Plan,
    magnitude: Magnitude,
    at_a_time: int,
    batch: Batch,
    weights_B: jax.Array,
) -> BatchSums:
    """One forward and one backward pass, for vectors of entries `at_a_time`."""
    leaves, treedef = jax.tree.flatten(traced.selected)
    fallback = {i: leaf for i, leaf in enumerate(leaves) if plan.leaves[i].falls_back}
    slots = {
        i: jnp.zeros(jnp.shape(leaf), at_least_float32(_dtype(leaf)))
        for i, leaf in enumerate(leaves)
        if i not in fallback
    }
    token = jnp.zeros((), weights_B.dtype)

    def one_sample(sample: Batch, weight: jax.Array) -> Any:
        def fn(slots: Any, fallback: Any, token: jax.Array) -> Any:
            given = fallback | {i: Weight(leaves[i], slot) for i, slot in slots.items()}
            inputs = [*(given[i] for i in range(len(leaves))), *jax.tree.leaves(sample)]
            flat, token = interpret.evaluate(traced.closed, magnitude, inputs, token)
            value, aux = traced.structure.unflatten(flat)
            return (value, token), aux

        (value, _), pullback, (finite, outputs) = jax.vjp(fn, slots, fallback, token, has_aux=True)
        # Known only now, and carried back to every site by the token's cotangent.
        weight = jnp.where(finite, weight, 0.0)
        if isinstance(magnitude, VectorMagnitude):
            sums, grads = _of_vector(magnitude, at_a_time, pullback, value, weight)
        else:
            sums, grads, _ = pullback((jnp.ones_like(value), weight))
        return sums, grads, (weight, finite, outputs)

    sums, grads_B, (weights_B, finite_B, outputs_B) = jax.vmap(one_sample, out_axes=(None, 0, 0))(
        batch, weights_B
    )
    reduce_fn = _identity if isinstance(magnitude, VectorMagnitude) else magnitude
    sums |= {i: weighted_sum(reduce_fn, grads, weights_B) for i, grads in grads_B.items()}
    return BatchSums(treedef.unflatten([sums[i] for i in range(len(leaves))]), finite_B, outputs_B)


def _of_vector(
    magnitude: VectorMagnitude, at_a_time: int, pullback: Any, value: jax.Array, weight: jax.Array
) -> tuple[Any, Any]:
    """The sums of the sites, and the magnitudes of the leaves that fall back, of one sample."""

    def one_output(cotangent: jax.Array) -> tuple[Any, Any]:
        sums, grads, _ = pullback((cotangent, weight))
        return sums, grads

    def some_outputs(cotangents_CxO: jax.Array) -> tuple[Any, Any]:
        sums, grads_C = jax.vmap(one_output, out_axes=(None, 0))(cotangents_CxO)
        return sums, jax.tree.map(lambda grads: magnitude.of(grads, axis=0), grads_C)

    return sum_over_outputs(some_outputs, value, at_a_time)


def _identity(grads: jax.Array) -> jax.Array:
    """What is left to do to a magnitude."""
    return grads


def _dtype(x: Any) -> Any:
    """The dtype of an array or a number; that of keys included."""
    return x.dtype if hasattr(x, "dtype") else jnp.result_type(x)


def _total_bytes(tree: Any) -> int:
    """What a tree's arrays hold."""
    leaves = jax.tree.leaves(tree)
    return sum(math.prod(jnp.shape(leaf)) * _dtype(leaf).itemsize for leaf in leaves)
