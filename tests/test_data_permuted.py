"""Permuted tasks: what moves, what stays, and what is shared."""

import numpy as np
import pytest

from experiments.data.permuted import permuted
from experiments.data.types import Examples, Splits

PIXELS = 30


def part(count: int, seed: int) -> Examples:
    """Images whose pixels all differ, of classes 2, 5 and 7."""
    rng = np.random.default_rng(seed)
    inputs = rng.permutation(count * PIXELS).reshape(count, PIXELS).astype(np.float32)
    return Examples(inputs, np.resize(np.array([2, 5, 7], np.int32), count))


SPLITS = Splits(part(60, 0), part(12, 1))


@pytest.mark.parametrize("fraction", [0.0, 0.25])
def test_each_task_moves_all_pixels_of_all_its_parts_in_one_way(fraction):
    original, *others = permuted(SPLITS, 4, seed=3, validation_fraction=fraction)
    assert [task.name for task in others] == [f"permutation {number}" for number in (1, 2, 3)]
    orders = [tuple(range(PIXELS))]
    for task in others:
        # Pixels all differ, so the first image tells the order.
        first = original.train.inputs[0].tolist()
        order = [first.index(value) for value in task.train.inputs[0]]
        assert sorted(order) == list(range(PIXELS))
        orders.append(tuple(order))
        for one, other in zip(original[2:5], task[2:5], strict=True):
            np.testing.assert_array_equal(other.inputs, one.inputs[:, order])
            assert other.inputs.dtype == np.float32
            assert other.inputs.flags.c_contiguous
    assert len(set(orders)) == 4


def test_the_first_task_is_the_data_set_and_all_have_its_classes():
    tasks = permuted(SPLITS, 3, seed=0, validation_fraction=0.0)
    assert tasks[0].name == "original"
    assert tasks[0].train is SPLITS.train
    assert tasks[0].test is SPLITS.test
    assert [task.classes for task in tasks] == [(2, 5, 7)] * 3


@pytest.mark.parametrize("fraction", [0.0, 0.25])
def test_labels_are_shared(fraction):
    tasks = permuted(SPLITS, 3, seed=0, validation_fraction=fraction)
    for task in tasks[1:]:
        for one, other in zip(tasks[0][2:5], task[2:5], strict=True):
            assert other.labels is one.labels


def test_the_same_examples_are_held_out_of_every_task():
    # 20 examples a class, a quarter of them: 5.
    for task in permuted(SPLITS, 3, seed=1, validation_fraction=0.25):
        assert np.bincount(task.validation.labels).tolist() == [0, 0, 5, 0, 0, 5, 0, 5]
        # An image's sum outlives a permutation, and the sums all differ.
        sums = np.concatenate([task.train.inputs.sum(1), task.validation.inputs.sum(1)])
        np.testing.assert_array_equal(np.sort(sums), np.sort(SPLITS.train.inputs.sum(1)))


def test_permutations_depend_on_the_seed_and_the_number_alone():
    three = permuted(SPLITS, 3, seed=1, validation_fraction=0.0)
    five = permuted(SPLITS, 5, seed=1, validation_fraction=0.0)
    other = permuted(SPLITS, 3, seed=2, validation_fraction=0.0)
    for number in range(3):
        np.testing.assert_array_equal(three[number].test.inputs, five[number].test.inputs)
    for number in (1, 2):
        assert (three[number].test.inputs != other[number].test.inputs).any()


@pytest.mark.parametrize(
    ("kwargs", "text"),
    [
        ({"num_tasks": 0}, "num_tasks must be at least 1, got 0"),
        ({"seed": -1}, "seed must be at least 0, got -1"),
        ({"validation_fraction": 1.0}, "must be between 0 and 0.9, got 1.0"),
        ({"validation_fraction": 0.01}, "'original' is left without validation examples: 0.01 of"),
    ],
)
def test_what_makes_no_sequence_is_refused(kwargs, text):
    settings = {"num_tasks": 2, "seed": 0, "validation_fraction": 0.0, **kwargs}
    with pytest.raises(ValueError, match=text):
        permuted(SPLITS, **settings)
