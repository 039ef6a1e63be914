"""Which rule a use of a parameter falls under: the table of primitives."""

from collections.abc import Callable
from typing import Any, Protocol

import jax
import jax.numpy as jnp

from mas_jax.fused import convolution, dense, embedding
from mas_jax.fused.products import Work
from mas_jax.per_sample import ReduceFn, VectorMagnitude


class Rule(Protocol):
    """How Σ_k w_k red(g_k) is had for one use of a kernel y = op(x, kernel)."""

    @property
    def name(self) -> str: ...

    def bytes_held(self, size: int) -> int:
        """What the rule holds for a batch of `size` samples beside what the network holds."""
        ...

    def work(self, size: int) -> Work:
        """An estimate of what the sums cost for a batch of `size` samples."""
        ...

    def sum_over_samples(
        self, reduce_fn: ReduceFn, dtype: Any, x_B: jax.Array, dy_B: jax.Array, weights_B: jax.Array
    ) -> jax.Array:
        """The sum, of the kernel's shape, from what x and the cotangent of y are per sample."""
        ...

    def sum_over_outputs(
        self,
        magnitude: VectorMagnitude,
        dtype: Any,
        x_B: jax.Array,
        dy_BxO: jax.Array,
        weights_B: jax.Array,
    ) -> jax.Array:
        """The same for a vector objective: of a sample one cotangent of y for each entry."""
        ...


MATCHERS: dict[str, Callable[[Any, int], Rule | str]] = {
    "dot_general": dense.match,
    "conv_general_dilated": convolution.match,
    "gather": embedding.match,
}


def match(eqn: Any, kernel: int) -> Rule | str:
    """The rule for an equation whose input number `kernel` is a parameter, or why there is none."""
    matcher = MATCHERS.get(eqn.primitive.name)
    if matcher is None:
        return f"used by {eqn.primitive.name}"
    atoms = [*eqn.invars, *eqn.outvars]
    if any(jnp.issubdtype(atom.aval.dtype, jnp.complexfloating) for atom in atoms):
        return f"{eqn.primitive.name} of complex numbers"
    if any(atom.aval.size == 0 for atom in atoms):
        return f"{eqn.primitive.name} of an empty array"
    return matcher(eqn, kernel)
