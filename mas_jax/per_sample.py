"""Σ_k w_k red(g_k) over the samples of one batch: the engines' common face, and the vmap engine.

An engine sees one batch. It returns the weighted sum over samples of the *reduced* gradient
(absolute value or square, taken per sample, before any sum) and, per sample, the outputs and
whether they were finite. What a stream of batches adds up to is `importance.py`'s business.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, TypeAlias

import jax
import jax.numpy as jnp

from mas_jax import trees
from mas_jax.microbatches import default_budget, fitting_size, sum_over_microbatches
from mas_jax.types import (
    ApplyFn,
    Batch,
    Importance,
    Objective,
    Outputs,
    OverOutputs,
    Params,
    at_least_float32,
)

ReduceFn: TypeAlias = Callable[[jax.Array], jax.Array]
"""red: elementwise, and multiplicative: red(a b) = red(a) red(b)."""


class VectorMagnitude(NamedTuple):
    """How a sample's gradients g_o of the entries of a vector objective become one magnitude."""

    reduce_fn: ReduceFn
    over_outputs: OverOutputs  # "sum": Σ_o red(g_o); "l2": √Σ_o g_o²

    @property
    def terms(self) -> "VectorMagnitude":
        """What is added up over outputs, before `root`."""
        return self if self.over_outputs == "sum" else VectorMagnitude(jnp.square, "sum")

    def of(self, grads: jax.Array, axis: int) -> jax.Array:
        """The magnitude over the outputs along `axis`, in float32 or wider."""
        terms = self.terms.reduce_fn(grads.astype(at_least_float32(grads.dtype)))
        return self.root(jnp.sum(terms, axis))

    def root(self, terms: jax.Array) -> jax.Array:
        """From what was added up to the magnitude."""
        if self.over_outputs == "sum":
            return terms
        positive = terms > 0  # √ has an infinite derivative at 0
        return jnp.where(positive, jnp.sqrt(jnp.where(positive, terms, 1.0)), 0.0)


def vector_magnitude(reduce_fn: ReduceFn, over_outputs: OverOutputs | None) -> VectorMagnitude:
    """The magnitude for a vector objective, if there is one."""
    if over_outputs is None:
        raise ValueError(
            'objective returned a vector, for which reduction="batch" is not defined: return a '
            'scalar, or use reduction="sample"'
        )
    return VectorMagnitude(jnp.abs if over_outputs == "l2" else reduce_fn, over_outputs)


class BatchSums(NamedTuple):
    """What an engine returns for a batch of B samples."""

    sums: Importance  # Σ_k w_k red(g_k), one array per covered leaf
    finite: jax.Array  # (B,) bool: were the outputs for this sample finite?
    outputs: Outputs  # (B, ...) leaves: what apply_fn returned


class Engine(Protocol):
    """From parameters, the tree of bools that covers them, a batch and weights (B,) to sums."""

    def __call__(
        self, params: Params, covered: Any, batch: Batch, weights: jax.Array
    ) -> BatchSums: ...


class BatchTotals(NamedTuple):
    """What is kept of a batch: sums over its samples, wherever these were computed."""

    sums: Importance  # Σ_k w_k red(g_k) over finite samples
    weight: jax.Array  # (), Σ_k w_k over finite samples
    first_nonfinite: jax.Array  # () int32: row of the first other sample of weight > 0, or -1
    outputs: Outputs


def batch_totals(
    engine: Engine, params: Params, covered: Any, batch: Batch, weights: jax.Array
) -> BatchTotals:
    """An engine's answer for one batch, summed up."""
    sums, finite, outputs = engine(params, covered, batch, weights)
    nonfinite = ~finite & (weights > 0)
    first = jnp.where(nonfinite.any(), jnp.argmax(nonfinite), -1)
    return BatchTotals(
        sums, jnp.where(finite, weights, 0.0).sum(), first.astype(jnp.int32), outputs
    )


def vmap_engine(
    apply_fn: ApplyFn,
    objective: Objective,
    reduce_fn: ReduceFn,
    microbatch_size: int | None = None,
    memory_budget: int | None = None,
    over_outputs: OverOutputs | None = "sum",
) -> Engine:
    """Build the reference engine: `vmap(grad)`, which holds microbatch × parameters gradients.

    For a vector objective a loop over its entries, some at a time, beside a sum over them. Samples
    whose outputs are not finite, and samples of weight 0, add exactly nothing.
    """
    value_fn = sample_value_fn(apply_fn, objective)

    def engine(params: Params, covered: Any, batch: Batch, weights: jax.Array) -> BatchSums:
        selected = trees.select(params, covered)

        def chosen_fn(chosen: Params, sample: Batch) -> Any:
            return value_fn(trees.overlay(params, chosen), sample)

        gradient_bytes = sum(4 * jnp.size(leaf) for leaf in jax.tree.leaves(selected))
        gradients = fitting_size(gradient_bytes, memory_budget or default_budget())
        if length_of_value(value_fn, params, batch) is None:
            size = microbatch_size or gradients
            chunk_fn = functools.partial(_scalar_chunk, chosen_fn, selected, reduce_fn)
        else:
            # Of a sample the terms added up so far, and the gradients of a few outputs.
            size = microbatch_size or max(1, gradients // 2)
            at_a_time = max(1, gradients // min(size, len(weights)) - 1)
            magnitude = vector_magnitude(reduce_fn, over_outputs)
            chunk_fn = functools.partial(_vector_chunk, chosen_fn, selected, magnitude, at_a_time)
        return BatchSums(*sum_over_microbatches(chunk_fn, selected, batch, weights, size))

    return engine


def _scalar_chunk(
    chosen_fn: Any, selected: Params, reduce_fn: ReduceFn, chunk: Batch, weights_B: jax.Array
) -> BatchSums:
    """One gradient per sample, reduced and added up."""
    grad_fn = jax.grad(chosen_fn, has_aux=True)
    grads, (finite_B, outputs) = jax.vmap(grad_fn, in_axes=(None, 0))(selected, chunk)
    weights_B = jnp.where(finite_B, weights_B, 0.0)
    sums = jax.tree.map(lambda grad: weighted_sum(reduce_fn, grad, weights_B), grads)
    return BatchSums(sums, finite_B, outputs)


def _vector_chunk(
    chosen_fn: Any,
    selected: Params,
    magnitude: VectorMagnitude,
    at_a_time: int,
    chunk: Batch,
    weights_B: jax.Array,
) -> BatchSums:
    """One magnitude per sample, of the gradients of all entries of its vector, added up."""

    def magnitudes(sample: Batch) -> Any:
        value, pullback, aux = jax.vjp(
            lambda chosen: chosen_fn(chosen, sample), selected, has_aux=True
        )

        def terms_fn(cotangents_CxO: jax.Array) -> Any:
            (grads,) = jax.vmap(pullback)(cotangents_CxO)
            return jax.tree.map(lambda grad: magnitude.terms.of(grad, axis=0), grads)

        terms = sum_over_outputs(terms_fn, value, at_a_time)
        return jax.tree.map(magnitude.root, terms), aux

    magnitudes_B, (finite_B, outputs) = jax.vmap(magnitudes)(chunk)
    weights_B = jnp.where(finite_B, weights_B, 0.0)
    sums = jax.tree.map(lambda leaf: weighted_sum(lambda x: x, leaf, weights_B), magnitudes_B)
    return BatchSums(sums, finite_B, outputs)


def sum_over_outputs(terms_fn: Callable[[jax.Array], Any], value: jax.Array, at_a_time: int) -> Any:
    """Σ of what `terms_fn` returns for one-hot cotangents (C, O) of `value` (O,), C at a time."""
    length = len(value)

    def one_hot(start: Any, size: int) -> jax.Array:
        # Rows past the last output are 0, and so are the gradients that they give.
        rows = jax.lax.broadcasted_iota(jnp.int32, (size, length), 0) + start
        return (rows == jax.lax.broadcasted_iota(jnp.int32, (size, length), 1)).astype(value.dtype)

    if at_a_time >= length:
        return terms_fn(one_hot(0, length))

    def step(total: Any, start: jax.Array) -> tuple[Any, None]:
        return jax.tree.map(jnp.add, total, terms_fn(one_hot(start, at_a_time))), None

    shapes = jax.eval_shape(terms_fn, one_hot(0, at_a_time))
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    return jax.lax.scan(step, zeros, jnp.arange(0, length, at_a_time, dtype=jnp.int32))[0]


ValueFn: TypeAlias = Callable[[Params, Batch], tuple[jax.Array, tuple[jax.Array, Outputs]]]
"""(params, one sample) -> the objective, (whether outputs and objective are finite, outputs)."""


def sample_value_fn(apply_fn: ApplyFn, objective: Objective) -> ValueFn:
    """What is differentiated: the objective of the outputs for one sample."""

    def value_fn(params: Params, sample: Batch) -> tuple[jax.Array, tuple[jax.Array, Outputs]]:
        outputs = apply_fn(params, jax.tree.map(lambda x: x[None], sample))
        check_batched_outputs(outputs)
        outputs = jax.tree.map(lambda leaf: leaf[0], outputs)
        value = jnp.asarray(objective(outputs))
        real = jnp.issubdtype(value.dtype, jnp.floating)
        if value.ndim > 1 or value.size == 0 or not real:
            raise ValueError(
                "objective must return a real scalar, or a real vector of at least one entry, for "
                f"the outputs of one sample, got {value.dtype}{list(value.shape)}"
            )
        finite = jnp.isfinite(value) if value.ndim == 0 else jnp.isfinite(value).all()
        for leaf in jax.tree.leaves(outputs):
            if jnp.issubdtype(leaf.dtype, jnp.inexact):
                finite &= jnp.isfinite(leaf).all()
        return value, (finite, outputs)

    return value_fn


def length_of_value(value_fn: ValueFn, params: Params, batch: Batch) -> int | None:
    """How many entries the vector of one sample has; None for a scalar."""
    values_fn = jax.vmap(lambda sample: value_fn(params, sample)[0])
    shape = jax.eval_shape(values_fn, batch).shape
    return shape[1] if len(shape) > 1 else None


def check_batched_outputs(outputs: Outputs) -> None:
    """Raise ValueError unless every output leaf kept the batch axis (of one sample here)."""
    for path, leaf in trees.leaves_by_path(outputs).items():
        if jnp.ndim(leaf) == 0 or jnp.shape(leaf)[0] != 1:
            raise ValueError(
                f"apply_fn's output {trees.path_name(path)} has shape {jnp.shape(leaf)} for a "
                "batch of 1 sample, wanted a leading axis of 1. apply_fn returns the outputs "
                "per sample, batched on axis 0, not a loss or a mean over the batch"
            )


def weighted_sum(reduce_fn: ReduceFn, grads: jax.Array, weights_B: jax.Array) -> jax.Array:
    """Σ_k w_k red(g_k) in float32 or wider."""
    return jnp.sum(weighted(reduce_fn, grads, weights_B), axis=0)


def weighted(reduce_fn: ReduceFn, grads: jax.Array, weights_B: jax.Array) -> jax.Array:
    """w_k red(g_k), and 0 for samples of weight 0, NaN or not (0 · NaN would be NaN)."""
    dtype = at_least_float32(grads.dtype)
    weights = weights_B.astype(dtype).reshape(-1, *[1] * (grads.ndim - 1))
    return jnp.where(weights > 0, weights * reduce_fn(grads.astype(dtype)), 0.0)
