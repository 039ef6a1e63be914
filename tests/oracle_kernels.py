"""Gradients of kernels for one sample, term by term, in loops: float64 NumPy and nothing else.

Each function takes what the operation saw (x) and the cotangent of what it returned (dy), and
returns the gradient of its kernel. `sum_of_magnitudes` is what is made of them for a batch.
"""

import itertools
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


def sum_of_magnitudes(
    magnitude: Callable[[float], float],
    gradients: Sequence[Array],
    weights: Sequence[float] | Array,
) -> Array:
    """Σ_k w_k magnitude(g_k), entry by entry."""
    total = np.zeros(gradients[0].shape)
    for gradient, weight in zip(gradients, weights, strict=True):
        for index in np.ndindex(*total.shape):
            total[index] += weight * magnitude(float(gradient[index]))
    return total


def einsum_kernel_gradient(
    equation: str, x: Array, dy: Array, kernel_shape: Sequence[int]
) -> Array:
    """Of "x letters,kernel letters->y letters", summed over every value of every letter."""
    inputs, y_letters = equation.split("->")
    x_letters, kernel_letters = inputs.split(",")
    sizes = dict(zip(x_letters + kernel_letters, (*x.shape, *kernel_shape), strict=True))
    gradient = np.zeros(tuple(kernel_shape))
    for values in itertools.product(*(range(size) for size in sizes.values())):
        value = dict(zip(sizes, values, strict=True))
        at = [tuple(value[letter] for letter in letters) for letters in (x_letters, y_letters)]
        gradient[tuple(value[letter] for letter in kernel_letters)] += x[at[0]] * dy[at[1]]
    return gradient


def convolution_kernel_gradient(
    x: Array,
    dy: Array,
    window: Sequence[int],
    *,
    window_strides: Sequence[int],
    padding: Sequence[tuple[int, int]],
    lhs_dilation: Sequence[int],
    rhs_dilation: Sequence[int],
    groups: int,
) -> Array:
    """(O, I, *window) from x (N, C, *space) and dy (N, O, *space); tap by tap, no padded array."""
    images, columns = dy.shape[:2]
    channels = x.shape[1] // groups
    gradient = np.zeros((columns, channels, *window))
    for image, column in itertools.product(range(images), range(columns)):
        group = column // (columns // groups)
        for position in np.ndindex(*dy.shape[2:]):
            for tap in np.ndindex(*window):
                seen = []  # the entry of x that this tap sees, unless that is padding or a gap
                for axis, size in enumerate(x.shape[2:]):
                    place = position[axis] * window_strides[axis] + tap[axis] * rhs_dilation[axis]
                    entry, in_gap = divmod(place - padding[axis][0], lhs_dilation[axis])
                    if not in_gap and 0 <= entry < size:
                        seen.append(entry)
                if len(seen) < len(window):
                    continue
                for channel in range(channels):
                    value = x[(image, group * channels + channel, *seen)]
                    gradient[(column, channel, *tap)] += value * dy[(image, column, *position)]
    return gradient


def lookup_kernel_gradient(
    indices: npt.NDArray[np.integer], dy: Array, table_shape: Sequence[int], out_of_bounds: str
) -> Array:
    """Of a table whose rows are looked up, dy (*indices.shape, *row).

    Out of bounds (which negative numbers are) is "clip", to the nearest row, or "drop".
    """
    gradient = np.zeros(tuple(table_shape))
    for index in np.ndindex(*indices.shape):
        row = int(indices[index])
        if out_of_bounds == "clip":
            row = min(max(row, 0), table_shape[0] - 1)
        if not 0 <= row < table_shape[0]:
            continue
        for column in np.ndindex(*table_shape[1:]):
            gradient[(row, *column)] += dy[(*index, *column)]
    return gradient
