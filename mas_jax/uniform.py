"""Uniform importance: every parameter matters alike, the L2 baseline."""

import jax
import jax.numpy as jnp

from mas_jax import trees
from mas_jax.types import Importance, Mask, Params, at_least_float32


def uniform_importance(params: Params, mask: Mask = None) -> Importance:
    """Return Ω = 1 for every parameter, with which the penalty is (λ/2) ‖θ − θ*‖².

    The L2 baseline: it anchors as all methods here do, and knows nothing of what matters. It
    does not grow with the number of tasks under `consolidate(rule="replace")`, or "max".
    Source: "L2" in Kirkpatrick et al., PNAS 2017, Fig. 2A.

    Args:
      params: θ, any pytree of arrays. Only shapes, dtypes and shardings are used.
      mask: which parameters carry importance: a pytree of bools like params, a prefix of one, or
        a function from params to that. Integer, boolean and key leaves never do.

    Returns:
      Ones in float32 (float64 for float64 parameters) like params, and `optax.MaskedNode()` for
      what carries none.

    Raises:
      ValueError: no leaf of params can carry importance.
      TypeError, TreeMismatchError: a complex leaf that is not masked; a mask that does not fit.

    >>> uniform_importance({"w": jnp.zeros(2), "steps": jnp.arange(2)})
    {'steps': MaskedNode(), 'w': Array([1., 1.], dtype=float32)}
    """
    selected = trees.select(params, trees.covered(params, mask))
    if not jax.tree.leaves(selected):
        raise ValueError(
            "no leaf of params can carry importance: wanted at least one floating-point leaf "
            f"that mask includes, got none among {len(jax.tree.leaves(params))} leaves"
        )
    return jax.tree.map(
        lambda leaf: jnp.ones_like(leaf, at_least_float32(jnp.result_type(leaf))), selected
    )
