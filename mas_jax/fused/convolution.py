"""The rule for `conv_general_dilated`: strided, dilated, grouped, depthwise, transposed.

A convolution is a dense layer over the patches that its kernel sees, and so is its gradient.
XLA's own kernel gradient is slower than patches on a CPU, and under `vmap` very much so.
"""

import itertools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mas_jax.fused.products import Factors, Products

MAX_SLICES = 128
"""Slices of the image that a rule writes out, each of which XLA compiles."""


class Geometry(NamedTuple):
    """Where a convolution's axes are and how its window moves; one entry per axis of space."""

    x_axes: tuple[int, ...]  # of the image: batch, channels, space
    kernel_axes: tuple[int, ...]  # out channels, in channels, space
    y_axes: tuple[int, ...]  # batch, channels, space
    window: tuple[int, ...]
    strides: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    x_dilation: tuple[int, ...]
    kernel_dilation: tuple[int, ...]
    y_space: tuple[int, ...]
    positions: int  # images × y_space
    groups: int
    channels: int  # that come in, per group
    columns: int  # that go out, per group

    def factors(self, x: jax.Array, dy: jax.Array) -> Factors:
        """Patches and cotangents of one sample, per group."""
        patches_PxTxGxC = self._patches(x)
        a = jnp.moveaxis(patches_PxTxGxC, 2, 0).reshape(self.groups, self.positions, -1)
        return a, jnp.moveaxis(self._cotangents(dy), 1, 0)

    def kernel(self, sums_GxIxO: jax.Array) -> jax.Array:
        """(groups, taps × channels, columns) as the kernel's shape."""
        sums = sums_GxIxO.reshape(self.groups, *self.window[::-1], self.channels, self.columns)
        space = range(len(self.window), 0, -1)
        sums = jnp.transpose(sums, (0, sums.ndim - 1, sums.ndim - 2, *space))
        sums = sums.reshape(self.groups * self.columns, self.channels, *self.window)
        return jnp.transpose(sums, [self.kernel_axes.index(axis) for axis in range(sums.ndim)])

    def depthwise_gradient(self, x: jax.Array, dy: jax.Array) -> jax.Array:
        """Tap by tap: a matrix product of one column per channel would be all overhead."""
        x, dy_PxGxO = self._image(x), self._cotangents(dy)

        def tap_gradient(taps: tuple[int, ...]) -> jax.Array:
            seen = x
            for axis, tap in enumerate(taps):
                seen = self._seen(seen, axis, tap)
            return jnp.sum(seen.reshape(self.positions, self.groups, 1) * dy_PxGxO, axis=0)

        # In the order in which _patches has them: the first axis of space fastest.
        order = itertools.product(*(range(size) for size in self.window[::-1]))
        return jnp.stack([tap_gradient(taps[::-1]) for taps in order], axis=1)

    def _image(self, x: jax.Array) -> jax.Array:
        """x as (images, *space, all channels), dilated and padded."""
        x = jnp.transpose(x, (self.x_axes[0], *self.x_axes[2:], self.x_axes[1]))
        inside = zip(self.padding, self.x_dilation, strict=True)
        padding = [(low, high, dilation - 1) for (low, high), dilation in inside]
        return jax.lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), *padding, (0, 0, 0)])

    def _seen(self, x: jax.Array, axis: int, tap: int) -> jax.Array:
        """What one tap of the window along one axis of space sees, position by position."""
        start, stride = tap * self.kernel_dilation[axis], self.strides[axis]
        length = (self.y_space[axis] - 1) * stride + 1
        return jax.lax.slice_in_dim(x, start, start + length, stride, axis=1 + axis)

    def _patches(self, x: jax.Array) -> jax.Array:
        """(positions, taps, groups, channels), the last axis of space slowest among the taps."""
        x = self._image(x)
        x = x.reshape(*x.shape[:-1], 1, -1)
        # Axis by axis, which takes height + width slices and not height × width.
        for axis, size in enumerate(self.window):
            x = jnp.concatenate([self._seen(x, axis, tap) for tap in range(size)], axis=-2)
        return x.reshape(self.positions, -1, self.groups, self.channels)

    def _cotangents(self, dy: jax.Array) -> jax.Array:
        """(positions, groups, columns)."""
        dy = jnp.transpose(dy, (self.y_axes[0], *self.y_axes[2:], self.y_axes[1]))
        return dy.reshape(self.positions, self.groups, self.columns)


def match(eqn: Any, kernel: int) -> Products | str:
    """The rule for input number `kernel` of a convolution, or why there is none."""
    params = eqn.params
    if kernel != 1:
        return "convolved as an image is"
    if params["batch_group_count"] != 1:
        return "convolution with batch groups"
    geometry = _geometry(params, eqn.invars[1].aval.shape, eqn.outvars[0].aval.shape)
    depthwise = geometry.groups > 1 and geometry.channels == 1
    slices = math.prod(geometry.window) if depthwise else sum(geometry.window)
    if slices > MAX_SLICES:
        return f"convolution with a window of {'×'.join(map(str, geometry.window))}"
    return Products(
        name="depthwise convolution" if depthwise else "convolution",
        blocks=geometry.groups,
        positions=geometry.positions,
        rows=math.prod(geometry.window) * geometry.channels,
        columns=geometry.columns,
        precision=params["precision"],
        factors_fn=geometry.factors,
        kernel_fn=geometry.kernel,
        gradient_fn=geometry.depthwise_gradient if depthwise else None,
    )


def _geometry(params: Any, kernel_shape: tuple[int, ...], y_shape: tuple[int, ...]) -> Geometry:
    """What the parameters of the equation and the shapes say."""
    x_axes, kernel_axes, y_axes = params["dimension_numbers"]
    y_space = tuple(y_shape[axis] for axis in y_axes[2:])
    groups = params["feature_group_count"]
    return Geometry(
        x_axes=tuple(x_axes),
        kernel_axes=tuple(kernel_axes),
        y_axes=tuple(y_axes),
        window=tuple(kernel_shape[axis] for axis in kernel_axes[2:]),
        strides=tuple(params["window_strides"]),
        padding=tuple(params["padding"]),
        x_dilation=tuple(params["lhs_dilation"]),
        kernel_dilation=tuple(params["rhs_dilation"]),
        y_space=y_space,
        positions=y_shape[y_axes[0]] * math.prod(y_space),
        groups=groups,
        channels=kernel_shape[kernel_axes[1]],
        columns=kernel_shape[kernel_axes[0]] // groups,
    )
