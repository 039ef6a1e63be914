"""Metrics: numbers from the accuracy matrix and from rankings, on the host in float64."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from mas_jax import metrics
from tests import oracle

FRACTION = st.floats(0, 1, allow_subnormal=False)
MATRICES = st.integers(2, 5).flatmap(
    lambda tasks: arrays.arrays(np.float64, (tasks, tasks), elements=FRACTION)
)


# Three tasks. After the last: 0.5, 0.6, 0.9. Just learned: 1.0, 0.8, 0.9. The best of task 0
# before the end is 1.0, of task 1 0.8 (0.2 above the diagonal was before it was learned).
ACCURACY = [[1.0, 0.3, 0.2], [0.7, 0.8, 0.4], [0.5, 0.6, 0.9]]


def test_closed_forms():
    assert metrics.average_accuracy(ACCURACY) == pytest.approx(2.0 / 3)
    assert metrics.forgetting_per_task(ACCURACY) == pytest.approx([0.5, 0.2])
    assert metrics.forgetting(ACCURACY) == pytest.approx(0.35)
    assert metrics.backward_transfer(ACCURACY) == pytest.approx(-0.35)
    # ((0.3 − 0.1) + (0.4 − 0.1)) / 2; the first task has nothing before it.
    assert metrics.forward_transfer(ACCURACY, [0.9, 0.1, 0.1]) == pytest.approx(0.25)
    # ((1 − 1) + (1 − 0.8) + (1 − 0.9)) / 3
    assert metrics.intransigence(ACCURACY, [1.0, 1.0, 1.0]) == pytest.approx(0.1)


def test_the_best_moment_may_lie_after_a_task_was_learned_but_not_before():
    # Task 0 was best (0.9) after task 1: forgetting 0.9 − 0.4, backward transfer 0.4 − 0.6.
    accuracy = [[0.6, 1.0, 0.0], [0.9, 0.5, 0.0], [0.4, 0.5, 0.8]]
    assert metrics.forgetting_per_task(accuracy) == pytest.approx([0.5, 0.0])
    assert metrics.backward_transfer(accuracy) == pytest.approx(-0.1)


def test_forgetting_is_negative_where_a_task_got_better_than_ever():
    assert metrics.forgetting([[0.5, 0.0], [0.7, 1.0]]) == pytest.approx(-0.2)


@given(MATRICES, st.randoms(use_true_random=False))
def test_accuracy_metrics_agree_with_the_oracle(accuracy, random):
    vector = [random.random() for _ in accuracy]
    rows = accuracy.tolist()
    assert metrics.average_accuracy(accuracy) == pytest.approx(oracle.average_accuracy(rows))
    expected = oracle.forgetting_per_task(rows)
    assert metrics.forgetting_per_task(accuracy) == pytest.approx(expected)
    assert metrics.forgetting(accuracy) == pytest.approx(sum(expected) / len(expected))
    assert metrics.backward_transfer(accuracy) == pytest.approx(oracle.backward_transfer(rows))
    assert metrics.forward_transfer(accuracy, vector) == pytest.approx(
        oracle.forward_transfer(rows, vector)
    )
    assert metrics.intransigence(accuracy, vector) == pytest.approx(
        oracle.intransigence(rows, vector)
    )


@given(MATRICES)
def test_forgetting_is_at_least_minus_backward_transfer(accuracy):
    # The best moment is never worse than the moment of learning.
    assert metrics.forgetting(accuracy) >= -metrics.backward_transfer(accuracy) - 1e-12


@given(MATRICES)
def test_what_is_not_read_may_be_unknown(accuracy):
    lower = np.where(np.tri(len(accuracy), dtype=bool), accuracy, np.nan)
    assert metrics.average_accuracy(lower) == metrics.average_accuracy(accuracy)
    assert metrics.forgetting(lower) == metrics.forgetting(accuracy)
    assert metrics.backward_transfer(lower) == metrics.backward_transfer(accuracy)
    diagonal = np.where(np.eye(len(accuracy), dtype=bool), accuracy, np.nan)
    reference = np.ones(len(accuracy))
    assert metrics.intransigence(diagonal, reference) == metrics.intransigence(accuracy, reference)
    above = np.where(np.eye(len(accuracy), k=1, dtype=bool), accuracy, np.nan)
    assert metrics.forward_transfer(above, reference) == metrics.forward_transfer(
        accuracy, reference
    )


def test_average_precision_closed_form():
    # Relevant at ranks 1 and 3 of 3: (1/1 + 2/3) / 2.
    assert metrics.mean_average_precision([3, 2, 1], [True, False, True]) == pytest.approx(5 / 6)
    # The second query's only relevant item is last of three: 1/3.
    scores, relevant = [[3, 2, 1], [1, 2, 3]], [[True, False, True], [True, False, False]]
    assert metrics.mean_average_precision(scores, relevant) == pytest.approx((5 / 6 + 1 / 3) / 2)


def test_a_constant_score_earns_the_share_of_relevant_items():
    # All four items tie at rank 4, with both relevant ones among them: 2/4.
    assert metrics.mean_average_precision([7.0] * 4, [True, False, False, True]) == 0.5


@given(
    st.lists(st.tuples(st.integers(0, 4), st.booleans()), min_size=1, max_size=8),
    st.lists(st.tuples(st.integers(0, 4), st.booleans()), min_size=1, max_size=8),
)
def test_average_precision_agrees_with_the_oracle(first, second):
    assume(any(good for _, good in first) and any(good for _, good in second))
    items = min(len(first), len(second))
    queries = [list(zip(*query[:items], strict=True)) for query in (first, second)]
    assume(all(any(relevant) for _, relevant in queries))
    scores, relevant = [query[0] for query in queries], [query[1] for query in queries]
    expected = np.mean([oracle.average_precision(s, r) for s, r in queries])
    assert metrics.mean_average_precision(scores, relevant) == pytest.approx(expected)


@given(st.permutations(range(6)))
def test_average_precision_does_not_depend_on_the_order_of_items(order):
    scores = np.array([5.0, 4.0, 4.0, 2.0, 1.0, 1.0])
    relevant = np.array([True, False, True, False, True, False])
    shuffled = metrics.mean_average_precision(scores[order], relevant[order])
    assert shuffled == pytest.approx(metrics.mean_average_precision(scores, relevant))


@pytest.mark.parametrize("accuracy", [[], [0.5], [[0.5, 0.5]], [[[0.5]]]])
@pytest.mark.parametrize(
    "metric", [metrics.average_accuracy, metrics.forgetting, metrics.backward_transfer]
)
def test_accuracy_must_be_a_square_matrix(metric, accuracy):
    with pytest.raises(ValueError, match="accuracy must be a square matrix"):
        metric(accuracy)


@pytest.mark.parametrize(
    "call",
    [
        lambda: metrics.forgetting([[1.0]]),
        lambda: metrics.forgetting_per_task([[1.0]]),
        lambda: metrics.backward_transfer([[1.0]]),
        lambda: metrics.forward_transfer([[1.0]], [0.5]),
    ],
)
def test_a_single_task_has_no_forgetting(call):
    with pytest.raises(ValueError, match="need at least two tasks, got 1"):
        call()


@pytest.mark.parametrize(
    ("call", "entry"),
    [
        (lambda bad: metrics.average_accuracy([[1, 1], [bad, 1]]), r"accuracy\[1, 0\]"),
        (lambda bad: metrics.forgetting([[bad, 1], [1, 1]]), r"accuracy\[0, 0\]"),
        (lambda bad: metrics.backward_transfer([[bad, 1], [1, 1]]), r"accuracy\[0, 0\]"),
        (lambda bad: metrics.forward_transfer([[1, bad], [1, 1]], [0, 0]), r"accuracy\[0, 1\]"),
        (lambda bad: metrics.intransigence([[1, 1], [1, bad]], [0, 0]), r"accuracy\[1, 1\]"),
    ],
)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_an_unknown_entry_that_is_read_is_named(call, entry, bad):
    with pytest.raises(ValueError, match=entry + " is (nan|inf), wanted a number"):
        call(bad)


def test_one_number_per_task_is_wanted():
    with pytest.raises(ValueError, match=r"untrained must have shape \(3,\), one per task"):
        metrics.forward_transfer(ACCURACY, [0.1, 0.1])
    with pytest.raises(ValueError, match=r"reference must have shape \(3,\), one per task"):
        metrics.intransigence(ACCURACY, [0.1])


@pytest.mark.parametrize(
    ("scores", "relevant", "message"),
    [
        ([1.0, 2.0], [True], r"must have one shape, \(queries, items\), got \(2,\) and \(1,\)"),
        ([[[1.0]]], [[[True]]], "must have one shape"),
        ([[1.0, 2.0], [1.0, np.nan]], [[True, True], [True, True]], "scores of query 1 have NaN"),
        ([[1.0], [1.0]], [[True], [False]], "query 1 has no relevant item"),
    ],
)
def test_mean_average_precision_errors(scores, relevant, message):
    with pytest.raises(ValueError, match=message):
        metrics.mean_average_precision(scores, relevant)
