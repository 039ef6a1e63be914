"""From the outputs for one sample to the number or vector whose gradient measures importance."""

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


def every_output(outputs: Outputs) -> jax.Array:
    """List F(x) entry by entry, for importance from the gradient of each output.

    With magnitude="l2" importance is the ℓ2 norm of the vector of these gradients (the paper's
    vector output), with "abs" its ℓ1 norm, with "square" Σ_o (∂F_o/∂θ)², the Fisher information
    of a Gaussian likelihood with mean F and variance 1. Each takes O backward passes, where
    `squared_l2_norm` takes one.

    Source: Aljundi et al., ECCV 2018, section 4.1.

    Args:
      outputs: as for `squared_l2_norm`.

    Returns:
      A vector (O,) of all entries of all leaves in order, in float32 or wider; a complex leaf
      gives its real, then its imaginary parts.

    >>> every_output({"a": jnp.array([[3.0], [0.5]]), "b": jnp.array(4.0)})
    Array([3. , 0.5, 4. ], dtype=float32)
    """
    leaves = _inexact_leaves(outputs)
    parts = [
        part
        for leaf in leaves
        for part in ((leaf.real, leaf.imag) if jnp.iscomplexobj(leaf) else (leaf,))
    ]
    widest = max((part.dtype for part in parts), key=lambda dtype: dtype.itemsize)
    return jnp.concatenate([part.astype(widest).ravel() for part in parts])


def _magnitude(leaf: jax.Array) -> jax.Array:
    """|x|, with the derivative 0 at 0, where that of jnp.abs is 1."""
    sign = jax.lax.stop_gradient(jnp.sign(leaf))
    return jnp.real(leaf * jnp.conj(sign))


def _sum_over_leaves(fn: Callable[[jax.Array], jax.Array], outputs: Outputs) -> jax.Array:
    """The sum of `fn` over all entries of all inexact leaves, in float32 or wider."""
    terms = [jnp.sum(fn(leaf)) for leaf in _inexact_leaves(outputs)]
    return sum(terms[1:], terms[0])


def _inexact_leaves(outputs: Outputs) -> list[jax.Array]:
    """The leaves that have a gradient, at least one, in float32 or wider."""
    leaves = [
        leaf.astype(at_least_float32(leaf.dtype))
        for leaf in map(jnp.asarray, jax.tree.leaves(outputs))
        if jnp.issubdtype(leaf.dtype, jnp.inexact)
    ]
    if not leaves:
        raise TypeError("outputs have no floating-point leaf, so there is no gradient to measure")
    return leaves
