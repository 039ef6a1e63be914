"""From the outputs for one sample to the scalar whose gradient measures importance."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from mas_jax.types import Outputs, at_least_float32


def squared_l2_norm(outputs: Outputs) -> jax.Array:
    """Compute ‖F(x)‖₂² = Σ F(x)², the functional of Memory Aware Synapses.

    Source: Aljundi et al., ECCV 2018, section 4.1: the squared ℓ2 norm needs one backward pass
    where the gradients of a vector output need one for each of its entries.

    Args:
      outputs: the outputs for one sample, any pytree; leaves that are not floating point (an
        arg-max, say) have no gradient and are left out.

    Returns:
      A scalar, summed over all leaves in float32, or wider if the outputs are.

    >>> float(squared_l2_norm({"a": jnp.array([3.0, 0.0]), "b": jnp.array(4.0)}))
    25.0
    """
    return _sum_over_leaves(lambda leaf: jnp.real(leaf * jnp.conj(leaf)), outputs)


def l2_norm(outputs: Outputs) -> jax.Array:
    """Compute ‖F(x)‖₂ = √Σ F(x)², the functional that FACIL uses.

    At F(x) = 0 the norm has no gradient; the subgradient 0 is taken.

    Args:
      outputs: as for `squared_l2_norm`.

    Returns:
      A scalar in float32, or wider if the outputs are.

    >>> float(l2_norm(jnp.array([3.0, 4.0])))
    5.0
    """
    squared = squared_l2_norm(outputs)
    # √ has an infinite derivative at 0, and 0 · ∞ is NaN: take the branch before the root, too.
    zero = squared == 0
    return jnp.where(zero, 0.0, jnp.sqrt(jnp.where(zero, 1.0, squared)))


def l1_norm(outputs: Outputs) -> jax.Array:
    """Compute ‖F(x)‖₁ = Σ |F(x)|, with the subgradient 0 where an output is 0.

    Args:
      outputs: as for `squared_l2_norm`.

    Returns:
      A scalar in float32, or wider if the outputs are.

    >>> float(l1_norm(jnp.array([3.0, -4.0])))
    7.0
    """
    return _sum_over_leaves(_magnitude, outputs)


def _magnitude(leaf: jax.Array) -> jax.Array:
    """|x|, with the derivative 0 at 0, where that of jnp.abs is 1."""
    sign = jax.lax.stop_gradient(jnp.sign(leaf))
    return jnp.real(leaf * jnp.conj(sign))


def _sum_over_leaves(fn: Callable[[jax.Array], jax.Array], outputs: Outputs) -> jax.Array:
    """The sum of `fn` over all entries of all inexact leaves, in float32 or wider."""
    terms = [
        jnp.sum(fn(leaf.astype(at_least_float32(leaf.dtype))))
        for leaf in map(jnp.asarray, jax.tree.leaves(outputs))
        if jnp.issubdtype(leaf.dtype, jnp.inexact)
    ]
    if not terms:
        raise TypeError("outputs have no floating-point leaf, so there is no gradient to measure")
    return sum(terms[1:], terms[0])
