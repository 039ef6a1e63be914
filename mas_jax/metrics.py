"""What a sequence of tasks did to a network: numbers from the accuracy matrix, and from rankings.

The accuracy matrix R is T × T: `accuracy[i, j]` is the accuracy on task j after learning task i,
as a fraction. Everything here is NumPy in float64, on the host.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

Float64Array = npt.NDArray[np.float64]


def average_accuracy(accuracy: npt.ArrayLike) -> float:
    """Compute the mean over tasks of the accuracy after the last one: (1/T) Σ_j R[T−1, j].

    Source: Lopez-Paz and Ranzato, NeurIPS 2017, Eq. 2 (ACC).

    Args:
      accuracy: R, (T, T); only the last row is read.

    Returns:
      A fraction.

    Raises:
      ValueError: R is not square, or an entry that is read is not a number.

    >>> round(average_accuracy([[1.0, 0.5], [0.8, 0.9]]), 3)
    0.85
    """
    return float(_checked(accuracy, "last row")[-1].mean())


def forgetting_per_task(accuracy: npt.ArrayLike) -> Float64Array:
    """Compute, for each task but the last, max_{j≤i<T−1} R[i, j] − R[T−1, j].

    Source: Chaudhry et al., ECCV 2018, Eq. 3, with the maximum over the time since the task was
    learned. Negative where a task got better than it had ever been.

    Args:
      accuracy: R, (T, T), T ≥ 2; the lower triangle is read.

    Returns:
      (T − 1,) fractions.

    Raises:
      ValueError: as `average_accuracy`, or T < 2.

    >>> forgetting_per_task([[0.9, 0.5], [0.8, 0.9]]).round(3)
    array([0.1])
    """
    matrix = _checked_sequence(accuracy)
    last = len(matrix) - 1
    best = np.array([matrix[task:last, task].max() for task in range(last)])
    return best - matrix[-1, :last]


def forgetting(accuracy: npt.ArrayLike) -> float:
    """Compute the mean of `forgetting_per_task`: what was lost since the best moment.

    The figure that the MAS authors print, R[j, j] − R[T−1, j] averaged, is −`backward_transfer`.

    Args:
      accuracy: as for `forgetting_per_task`.

    Returns:
      A fraction.

    Raises:
      ValueError: as `forgetting_per_task`.

    >>> round(forgetting([[0.9, 0.5], [0.8, 0.9]]), 3)
    0.1
    """
    return float(forgetting_per_task(accuracy).mean())


def backward_transfer(accuracy: npt.ArrayLike) -> float:
    """Compute (1/(T−1)) Σ_{j<T−1} R[T−1, j] − R[j, j]: what later tasks did to earlier ones.

    Source: Lopez-Paz and Ranzato, NeurIPS 2017, Eq. 3 (BWT). Negative means forgetting.

    Args:
      accuracy: R, (T, T), T ≥ 2; the lower triangle is read.

    Returns:
      A fraction.

    Raises:
      ValueError: as `forgetting_per_task`.

    >>> round(backward_transfer([[0.9, 0.5], [0.8, 0.9]]), 3)
    -0.1
    """
    matrix = _checked_sequence(accuracy)
    return float((matrix[-1] - matrix.diagonal())[:-1].mean())


def forward_transfer(accuracy: npt.ArrayLike, untrained: npt.ArrayLike) -> float:
    """Compute (1/(T−1)) Σ_{j>0} R[j−1, j] − b[j]: what earlier tasks did for later ones.

    Source: Lopez-Paz and Ranzato, NeurIPS 2017, Eq. 4 (FWT).

    Args:
      accuracy: R, (T, T), T ≥ 2; the entries just above the diagonal are read.
      untrained: b, (T,): the accuracy of the network at initialisation.

    Returns:
      A fraction.

    Raises:
      ValueError: as `forgetting_per_task`, or b has another length.

    >>> round(forward_transfer([[0.9, 0.6], [0.8, 0.9]], untrained=[0.5, 0.5]), 3)
    0.1
    """
    matrix = _checked(accuracy, "superdiagonal")
    _check_length(matrix)
    baseline = _checked_vector("untrained", untrained, len(matrix))
    return float((matrix.diagonal(1) - baseline[1:]).mean())


def intransigence(accuracy: npt.ArrayLike, reference: npt.ArrayLike) -> float:
    """Compute (1/T) Σ_j a[j] − R[j, j]: what the memory of old tasks cost the new ones.

    Source: Chaudhry et al., ECCV 2018, Eq. 5, averaged over tasks.

    Args:
      accuracy: R, (T, T); the diagonal is read.
      reference: a, (T,): the accuracy on task j of a network trained on tasks 0 … j together.

    Returns:
      A fraction; negative where the sequence learned better than the reference.

    Raises:
      ValueError: as `average_accuracy`, or a has another length.

    >>> round(intransigence([[0.9, 0.5], [0.8, 0.9]], reference=[0.9, 1.0]), 3)
    0.05
    """
    matrix = _checked(accuracy, "diagonal")
    wanted = _checked_vector("reference", reference, len(matrix))
    return float((wanted - matrix.diagonal()).mean())


def mean_average_precision(scores: npt.ArrayLike, relevant: npt.ArrayLike) -> float:
    """Compute the mean over queries of the average precision of their rankings.

    AP = (1/|relevant|) Σ over relevant items of the precision at that item's rank, items ranked
    by falling score. Among items of equal score the order is undefined, so each is taken to be
    ranked after all of its ties: a constant score is not rewarded.

    Args:
      scores: (queries, items), or (items,) for one query; higher is ranked first.
      relevant: the same shape, bool.

    Returns:
      A fraction.

    Raises:
      ValueError: shapes differ, a score is NaN, or a query (named) has nothing relevant.

    >>> round(mean_average_precision([0.9, 0.8, 0.7], [True, False, True]), 4)
    0.8333
    """
    scores_QxI = np.atleast_2d(np.asarray(scores, np.float64))
    relevant_QxI = np.atleast_2d(np.asarray(relevant, bool))
    if scores_QxI.shape != relevant_QxI.shape or scores_QxI.ndim != 2:
        raise ValueError(
            "scores and relevant must have one shape, (queries, items), got "
            f"{np.shape(scores)} and {np.shape(relevant)}"
        )
    if np.isnan(scores_QxI).any():
        raise ValueError(f"scores of query {np.isnan(scores_QxI).any(1).argmax()} have NaN in them")
    empty = np.flatnonzero(~relevant_QxI.any(axis=1))
    if empty.size:
        raise ValueError(f"query {empty[0]} has no relevant item, so it has no average precision")
    pairs = zip(scores_QxI, relevant_QxI, strict=True)
    return float(np.mean([_average_precision(score, good) for score, good in pairs]))


def _average_precision(scores: Float64Array, relevant: npt.NDArray[np.bool_]) -> float:
    """The average precision of one query."""
    # The rank of an item, its ties counted before it: how many items score at least as high.
    rank = len(scores) - np.searchsorted(np.sort(scores), scores[relevant], side="left")
    hits = relevant.sum() - np.searchsorted(np.sort(scores[relevant]), scores[relevant], "left")
    return float(np.mean(hits / rank))


def _checked_sequence(accuracy: npt.ArrayLike) -> Float64Array:
    """R with at least two tasks, its lower triangle known."""
    matrix = _checked(accuracy, "lower triangle")
    _check_length(matrix)
    return matrix


def _check_length(matrix: Float64Array) -> None:
    """Raise ValueError for fewer than two tasks."""
    if len(matrix) < 2:
        raise ValueError(f"transfer and forgetting need at least two tasks, got {len(matrix)}")


def _checked(accuracy: npt.ArrayLike, needed: str) -> Float64Array:
    """R as float64, square, with the entries that are `needed` known."""
    matrix = np.asarray(accuracy, np.float64)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or matrix.size == 0:
        raise ValueError(
            "accuracy must be a square matrix, accuracy[i, j] on task j after learning task i, "
            f"got shape {matrix.shape}"
        )
    rows, columns = np.indices(matrix.shape)
    read = {
        "last row": rows == len(matrix) - 1,
        "lower triangle": rows >= columns,
        "diagonal": rows == columns,
        "superdiagonal": rows == columns - 1,
    }[needed]
    for i, j in np.argwhere(read & ~np.isfinite(matrix)):
        raise ValueError(f"accuracy[{i}, {j}] is {matrix[i, j]}, wanted a number: it is read here")
    return matrix


def _checked_vector(name: str, values: Any, length: int) -> Float64Array:
    """`values` as (length,) float64."""
    vector = np.asarray(values, np.float64)
    if vector.shape != (length,):
        raise ValueError(f"{name} must have shape ({length},), one per task, got {vector.shape}")
    return vector
