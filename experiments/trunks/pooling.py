"""Pooling as PyTorch, Caffe and Darknet do it, where Flax has no such option."""

import functools

import jax
import jax.numpy as jnp
import numpy as np


def max_pool(images: jax.Array, window: int) -> jax.Array:
    """Maxima over windows 2 apart, none of which reaches over the edge (Caffe's floor mode).

    Args:
      images: (B, H, W, C).
      window: its side; 2 or 3.
    """
    return _maxima(_maxima(images, window, 1), window, 2)


def ceil_max_pool(images: jax.Array, window: int) -> jax.Array:
    """Maxima over windows 2 apart, the last of which may reach over the edge (ceil mode).

    >>> ceil_max_pool(jnp.arange(12.0).reshape(1, 2, 6, 1), 3).ravel().tolist()
    [8.0, 10.0, 11.0]

    Args:
      images: (B, H, W, C).
      window: its side; 2 or 3.
    """
    beyond = [max(0, -(-(size - window) // 2) * 2 + window - size) for size in images.shape[1:3]]
    lowest = jnp.array(-jnp.inf, images.dtype)
    images = jax.lax.pad(images, lowest, [(0, 0, 0), *((0, more, 0) for more in beyond), (0, 0, 0)])
    return max_pool(images, window)


def _maxima(images: jax.Array, window: int, axis: int) -> jax.Array:
    """Maxima over windows along one axis, 2 apart.

    Of slices, not by `reduce_window`, whose gradient takes XLA 7 to 10 times as long on a CPU.
    Where two are equal they share the gradient, which elsewhere goes to one of them.
    """
    reach = (images.shape[axis] - window) // 2 * 2 + 1
    slices = (jax.lax.slice_in_dim(images, i, i + reach, 2, axis) for i in range(window))
    return functools.reduce(jnp.maximum, slices)


def adaptive_mean_pool(images: jax.Array, side: int) -> jax.Array:
    """(B, side, side, C): means over side × side windows, as torch.nn.AdaptiveAvgPool2d.

    Window i of n reaches from ⌊i·size/n⌋ to ⌈(i + 1)·size/n⌉: windows overlap where `size` is no
    multiple of n, and pixels are repeated where it is smaller.

    >>> adaptive_mean_pool(jnp.arange(9.0).reshape(1, 3, 3, 1), 2).ravel().tolist()
    [2.0, 3.0, 5.0, 6.0]

    Args:
      images: (B, H, W, C).
      side: n.
    """
    rows, columns = (jnp.array(_shares(size, side)) for size in images.shape[1:3])
    return jnp.einsum("hH,wW,bHWc->bhwc", rows, columns, images)


def _shares(size: int, windows: int) -> np.ndarray:
    """(windows, size) float32: the share of each pixel in each window's mean."""
    index = np.arange(windows)[:, None]
    pixels = np.arange(size)
    inside = (pixels >= index * size // windows) & (pixels < -(-(index + 1) * size // windows))
    return (inside / inside.sum(1, keepdims=True)).astype(np.float32)
