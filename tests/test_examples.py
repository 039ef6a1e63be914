"""Examples on the device: each once in an epoch, or so many steps of them; filling never counts."""

import jax
import numpy as np
import pytest

from experiments.data.types import Examples
from experiments.examples import in_order, shuffled_batches, to_device


def some_examples(size: int, label_offset: int = 0) -> Examples:
    rng = np.random.default_rng(size)
    labels = rng.integers(0, 2, size).astype(np.int32) + label_offset
    return Examples(rng.normal(size=(size, 3)).astype(np.float32), labels)


def test_filling_repeats_the_first_example() -> None:
    first, second = some_examples(5), some_examples(4, 2)
    examples = to_device([(0, first), (3, second)], length=11)
    assert int(examples.size) == 9
    filled = np.concatenate([first.inputs, second.inputs, first.inputs[[0, 0]]])
    np.testing.assert_array_equal(examples.batch.inputs, filled)
    assert np.asarray(examples.batch.tasks).tolist() == [0] * 5 + [3] * 4 + [0] * 2
    assert np.asarray(examples.labels)[9:].tolist() == [first.labels[0]] * 2


def test_shuffled_batches_hold_each_example_once_and_filling_at_weight_0() -> None:
    examples = to_device([(0, some_examples(13))], length=20)
    rows, weights = shuffled_batches(jax.random.key(0), examples, batch_size=8)
    assert rows.shape == weights.shape == (3, 8)
    real = np.asarray(rows)[np.asarray(weights) > 0]
    assert sorted(real.tolist()) == list(range(13))
    assert np.asarray(weights).ravel().tolist() == [1.0] * 13 + [0.0] * 11


@pytest.mark.parametrize("steps", [None, 5])
def test_shuffle_depends_on_the_key(steps: int | None) -> None:
    examples = to_device([(0, some_examples(50))], length=50)
    first, second = (
        shuffled_batches(jax.random.key(seed), examples, 10, steps)[0] for seed in (0, 1)
    )
    assert (first != second).any()


# 6 steps of 5 are 30 rows: two passes and a part of a third, three whole ones, a part of one.
@pytest.mark.parametrize(("size", "length"), [(13, 13), (13, 20), (10, 40), (35, 35), (33, 100)])
def test_with_steps_passes_over_the_real_examples_follow_one_another(
    size: int, length: int
) -> None:
    examples = to_device([(0, some_examples(size))], length=length)
    rows, weights = shuffled_batches(jax.random.key(2), examples, batch_size=5, steps=6)
    assert rows.shape == weights.shape == (6, 5)
    assert (np.asarray(weights) == 1).all()
    drawn = np.asarray(rows).ravel()
    for start in range(0, 30, size):
        of_pass = drawn[start : start + size]
        assert len(set(of_pass.tolist())) == len(of_pass)
        assert set(of_pass.tolist()) <= set(range(size))


def test_with_steps_each_pass_has_an_order_of_its_own() -> None:
    examples = to_device([(0, some_examples(15))], length=15)
    rows, _ = shuffled_batches(jax.random.key(0), examples, batch_size=15, steps=2)
    assert (rows[0] != rows[1]).any()


def test_with_steps_a_pass_that_is_cut_short_draws_from_all_examples() -> None:
    # 16 rows of 12 examples: the second pass is a third of one, and each example in it with
    # probability 1/3. Over 60 keys, 20 times on average, with a standard deviation of 3.7.
    examples = to_device([(0, some_examples(12))], length=12)
    draws = [
        np.asarray(shuffled_batches(jax.random.key(seed), examples, 4, steps=4)[0]).ravel()[12:]
        for seed in range(60)
    ]
    counts = np.bincount(np.concatenate(draws), minlength=12)
    assert counts.sum() == 240
    assert counts.min() > 5
    assert counts.max() < 35


def test_batches_in_order_cover_the_examples() -> None:
    examples = to_device([(0, some_examples(9))], length=11)
    rows, weights = in_order(examples, batch_size=4)
    assert rows.shape == (3, 4)
    assert np.asarray(rows).ravel()[:11].tolist() == list(range(11))
    assert np.asarray(weights).ravel().tolist() == [1.0] * 9 + [0.0] * 3
