"""Cutting a data set into tasks: nothing lost, nothing shared, nothing by chance."""

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from experiments.data.sequences import hold_out, one_after_the_other, split_by_classes
from experiments.data.types import Examples, Splits, Task

PAIRS = [(1, 2), (3, 4), (9, 0)]


def part(count: int, offset: int = 0, classes: int = 10) -> Examples:
    """`count` examples; each one's first input is its own number, counted from `offset`."""
    numbers = np.arange(offset, offset + count)
    inputs = np.stack([numbers, -numbers], axis=1).astype(np.float32)
    return Examples(inputs, (numbers * 7 % classes).astype(np.int32))


SPLITS = Splits(part(200), part(50, offset=1000))


def numbers(examples: Examples) -> list[int]:
    """Which examples these are."""
    return examples.inputs[:, 0].astype(int).tolist()


def held_out(tasks: tuple[Task, ...]) -> set[int]:
    """All validation examples' numbers."""
    return {number for task in tasks for number in numbers(task.validation)}


@hypothesis.given(
    fraction=st.floats(0, 0.9), seed=st.integers(0, 2**32), count=st.integers(20, 200)
)
def test_train_and_validation_partition_each_tasks_training_examples(fraction, seed, count):
    splits = Splits(part(count), part(50, offset=1000))
    counts = np.bincount(splits.train.labels)
    # Otherwise a task may be left without validation examples, which is an error.
    hypothesis.assume(fraction == 0 or (np.round(fraction * counts[1:5]) >= 1).all())
    for task in split_by_classes(splits, PAIRS[:2], validation_fraction=fraction, seed=seed):
        rows = np.flatnonzero(np.isin(splits.train.labels, task.classes)).tolist()
        assert sorted(numbers(task.train) + numbers(task.validation)) == rows
        assert numbers(task.train) == sorted(numbers(task.train))
        assert set(task.train.labels) == set(task.classes)
        for label in task.classes:
            expected = min(round(fraction * counts[label]), counts[label] - 1)
            assert (task.validation.labels == label).sum() == expected


def test_tasks_have_names_classes_and_the_data_sets_own_labels_in_order():
    tasks = split_by_classes(SPLITS, PAIRS, validation_fraction=0.1)
    assert [task.name for task in tasks] == ["1/2", "3/4", "9/0"]
    assert [task.classes for task in tasks] == PAIRS
    for task in tasks:
        for examples in (task.train, task.validation, task.test):
            source = SPLITS.test if examples is task.test else SPLITS.train
            rows = np.array(numbers(examples)) - numbers(source)[0]
            np.testing.assert_array_equal(examples.inputs, source.inputs[rows])
            np.testing.assert_array_equal(examples.labels, source.labels[rows])
            assert examples.inputs.dtype == np.float32
            assert examples.labels.dtype == np.int32
        assert len(task.test.labels) == 10


def test_fraction_zero_gives_empty_validation_of_the_right_shape():
    for task in split_by_classes(SPLITS, PAIRS, validation_fraction=0):
        assert task.validation.inputs.shape == (0, 2)
        assert task.validation.labels.shape == (0,)
        assert len(task.train.labels) == 40


def test_validation_depends_on_seed_and_class_alone():
    tasks = split_by_classes(SPLITS, PAIRS, validation_fraction=0.3, seed=5)
    again = split_by_classes(SPLITS, PAIRS, validation_fraction=0.3, seed=5)
    regrouped = split_by_classes(SPLITS, [(0, 3, 2), (4, 9, 1)], validation_fraction=0.3, seed=5)
    other = split_by_classes(SPLITS, PAIRS, validation_fraction=0.3, seed=6)
    assert held_out(tasks) == held_out(again) == held_out(regrouped)
    assert held_out(tasks) != held_out(other)


def test_a_class_with_one_example_stays_in_training():
    train = Examples(np.zeros((5, 1), np.float32), np.array([0, 0, 0, 0, 1], np.int32))
    (task,) = split_by_classes(Splits(train, train), [(0, 1)], validation_fraction=0.9)
    assert sorted(task.train.labels) == [0, 1]
    assert sorted(task.validation.labels) == [0, 0, 0]


@pytest.mark.parametrize(
    ("classes", "text"),
    [
        ([], "classes is empty"),
        ([(1, 2), (3,)], r"task '3' needs at least two classes"),
        ([(1, 2), ()], r"task '' needs at least two classes"),
        ([(1, 12)], r"task '1/12' has class 12, which the data set lacks: it has 0, 1, 2, 3, "),
        ([(1, 2), (2, 3)], "class 2 is in two places"),
        ([(1, 1)], "class 1 is in two places"),
    ],
)
def test_classes_that_make_no_sequence_are_refused(classes, text):
    with pytest.raises(ValueError, match=text):
        split_by_classes(SPLITS, classes, validation_fraction=0.1)


@pytest.mark.parametrize("fraction", [-0.1, 0.91, 1.0, float("nan")])
def test_fraction_out_of_range_is_refused(fraction):
    with pytest.raises(ValueError, match=r"validation_fraction must be between 0 and 0\.9, got"):
        split_by_classes(SPLITS, PAIRS, validation_fraction=fraction)


def test_negative_seed_is_refused():
    with pytest.raises(ValueError, match="seed must be at least 0, got -1"):
        split_by_classes(SPLITS, PAIRS, validation_fraction=0.1, seed=-1)


def test_a_task_left_without_test_examples_is_refused():
    splits = Splits(part(200), part(50, classes=3))
    with pytest.raises(ValueError, match="task '3/4' is left without test examples"):
        split_by_classes(splits, PAIRS, validation_fraction=0.1)


def test_a_task_left_without_validation_examples_is_refused():
    # 20 examples a class: 0.02 of them rounds to none.
    with pytest.raises(ValueError, match=r"task '1/2' is left without validation examples: 0\.02"):
        split_by_classes(SPLITS, PAIRS, validation_fraction=0.02)


def test_holding_out_draws_what_splitting_does():
    train, validation = hold_out(SPLITS.train, validation_fraction=0.3, seed=5)
    (task,) = split_by_classes(SPLITS, [tuple(range(10))], validation_fraction=0.3, seed=5)
    for found, wanted in ((train, task.train), (validation, task.validation)):
        np.testing.assert_array_equal(found.inputs, wanted.inputs)
        np.testing.assert_array_equal(found.labels, wanted.labels)
    assert len(validation.labels) == 60


def test_holding_out_nothing_copies_nothing():
    train, validation = hold_out(SPLITS.train, validation_fraction=0)
    assert train is SPLITS.train
    assert validation.inputs.shape == (0, 2)
    assert validation.inputs.dtype == np.float32
    assert validation.labels.dtype == np.int32


@pytest.mark.parametrize(
    ("fraction", "seed", "text"),
    [(0.95, 0, "validation_fraction must be between 0 and 0.9, got 0.95"), (0, -1, "got -1")],
)
def test_holding_out_refuses_what_splitting_refuses(fraction, seed, text):
    with pytest.raises(ValueError, match=text):
        hold_out(SPLITS.train, validation_fraction=fraction, seed=seed)


def test_a_class_that_is_only_tested_on_is_refused_and_named() -> None:
    part = Examples(np.zeros((4, 3), np.float32), np.array([0, 1, 0, 1], np.int32))
    other = part._replace(labels=np.array([0, 1, 2, 1], np.int32))
    message = "task 'second' has examples of class 2 to be evaluated on, and none to train on"
    with pytest.raises(ValueError, match=message):
        one_after_the_other(
            {"first": Splits(part, part), "second": Splits(part, other)}, validation_fraction=0.0
        )
