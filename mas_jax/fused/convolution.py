"""The rule for `conv_general_dilated`: strided, dilated, grouped, depthwise, transposed.

A convolution is a dense layer over the patches that its kernel sees, and so is its gradient.
XLA's own kernel gradient is slower than patches on a CPU, and under `vmap` very much so.
"""

import itertools
import math
from typing import Any

import jax
import jax.numpy as jnp

from mas_jax.fused.products import Factors, Products


def match(eqn: Any, kernel: int) -> Products | str:
    """The rule for input number `kernel` of a convolution, or why there is none."""
    params = eqn.params
    if kernel != 1:
        return "convolved as an image is"
    if params["batch_group_count"] != 1:
        return "convolution with batch groups"
    x_axes, kernel_axes, y_axes = params["dimension_numbers"]
    columns_axis, rows_axis, *window_axes = kernel_axes
    kernel_shape = eqn.invars[1].aval.shape
    y_shape = eqn.outvars[0].aval.shape
    window = [kernel_shape[axis] for axis in window_axes]
    groups = params["feature_group_count"]
    channels = kernel_shape[rows_axis]  # per group
    columns = kernel_shape[columns_axis] // groups
    positions = y_shape[y_axes[0]] * math.prod(y_shape[axis] for axis in y_axes[2:])
    taps = math.prod(window)

    def image(x: jax.Array) -> jax.Array:
        """x as (images, *space, all channels), dilated and padded."""
        x = jnp.transpose(x, (x_axes[0], *x_axes[2:], x_axes[1]))
        inside = zip(params["padding"], params["lhs_dilation"], strict=True)
        padding = [(low, high, dilation - 1) for (low, high), dilation in inside]
        return jax.lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), *padding, (0, 0, 0)])

    def shifted(x: jax.Array, axis: int, tap: int) -> jax.Array:
        """What one tap of the window along one axis of space sees, position by position."""
        start = tap * params["rhs_dilation"][axis]
        stride = params["window_strides"][axis]
        length = (y_shape[y_axes[2 + axis]] - 1) * stride + 1
        return jax.lax.slice_in_dim(x, start, start + length, stride, axis=1 + axis)

    def patches(x: jax.Array) -> jax.Array:
        """(positions, taps with the last axis of space slowest, groups, channels)."""
        x = image(x)
        x = x.reshape(*x.shape[:-1], 1, -1)
        for axis, size in enumerate(window):
            x = jnp.concatenate([shifted(x, axis, tap) for tap in range(size)], axis=-2)
        return x.reshape(positions, taps, groups, channels)

    def output(dy: jax.Array) -> jax.Array:
        """(positions, groups, columns)."""
        dy = jnp.transpose(dy, (y_axes[0], *y_axes[2:], y_axes[1]))
        return dy.reshape(positions, groups, columns)

    def factors_fn(x: jax.Array, dy: jax.Array) -> Factors:
        a = jnp.moveaxis(patches(x), 2, 0)
        return a.reshape(groups, positions, taps * channels), jnp.moveaxis(output(dy), 1, 0)

    def depthwise_gradient_fn(x: jax.Array, dy: jax.Array) -> jax.Array:
        """Tap by tap: a matrix product of one column per channel would be all overhead."""
        x, dy_PxGxO = image(x), output(dy)

        def tap_gradient(taps: tuple[int, ...]) -> jax.Array:
            seen = x
            for axis, tap in enumerate(taps):
                seen = shifted(seen, axis, tap)
            return jnp.sum(seen.reshape(positions, groups, 1) * dy_PxGxO, axis=0)

        # In the order in which patches() has them: the first axis of space fastest.
        order = itertools.product(*(range(size) for size in reversed(window)))
        return jnp.stack([tap_gradient(taps[::-1]) for taps in order], axis=1)

    def kernel_fn(sums_GxIxO: jax.Array) -> jax.Array:
        sums = sums_GxIxO.reshape(groups, *reversed(window), channels, columns)
        space = range(len(window), 0, -1)
        sums = jnp.transpose(sums, (0, sums.ndim - 1, sums.ndim - 2, *space))
        sums = sums.reshape(groups * columns, channels, *window)
        return jnp.transpose(sums, [kernel_axes.index(axis) for axis in range(sums.ndim)])

    return Products(
        name="convolution" if channels > 1 or groups == 1 else "depthwise convolution",
        blocks=groups,
        positions=positions,
        rows=taps * channels,
        columns=columns,
        precision=params["precision"],
        factors_fn=factors_fn,
        kernel_fn=kernel_fn,
        gradient_fn=depthwise_gradient_fn if groups > 1 and channels == 1 else None,
    )
