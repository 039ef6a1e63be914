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
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mas_jax import trees
from mas_jax.errors import EngineError, FallbackError
from mas_jax.fused import interpret, jaxprs
from mas_jax.fused.plan import Plan, make_plan
from mas_jax.fused.sites import Weight
from mas_jax.microbatches import default_budget, fitting_size, sum_over_microbatches
from mas_jax.per_sample import (
    BatchSums,
    Engine,
    ReduceFn,
    ValueFn,
    sample_value_fn,
    weighted_sum,
)
from mas_jax.types import ApplyFn, Batch, Objective, Params, at_least_float32

STRICT_SIZE = 2**16
"""Entries from which a leaf that falls back is an error under `strict=True`."""


def fused_engine(
    apply_fn: ApplyFn,
    objective: Objective,
    reduce_fn: ReduceFn,
    microbatch_size: int | None = None,
    memory_budget: int | None = None,
    strict: bool | int = False,
) -> Engine:
    """Build the engine. Micro-batches only where leaves fall back and their gradients need them.

    Raises what apply_fn raises, FallbackError under `strict`, and EngineError for anything that
    goes wrong once the network itself could be traced.
    """
    value_fn = sample_value_fn(apply_fn, objective)

    def engine(params: Params, covered: Any, batch: Batch, weights: jax.Array) -> BatchSums:
        selected = trees.select(params, covered)
        traced, plan = plan_for(value_fn, params, selected, batch, strict)

        def chunk_fn(chunk: Batch, weights_B: jax.Array) -> BatchSums:
            return _sums_of_chunk(traced, plan, reduce_fn, chunk, weights_B)

        size = fitting_microbatch(plan, selected, microbatch_size, memory_budget)
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
            f"the fused engine failed on this network: {type(error).__name__}: {error}"
        ) from error


def _sums_of_chunk(
    traced: Traced, plan: Plan, reduce_fn: ReduceFn, batch: Batch, weights_B: jax.Array
) -> BatchSums:
    """One forward and one backward pass."""
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
            flat, token = interpret.evaluate(traced.closed, reduce_fn, inputs, token)
            value, aux = traced.structure.unflatten(flat)
            return (value, token), aux

        (value, _), pullback, (finite, outputs) = jax.vjp(fn, slots, fallback, token, has_aux=True)
        # Known only now, and carried back to every site by the token's cotangent.
        weight = jnp.where(finite, weight, 0.0)
        sums, grads, _ = pullback((jnp.ones_like(value), weight))
        return sums, grads, (weight, finite, outputs)

    sums, grads_B, (weights_B, finite_B, outputs_B) = jax.vmap(one_sample, out_axes=(None, 0, 0))(
        batch, weights_B
    )
    sums |= {i: weighted_sum(reduce_fn, grads, weights_B) for i, grads in grads_B.items()}
    return BatchSums(treedef.unflatten([sums[i] for i in range(len(leaves))]), finite_B, outputs_B)


def _dtype(x: Any) -> Any:
    """The dtype of an array or a number; that of keys included."""
    return x.dtype if hasattr(x, "dtype") else jnp.result_type(x)


def _total_bytes(tree: Any) -> int:
    """What a tree's arrays hold."""
    leaves = jax.tree.leaves(tree)
    return sum(math.prod(jnp.shape(leaf)) * _dtype(leaf).itemsize for leaf in leaves)
