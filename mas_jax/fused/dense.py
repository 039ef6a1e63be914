"""The rule for `dot_general`: dense layers, attention projections, einsums."""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from mas_jax.fused.products import Factors, Products


def match(eqn: Any, kernel: int) -> Products:
    """The rule for input number `kernel` of a dot_general, the other one being activations."""
    contracted, batched = eqn.params["dimension_numbers"]
    x_shape, kernel_shape = (eqn.invars[i].aval.shape for i in (1 - kernel, kernel))
    x_rows, kernel_rows = contracted[1 - kernel], contracted[kernel]
    x_blocks, kernel_blocks = batched[1 - kernel], batched[kernel]
    x_free = _others(len(x_shape), (*x_rows, *x_blocks))
    kernel_free = _others(len(kernel_shape), (*kernel_rows, *kernel_blocks))

    blocks, positions, rows, columns = (
        math.prod(shape[axis] for axis in axes)
        for shape, axes in [
            (x_shape, x_blocks),
            (x_shape, x_free),
            (x_shape, x_rows),
            (kernel_shape, kernel_free),
        ]
    )

    def factors_fn(x: jax.Array, dy: jax.Array) -> Factors:
        a = jnp.transpose(x, (*x_blocks, *x_free, *x_rows))
        b = dy.reshape(blocks, positions, columns)
        if kernel == 0:  # the output is (blocks, the left input's free axes, the right's)
            b = jnp.swapaxes(dy.reshape(blocks, columns, positions), 1, 2)
        return a.reshape(blocks, positions, rows), b

    axes = (*kernel_blocks, *kernel_rows, *kernel_free)

    def kernel_fn(sums_NxIxO: jax.Array) -> jax.Array:
        sums = sums_NxIxO.reshape([kernel_shape[axis] for axis in axes])
        return jnp.transpose(sums, [axes.index(axis) for axis in range(len(axes))])

    name = "dense" if positions == 1 else "dense over positions"
    precision = eqn.params["precision"]
    return Products(name, blocks, positions, rows, columns, precision, factors_fn, kernel_fn)


def _others(rank: int, axes: Sequence[int]) -> tuple[int, ...]:
    """The axes of an array of `rank` that are not in `axes`, in order."""
    return tuple(axis for axis in range(rank) if axis not in axes)
