"""A sequence of tasks cut from one data set by its classes."""

from collections.abc import Mapping, Sequence

import numpy as np

from experiments.data.types import Examples, PictureSplits, Splits, Task

MAX_VALIDATION_FRACTION = 0.9


def split_by_classes(
    splits: Splits,
    classes: Sequence[tuple[int, ...]],
    *,
    validation_fraction: float,
    seed: int = 0,
) -> tuple[Task, ...]:
    """Cut one task per tuple of classes, with validation data from the training part.

    Of a class with n training examples, round(validation_fraction · n), but never all of them,
    are drawn for validation. The draw depends on the seed and the class alone: neither the
    other tasks nor their order change it. Examples keep the data set's order, labels stay the
    data set's own.

    Args:
      splits: the data set.
      classes: for each task its classes, at least two; no class in two places.
      validation_fraction: between 0 and 0.9; with 0 the validation parts are empty.
      seed: which examples become validation data; at least 0.

    Returns:
      One task for each tuple, in order, named by its classes: (1, 2) is "1/2".

    Raises:
      ValueError: an unknown class, a class in two places, a task with one class, no tasks, a
        fraction or seed out of range, or a part of a task that would be left without examples.

    >>> part = Examples(np.zeros((8, 3), np.float32), np.array([0, 1, 2, 3] * 2, np.int32))
    >>> tasks = split_by_classes(Splits(part, part), [(0, 1), (3, 2)], validation_fraction=0.5)
    >>> [(task.name, len(task.train.labels), len(task.validation.labels)) for task in tasks]
    [('0/1', 2, 2), ('3/2', 2, 2)]
    """
    _check_draw(validation_fraction, seed)
    _check_classes(classes, splits.train.labels)
    held_out = _draw_validation(splits.train.labels, validation_fraction, seed)
    tasks = tuple(_task(splits, tuple(map(int, group)), held_out) for group in classes)
    for task in tasks:
        check_not_empty(task, validation_fraction)
    return tasks


def hold_out(
    train: Examples, *, validation_fraction: float, seed: int = 0
) -> tuple[Examples, Examples]:
    """Cut a training part into training and validation data, as `split_by_classes` does.

    Args:
      train: the data set's training part.
      validation_fraction: of each class, between 0 and 0.9. With 0, nothing is copied.
      seed: which examples become validation data; at least 0.

    Returns:
      Training and validation data, each in the data set's order.

    Raises:
      ValueError: a fraction or seed out of range.

    >>> part = Examples(np.zeros((8, 3), np.float32), np.array([0, 1] * 4, np.int32))
    >>> [len(part.labels) for part in hold_out(part, validation_fraction=0.25)]
    [6, 2]
    """
    _check_draw(validation_fraction, seed)
    if validation_fraction == 0:
        return train, Examples(train.inputs[:0], train.labels[:0])
    held_out = _draw_validation(train.labels, validation_fraction, seed)
    return _rows(train, ~held_out), _rows(train, held_out)


def one_after_the_other(
    data: Mapping[str, Splits | PictureSplits], *, validation_fraction: float, seed: int = 0
) -> tuple[Task, ...]:
    """Make each data set a task, its classes numbered on from the ones before.

    Args:
      data: by the task's name; labels from 0, without a gap in the training part.
      validation_fraction: of each class's training examples, between 0 and 0.9, drawn as
        `split_by_classes` does; independent of the other data sets.
      seed: which examples become validation data; at least 0.

    Returns:
      A task for each data set, in order.

    Raises:
      ValueError: a fraction or seed out of range, a part left without examples, or a class in
        a task's test part that its training part lacks.

    >>> part = Examples(np.zeros((8, 3), np.float32), np.array([0, 1] * 4, np.int32))
    >>> data = {"first": Splits(part, part), "second": Splits(part, part)}
    >>> [task.classes for task in one_after_the_other(data, validation_fraction=0.25)]
    [(0, 1), (2, 3)]
    """
    tasks, offset = [], 0
    for name, splits in data.items():
        parts = hold_out(splits.train, validation_fraction=validation_fraction, seed=seed)
        tasks.append(_whole(name, (*parts, splits.test), offset))
        if isinstance(splits, PictureSplits):
            names = splits.skipped
            tasks[-1] = tasks[-1]._replace(skipped=len(names), skipped_names=names)
        check_not_empty(tasks[-1], validation_fraction)
        offset += len(tasks[-1].classes)
    return tuple(tasks)


def _whole(name: str, parts: Sequence[Examples], offset: int) -> Task:
    """A whole data set as a task, its classes numbered from `offset`."""
    known = set(parts[0].labels.tolist())
    for part in parts[1:]:
        if unknown := sorted(set(part.labels.tolist()) - known):
            raise ValueError(
                f"task {name!r} has examples of class {unknown[0]} to be evaluated on, and none to "
                "train on: its training part lacks that class"
            )
    count = max(known, default=-1) + 1
    train, validation, test = (
        Examples(part.inputs, part.labels + np.int32(offset)) for part in parts
    )
    return Task(name, tuple(range(offset, offset + count)), train, validation, test)


def _check_draw(validation_fraction: float, seed: int) -> None:
    """Raise ValueError unless both are in range."""
    if not 0 <= validation_fraction <= MAX_VALIDATION_FRACTION:
        raise ValueError(
            f"validation_fraction must be between 0 and {MAX_VALIDATION_FRACTION}, "
            f"got {validation_fraction}"
        )
    if seed < 0:
        raise ValueError(f"seed must be at least 0, got {seed}")


def _check_classes(classes: Sequence[tuple[int, ...]], labels: np.ndarray) -> None:
    """Raise ValueError unless every task has two known classes or more, each in one place."""
    if not classes:
        raise ValueError("classes is empty, wanted a tuple of classes for each task")
    known = {int(label) for label in np.unique(labels)}
    seen = set()
    for group in classes:
        if len(group) < 2:
            raise ValueError(f"task {_name(group)!r} needs at least two classes to tell apart")
        for label in group:
            if label not in known:
                raise ValueError(
                    f"task {_name(group)!r} has class {label}, which the data set lacks: it has "
                    f"{', '.join(map(str, sorted(known)))}"
                )
            if label in seen:
                raise ValueError(f"class {label} is in two places, wanted each class in one task")
            seen.add(label)


def _draw_validation(labels: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """(N,) bool: which training examples are held out, drawn class by class."""
    held_out = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        count = min(round(fraction * len(rows)), len(rows) - 1)
        held_out[np.random.default_rng([seed, int(label)]).permutation(rows)[:count]] = True
    return held_out


def _task(splits: Splits, classes: tuple[int, ...], held_out: np.ndarray) -> Task:
    """The task of telling `classes` apart."""
    mine = np.isin(splits.train.labels, classes)
    return Task(
        name=_name(classes),
        classes=classes,
        train=_rows(splits.train, mine & ~held_out),
        validation=_rows(splits.train, mine & held_out),
        test=_rows(splits.test, np.isin(splits.test.labels, classes)),
    )


def _name(classes: Sequence[int]) -> str:
    """A task's name."""
    return "/".join(map(str, classes))


def _rows(examples: Examples, chosen: np.ndarray) -> Examples:
    """The chosen examples, in their order."""
    return Examples(examples.inputs[chosen], examples.labels[chosen])


def check_not_empty(task: Task, validation_fraction: float) -> None:
    """Raise ValueError if a part of the task that is wanted has no examples."""
    if not len(task.test.labels):
        raise ValueError(f"task {task.name!r} is left without test examples")
    if validation_fraction > 0 and not len(task.validation.labels):
        raise ValueError(
            f"task {task.name!r} is left without validation examples: {validation_fraction} of "
            f"{len(task.train.labels)} training examples rounds to none of each class; "
            "raise validation_fraction, or set it to 0"
        )
