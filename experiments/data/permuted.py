"""Permuted tasks: one data set, and the same with its pixels in other orders."""

import numpy as np

from experiments.data.sequences import check_not_empty, hold_out
from experiments.data.types import Examples, Splits, Task


def permuted(
    splits: Splits, num_tasks: int, *, seed: int, validation_fraction: float
) -> tuple[Task, ...]:
    """Make tasks of a data set: as it is, then under fixed random permutations of the pixels.

    Permutation k depends on the seed, k and the number of pixels alone, so that a longer sequence
    begins as a shorter one does. All tasks have the same classes, and the same examples held out
    for validation; those are drawn as `split_by_classes` does.

    Memory: each permuted task holds its own inputs (for MNIST 220 MB); labels, and with
    validation_fraction 0 the original's inputs, are shared.

    Source: Goodfellow et al., An empirical investigation of catastrophic forgetting, 2013, arXiv
    1312.6211; ten tasks: Zenke et al., 2017, arXiv 1703.04200.

    Args:
      splits: the data set; inputs (N, D) float32.
      num_tasks: at least 1, the original included.
      seed: which permutations, and which examples become validation data; at least 0.
      validation_fraction: of each class's training examples, between 0 and 0.9.

    Returns:
      Tasks "original", "permutation 1", "permutation 2", …; all classes in each.

    Raises:
      ValueError: num_tasks, the fraction or the seed is out of range, or a part that is wanted
        would be left without examples.

    >>> part = Examples(np.eye(6, dtype=np.float32), np.array([0, 1] * 3, np.int32))
    >>> tasks = permuted(Splits(part, part), 3, seed=0, validation_fraction=0.0)
    >>> [task.name for task in tasks]
    ['original', 'permutation 1', 'permutation 2']
    >>> tasks[1].train.inputs.argmax(1)  # where each pixel went
    array([3, 0, 4, 2, 1, 5])
    """
    if num_tasks < 1:
        raise ValueError(f"num_tasks must be at least 1, got {num_tasks}")
    train, validation = hold_out(splits.train, validation_fraction=validation_fraction, seed=seed)
    classes = tuple(np.unique(splits.train.labels).tolist())
    original = Task("original", classes, train, validation, splits.test)
    check_not_empty(original, validation_fraction)
    return (original, *(_permute(original, seed, number) for number in range(1, num_tasks)))


def _permute(task: Task, seed: int, number: int) -> Task:
    """The task with its pixels in another order."""
    order = np.random.default_rng([seed, number]).permutation(task.train.inputs.shape[1])
    # take keeps rows contiguous, where inputs[:, order] gives columns that are.
    train, validation, test = (
        Examples(np.take(part.inputs, order, axis=1), part.labels)
        for part in (task.train, task.validation, task.test)
    )
    return Task(f"permutation {number}", task.classes, train, validation, test)
