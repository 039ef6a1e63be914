"""The plane of some facts, against loops in float64 NumPy and closed forms."""

import numpy as np
import pytest

from experiments.facts.projection import principal_plane, project


def oracle(vectors: np.ndarray, points: np.ndarray) -> tuple[np.ndarray, float]:
    """Places of points and the share of variance, by the covariance matrix, in loops."""
    count, size = vectors.shape
    center = [sum(vectors[f, d] for f in range(count)) / count for d in range(size)]
    covariance = np.zeros((size, size))
    for f in range(count):
        for d in range(size):
            for e in range(size):
                covariance[d, e] += (vectors[f, d] - center[d]) * (vectors[f, e] - center[e])
    values, columns = np.linalg.eigh(covariance)
    places = np.zeros((len(points), 2))
    for rank in range(2):
        axis = columns[:, -1 - rank]
        sign = 1.0 if axis[max(range(size), key=lambda d: abs(axis[d]))] > 0 else -1.0
        for n in range(len(points)):
            places[n, rank] = sum(sign * axis[d] * (points[n, d] - center[d]) for d in range(size))
    return places, float(values[-2:].sum() / values.sum())


@pytest.mark.parametrize("shape", [(3, 4), (6, 15), (8, 3)])
def test_places_are_those_of_the_covariances_eigenvectors(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(shape)
    vectors, points = rng.normal(size=shape), rng.normal(size=(7, shape[1]))
    plane = principal_plane(vectors)
    places, share = oracle(vectors, points)
    np.testing.assert_allclose(project(plane, points), places, rtol=1e-10, atol=1e-12)
    assert plane.share == pytest.approx(share, rel=1e-12)


def test_a_plane_is_known_where_vectors_lie_in_one() -> None:
    # 3 and 1 along two axes about (0, 0, 5): the places are the coordinates, nothing is lost.
    plane = principal_plane([[3, 0, 5], [-3, 0, 5], [0, 1, 5], [0, -1, 5]])
    assert plane.share == pytest.approx(1.0)
    np.testing.assert_allclose(project(plane, [[2, -1, 9]]), [[2, -1]], atol=1e-12)


def test_the_sign_does_not_depend_on_the_order_of_the_facts() -> None:
    vectors = np.random.default_rng(0).normal(size=(6, 3, 5))
    first, again = principal_plane(vectors), principal_plane(vectors[::-1])
    np.testing.assert_allclose(first.axes, again.axes, atol=1e-12)
    largest = np.take_along_axis(first.axes, np.abs(first.axes).argmax(1)[:, None], axis=1)
    assert (largest > 0).all()


def test_axes_are_orthonormal_and_in_float64() -> None:
    plane = principal_plane(np.random.default_rng(1).normal(size=(5, 3, 4)).astype(np.float32))
    np.testing.assert_allclose(plane.axes @ plane.axes.T, np.eye(2), atol=1e-14)
    assert plane.axes.dtype == plane.center.dtype == np.float64


@pytest.mark.parametrize(
    ("vectors", "text"),
    [
        ([[0.0, 1.0], [1.0, 0.0]], "at least three vectors .* got 2"),
        ([[0.0, 1.0], [1.0, 0.0], [np.nan, 0.0]], "finite values"),
        ([[0.0, 1.0], [1.0, 2.0], [2.0, 3.0]], "lie on one line"),
        ([[1.0, 1.0]] * 3, "lie on one line"),
    ],
)
def test_vectors_without_a_plane_are_refused(vectors: list[list[float]], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        principal_plane(vectors)
