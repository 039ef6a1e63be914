"""Names for what flows through the library."""

from collections.abc import Callable
from typing import Any, Literal, Protocol, TypeAlias

import jax
import jax.numpy as jnp
import optax

Params: TypeAlias = Any
"""The learned parameters θ: any pytree of arrays."""

Batch: TypeAlias = Any
"""Unlabelled inputs: any pytree of arrays with one common leading axis, the samples."""

Outputs: TypeAlias = Any
"""What the network computes, F(x; θ): any pytree of arrays."""

Importance: TypeAlias = Any
"""Ω: float32 (or wider) arrays shaped like the parameters they weigh, `optax.MaskedNode()`
in the places of parameters that carry none."""

Mask: TypeAlias = Any
"""Which parameters carry importance: a pytree of bools with the parameters' structure or a
prefix of it, or a callable from parameters to such a tree. True is anchored."""

Objective: TypeAlias = Callable[[Outputs], jax.Array]
"""From the outputs for one sample (no batch axis) to the scalar whose gradient is measured, or to
a vector (O,), of whose entries the gradients are."""

OverOutputs: TypeAlias = Literal["sum", "l2"]
"""What becomes of a sample's gradients g_o of a vector objective's entries: Σ_o red(g_o), or
√Σ_o g_o²."""

Strength: TypeAlias = jax.typing.ArrayLike | optax.Schedule
"""λ: a number, a scalar array, or a schedule from step count to one of these."""


class ApplyFn(Protocol):
    """The learned function, batched on axis 0 of inputs and outputs, in evaluation mode."""

    def __call__(self, params: Params, batch: Batch, /) -> Outputs: ...


def at_least_float32(dtype: Any) -> Any:
    """The dtype in which values of `dtype` are summed: float32, or `dtype` itself if wider."""
    # NumPy's float64 is float32 to JAX unless 64-bit types are turned on.
    known = jax.dtypes.canonicalize_dtype(dtype)
    return known if known in (jnp.float64, jnp.complex64, jnp.complex128) else jnp.float32
