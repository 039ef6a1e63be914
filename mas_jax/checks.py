"""Argument checks shared by the public functions: what was wanted, what came, and where."""

import math
from collections.abc import Collection
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from mas_jax.errors import NonFiniteError, TreeMismatchError
from mas_jax.trees import leaves_by_path, missing_leaf, path_name
from mas_jax.types import Batch, Importance, Strength


def is_concrete(tree: Any) -> bool:
    """Whether the values of every leaf can be read now (nothing is being traced)."""
    return not any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(tree))


def check_choice(name: str, value: Any, choices: Collection[str]) -> None:
    """Raise ValueError unless `value` is one of `choices`."""
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}, got {value!r}")


def batch_size(batch: Batch) -> int:
    """The length of the common leading axis of `batch`, checked."""
    leaves = leaves_by_path(batch)
    if not leaves:
        raise ValueError("batch has no arrays, wanted a pytree of arrays with a leading batch axis")
    sizes = {}
    for path, leaf in leaves.items():
        if jnp.ndim(leaf) == 0:
            raise ValueError(
                f"batch leaf {path_name(path)} is a scalar, wanted a leading batch axis; "
                "for a single sample x pass x[None]"
            )
        sizes[path] = jnp.shape(leaf)[0]
    first_path, first = next(iter(sizes.items()))
    for path, size in sizes.items():
        if size != first:
            raise ValueError(
                f"batch leaves disagree on the batch axis: {path_name(path)} has {size} samples, "
                f"{path_name(first_path)} has {first}"
            )
    if first == 0:
        raise ValueError("batch is empty: wanted at least one sample on its leading axis")
    return first


def check_weights(weights: Any, size: int) -> None:
    """Raise ValueError unless `weights` is one non-negative finite number per sample."""
    if jnp.shape(weights) != (size,):
        raise ValueError(
            f"weights must have shape ({size},), one per sample of the batch, "
            f"got {jnp.shape(weights)}"
        )
    if is_concrete(weights):
        values = np.asarray(weights)
        wrong = np.flatnonzero(~(np.isfinite(values) & (values >= 0)))
        if wrong.size:
            raise ValueError(
                f"weights must be finite and at least 0, got {values[wrong[0]]} "
                f"for sample {wrong[0]} of the batch"
            )


def check_strength(name: str, value: Strength) -> None:
    """Raise ValueError if `value` is no scalar, or known now and negative or not finite."""
    if callable(value):
        return
    if isinstance(value, str) or jnp.shape(value) != ():
        got = repr(value) if isinstance(value, str) else f"an array of shape {jnp.shape(value)}"
        raise ValueError(f"{name} must be a number, a scalar array or a schedule, got {got}")
    if not is_concrete(value):
        return
    number = float(np.asarray(value))
    if not math.isfinite(number) or number < 0:
        raise ValueError(f"{name} must be a finite number of at least 0, got {number}")


_ANOTHER = "; was it computed for another model, or under another mask?"


def check_same_leaves(
    name: str, tree: Any, other_name: str, other: Any, *, dtypes: bool = False
) -> None:
    """Raise TreeMismatchError unless both trees cover the same leaves with the same shapes."""
    leaves, others = leaves_by_path(tree), leaves_by_path(other)
    for path in others:
        if path not in leaves:
            raise TreeMismatchError(missing_leaf(name, other_name, path) + _ANOTHER)
    for path in leaves:
        if path not in others:
            raise TreeMismatchError(missing_leaf(other_name, name, path) + _ANOTHER)
    for path, leaf in leaves.items():
        check_same_leaf(name, leaf, other_name, others[path], path, dtypes=dtypes)


def check_same_leaf(
    name: str, leaf: Any, other_name: str, other: Any, path: Any, *, dtypes: bool = False
) -> None:
    """Raise TreeMismatchError unless the two leaves at `path` agree in shape (and dtype)."""
    if jnp.shape(leaf) != jnp.shape(other):
        raise TreeMismatchError(
            f"{name}{path_name(path)} has shape {jnp.shape(leaf)}, but {other_name} has "
            f"{jnp.shape(other)} there{_ANOTHER}"
        )
    if dtypes and jnp.result_type(leaf) != jnp.result_type(other):
        raise TreeMismatchError(
            f"{name}{path_name(path)} is {jnp.result_type(leaf)}, but {other_name} is "
            f"{jnp.result_type(other)} there; cast one of them yourself, nothing is cast silently"
        )


@jax.jit
def _all_finite(leaves: list[Any]) -> list[jax.Array]:
    """Per leaf: are all entries finite?"""
    return [jnp.isfinite(leaf).all() for leaf in leaves]


@jax.jit
def _all_non_negative(leaves: list[Any]) -> list[jax.Array]:
    """Per leaf: are all entries ≥ 0?"""
    return [(leaf >= 0).all() for leaf in leaves]


_DIVERGED = ". Look for what made them so (training that diverged?) and go back to before that"


def check_finite(name: str, tree: Any, hint: str = _DIVERGED) -> None:
    """Raise NonFiniteError, naming the leaf, if `tree` holds NaN or infinity (when known)."""
    if not is_concrete(tree):
        return
    leaves = leaves_by_path(tree)
    # In the middle of a trace, too: what is known is computed now, and not staged.
    with jax.ensure_compile_time_eval():
        all_finite = _all_finite(list(leaves.values()))
    for path, finite in zip(leaves, all_finite, strict=True):
        if not finite:
            raise NonFiniteError(f"{name}{path_name(path)} has NaN or infinite entries{hint}")


def check_importance(importance: Importance, hint: str = _DIVERGED) -> None:
    """Raise unless every covered leaf is real, floating, finite and ≥ 0 (values: when known)."""
    leaves = leaves_by_path(importance)
    for path, leaf in leaves.items():
        if not jnp.issubdtype(jnp.result_type(leaf), jnp.floating):
            raise TypeError(
                f"importance{path_name(path)} is {jnp.result_type(leaf)}, wanted floating point"
            )
    check_finite("importance", importance, hint)
    if not is_concrete(importance):
        return
    with jax.ensure_compile_time_eval():
        all_non_negative = _all_non_negative(list(leaves.values()))
    for path, good in zip(leaves, all_non_negative, strict=True):
        if not good:
            raise ValueError(
                f"importance{path_name(path)} has negative entries; importance is a mean of "
                "absolute values and cannot be negative. Was a gradient passed instead?"
            )
