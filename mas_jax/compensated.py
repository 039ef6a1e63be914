"""A running sum of pytrees that keeps what float32 rounding would lose."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mas_jax.types import at_least_float32


class CompensatedSum(NamedTuple):
    """A sum in two parts: `value`, and the `residue` that rounding took from it."""

    value: Any
    residue: Any


def zeros(like: Any) -> CompensatedSum:
    """An empty sum of trees like `like`, in float32 or wider, sharded as they are."""

    def zero(leaf: Any) -> jax.Array:
        return jnp.zeros_like(leaf, dtype=at_least_float32(jnp.result_type(leaf)))

    return CompensatedSum(jax.tree.map(zero, like), jax.tree.map(zero, like))


def add(total: CompensatedSum, term: Any) -> CompensatedSum:
    """`total` + `term`: the sum of two parts and one, rounded to two parts again.

    Source: Dekker, Numerische Mathematik 18 (1971). Renormalising after each term keeps the
    residue below the last digit of the value. Merely added up (Neumaier's sum), it would itself
    be a long float32 sum: 10⁶ terms of 0.256 then end 6e-5 off.
    """
    added = jax.tree.map(jnp.add, total.value, term)
    low = jax.tree.map(
        lambda residue, *parts: residue + _lost(*parts), total.residue, total.value, term, added
    )
    value = jax.tree.map(jnp.add, added, low)
    # |low| is far below |added|, so that this difference is exact (fast two-sum).
    residue = jax.tree.map(lambda low, added, value: low - (value - added), low, added, value)
    return CompensatedSum(value, residue)


def _lost(before: jax.Array, term: jax.Array, after: jax.Array) -> jax.Array:
    """What rounding took from after = before + term, exactly (Knuth's two-sum)."""
    kept = after - before
    return (before - (after - kept)) + (term - kept)


def total(compensated: CompensatedSum) -> Any:
    """The sum as one tree."""
    return jax.tree.map(jnp.add, compensated.value, compensated.residue)
