"""Facts and what a network says of pictures, on a plane: the facts' two principal axes."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt


class Plane(NamedTuple):
    """Where the facts' vectors spread most.

    Attributes:
      center: (D,) float64, the mean of the vectors.
      axes: (2, D) float64, orthonormal.
      share: the fraction of the vectors' variance that lies in the plane.
    """

    center: np.ndarray
    axes: np.ndarray
    share: float


def principal_plane(vectors: npt.ArrayLike) -> Plane:
    """Find the plane of the two principal axes of some vectors.

        axes = the first two right singular vectors of (vectors − their mean)

    in float64; of each axis and its opposite the one whose largest entry by magnitude (the first
    of equals) is above zero, so that the same vectors give the same plane.

    Args:
      vectors: (F, …) finite, at least three; what comes after the first axis is flattened.

    Returns:
      The plane.

    Raises:
      ValueError: fewer than three vectors, one that is not finite, or all on one line.

    >>> plane = principal_plane([[0.0, 0.0, 1.0], [4.0, 0.0, 1.0], [2.0, 1.0, 1.0]])
    >>> plane.axes.round(9) + 0.0
    array([[1., 0., 0.],
           [0., 1., 0.]])
    """
    vectors_FxD = _flat(vectors)
    if len(vectors_FxD) < 3 or not np.isfinite(vectors_FxD).all():
        raise ValueError(
            "a plane through facts wants at least three vectors of finite values, got "
            f"{len(vectors_FxD)}"
        )
    center_D = vectors_FxD.mean(axis=0)
    _, sizes, axes = np.linalg.svd(vectors_FxD - center_D, full_matrices=False)
    if len(sizes) < 2 or sizes[1] <= 1e-12 * sizes[0]:
        raise ValueError("the facts' vectors lie on one line, so there is no plane; take others")
    axes_2xD = axes[:2]
    largest = np.take_along_axis(axes_2xD, np.abs(axes_2xD).argmax(axis=1)[:, None], axis=1)
    share = float(np.square(sizes[:2]).sum() / np.square(sizes).sum())
    return Plane(center_D, axes_2xD * np.sign(largest), share)


def project(plane: Plane, points: npt.ArrayLike) -> np.ndarray:
    """Compute the places of points on the plane: (points − center) · axesᵀ.

    Args:
      plane: from `principal_plane`.
      points: (N, …), flattened as the vectors were.

    Returns:
      (N, 2) float64.

    >>> plane = principal_plane([[0.0, 0.0], [4.0, 0.0], [2.0, 1.5]])
    >>> project(plane, [[2.0, 0.5], [3.0, 2.5]]).round(9) + 0.0
    array([[0., 0.],
           [1., 2.]])
    """
    return (_flat(points) - plane.center) @ plane.axes.T


def _flat(values: npt.ArrayLike) -> np.ndarray:
    """One row each, in float64."""
    array = np.asarray(values, np.float64)
    return array.reshape(len(array), -1)
