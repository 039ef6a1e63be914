"""What of a picture a network sees: its middle, or what is drawn in training."""

import jax
import jax.numpy as jnp
import numpy as np

from experiments.views import WHOLE, Views

KEY = jax.random.key(0)


def pictures(count: int, height: int, width: int) -> jax.Array:
    """Pictures whose pixels are all different: 100 · row + column, and the picture's number."""
    rows, columns = np.mgrid[:height, :width]
    places = np.stack([rows, columns], -1)[None].repeat(count, 0)
    numbers = np.broadcast_to(np.arange(count)[:, None, None, None], (count, height, width, 1))
    return jnp.asarray(np.concatenate([places, numbers], -1), jnp.uint8)


def test_the_middle_is_a_square_around_the_centre() -> None:
    # 7 of 10 rows and 7 of 12 columns: one row is left above and two below, 2 and 3 columns.
    seen = Views(7).middle(pictures(2, 10, 12))
    assert seen.shape == (2, 7, 7, 3)
    assert seen[1, 0, 0].tolist() == [1, 2, 1]
    assert seen[1, -1, -1].tolist() == [7, 8, 1]


def test_inputs_without_a_side_are_left_as_they_are() -> None:
    rows = jnp.arange(6.0).reshape(2, 3)
    np.testing.assert_array_equal(WHOLE.middle(rows), rows)
    np.testing.assert_array_equal(WHOLE.drawn(KEY, rows, jnp.zeros(2, int)), rows)


def test_a_shifted_view_is_a_square_from_anywhere() -> None:
    seen = np.asarray(Views(3, shifted=True).drawn(KEY, pictures(200, 4, 5), jnp.zeros(200, int)))
    corners = seen[:, 0, 0]
    assert {tuple(corner[:2]) for corner in corners} == {(y, x) for y in (0, 1) for x in (0, 1, 2)}
    np.testing.assert_array_equal(corners[:, 2], np.arange(200))
    # Each is one piece: rows and columns go on by one.
    np.testing.assert_array_equal(seen[:, 1:, :, 0] - seen[:, :-1, :, 0], 1)
    np.testing.assert_array_equal(seen[:, :, 1:, 1] - seen[:, :, :-1, 1], 1)


def test_half_of_the_pictures_of_a_task_that_allows_it_are_mirrored() -> None:
    views = Views(4, mirrored=(True, False))
    tasks = jnp.arange(400) % 2
    seen = np.asarray(views.drawn(KEY, pictures(400, 4, 4) % 251, tasks))
    mirrored = seen[:, 0, 0, 1] == 3
    assert not mirrored[1::2].any()
    # 200 throws of a coin: 100, and five standard deviations are 35.
    assert 65 < mirrored[::2].sum() < 135
    np.testing.assert_array_equal(seen[mirrored][:, 0, :, 1], [[3, 2, 1, 0]] * mirrored.sum())
    np.testing.assert_array_equal(seen[mirrored][:, :, 0, 0], [[0, 1, 2, 3]] * mirrored.sum())


def test_a_key_gives_the_same_view_again_and_another_key_another() -> None:
    views, given, tasks = Views(3, shifted=True), pictures(20, 9, 9), jnp.zeros(20, int)
    first, again = (views.drawn(KEY, given, tasks) for _ in range(2))
    other = views.drawn(jax.random.key(1), given, tasks)
    np.testing.assert_array_equal(first, again)
    assert (np.asarray(first) != np.asarray(other)).any()
