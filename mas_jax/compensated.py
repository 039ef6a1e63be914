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
    """An empty sum of trees like `like`, in float32 or wider."""

    def zero(leaf: Any) -> jax.Array:
        return jnp.zeros(jnp.shape(leaf), at_least_float32(jnp.result_type(leaf)))

    return CompensatedSum(jax.tree.map(zero, like), jax.tree.map(zero, like))


def add(total: CompensatedSum, term: Any) -> CompensatedSum:
    """`total` + `term`, by Knuth's two-sum: the rounding error of each addition is exact."""
    value = jax.tree.map(jnp.add, total.value, term)

    def lost(before: jax.Array, added: jax.Array, after: jax.Array) -> jax.Array:
        kept = after - before
        return (before - (after - kept)) + (added - kept)

    residue = jax.tree.map(
        lambda residue, before, added, after: residue + lost(before, added, after),
        total.residue, total.value, term, value,
    )  # fmt: skip
    return CompensatedSum(value, residue)


def total(compensated: CompensatedSum) -> Any:
    """The sum as one tree."""
    return jax.tree.map(jnp.add, compensated.value, compensated.residue)
