"""How well a few facts are found along a sequence of tasks, from what a result holds."""

from collections.abc import Collection

import numpy as np

from experiments.facts import splits
from experiments.facts.table import STANFORD40, facts_of
from experiments.facts.types import Fact
from experiments.results import Result, finished


def is_recorded(result: Result) -> bool:
    """Whether the finished seeds, one at least, hold the precision of each of Stanford-40's facts.

    Not so for facts of a table of one's own (6DS), and for records without precision by fact.
    """
    wanted = [len(STANFORD40)] * len(result.tasks)
    rows = [list(map(len, record.class_accuracy)) for record in finished(result)]
    known = result.config.get("data", "actions40") == "actions40"
    return known and bool(rows) and all(lengths == wanted for lengths in rows)


def subset_precision(result: Result, subset: Collection[Fact]) -> np.ndarray:
    """Compute the mean average precision of some of Stanford-40's facts after each task.

        MAP(subset, task) = mean over the subset's facts of AP(fact) after the task

    each fact asked for among the pictures of its own task.

    Args:
      result: of an experiment on Stanford-40's facts.
      subset: at least one fact.

    Returns:
      (S, T) float64 fractions, a row for each finished seed.

    Raises:
      ValueError: no seed is finished, or precision is not recorded fact by fact; names both.
    """
    if not finished(result):
        raise ValueError(f"no seed of {result.experiment}, {result.method}, has learned all tasks")
    if not is_recorded(result):
        raise ValueError(
            f"{result.experiment}, {result.method}, has no precision for each of the "
            f"{len(STANFORD40)} facts after each task; run it with --class-accuracy"
        )
    rows = splits.rows_of(facts_of(sorted(STANFORD40)), subset)
    of_fact_SxTxF = np.array([record.class_accuracy for record in finished(result)], np.float64)
    return of_fact_SxTxF[:, :, list(rows)].mean(axis=2)
