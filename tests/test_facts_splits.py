"""Facts cut into tasks: each in one, equal sizes, the same for the same seed."""

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from experiments.facts.splits import adaptation_tasks, rows_of
from experiments.facts.table import MUSIC, SPORTS, STANFORD40
from experiments.facts.types import Fact

FACTS = list(STANFORD40.values())


@hypothesis.given(
    count=st.integers(1, 30), num_tasks=st.integers(1, 30), seed=st.integers(0, 2**40)
)
def test_tasks_partition_the_facts_evenly(count, num_tasks, seed):
    hypothesis.assume(num_tasks <= count)
    tasks = adaptation_tasks(FACTS[:count], (), num_tasks, seed)
    assert len(tasks) == num_tasks
    assert sorted(row for task in tasks for row in task) == list(range(count))
    sizes = [len(task) for task in tasks]
    assert max(sizes) - min(sizes) <= 1
    assert sizes == sorted(sizes, reverse=True)
    assert all(list(task) == sorted(task) for task in tasks)


@hypothesis.given(chosen=st.sets(st.integers(0, 39), max_size=10), seed=st.integers(0, 2**40))
def test_the_subset_is_in_the_first_task_and_nothing_is_lost(chosen, seed):
    tasks = adaptation_tasks(FACTS, [FACTS[row] for row in chosen], 4, seed)
    assert chosen <= set(tasks[0])
    assert sorted(row for task in tasks for row in task) == list(range(40))
    assert [len(task) for task in tasks] == [10] * 4


@pytest.mark.parametrize("num_tasks", [2, 4])
def test_the_seed_alone_decides(num_tasks):
    assert adaptation_tasks(FACTS, (), num_tasks, 3) == adaptation_tasks(FACTS, (), num_tasks, 3)
    assert adaptation_tasks(FACTS, (), num_tasks, 3) != adaptation_tasks(FACTS, (), num_tasks, 4)
    assert adaptation_tasks(FACTS, SPORTS, num_tasks, 3) != adaptation_tasks(
        FACTS, SPORTS, num_tasks, 4
    )


def test_every_fact_is_as_likely_in_one_task_as_in_another():
    counts = np.zeros(40, int)
    for seed in range(400):
        counts[list(adaptation_tasks(FACTS, (), 4, seed)[0])] += 1
    # Binomial(400, 1/4): mean 100, standard deviation 8.7; five of these either way.
    assert 57 < counts.min() < counts.max() < 143


def test_a_subset_leaves_the_rest_to_chance():
    rest = set(range(40)) - set(rows_of(FACTS, SPORTS))
    # Three of 33 each time: one is never among them with a probability of (10/11)^200 = 5e-9.
    filled = {row for seed in range(200) for row in adaptation_tasks(FACTS, SPORTS, 4, seed)[0]}
    assert rest < filled


@pytest.mark.parametrize("subset", [SPORTS, MUSIC])
@pytest.mark.parametrize("num_tasks", [2, 4])
def test_sports_and_music_fit_into_the_first_task(subset, num_tasks):
    tasks = adaptation_tasks(FACTS, subset, num_tasks, 0)
    assert set(rows_of(FACTS, subset)) < set(tasks[0])


def test_rows_are_those_of_the_facts_whatever_their_order():
    assert rows_of(FACTS, [FACTS[7], FACTS[2], FACTS[7]]) == (2, 7)


@pytest.mark.parametrize(
    ("num_tasks", "seed", "text"),
    [
        (41, 0, "num_tasks must be from 1 to the number of facts, 40, got 41"),
        (0, 0, "got 0"),
        (2, -1, "seed must be at least 0, got -1"),
    ],
)
def test_impossible_tasks_are_refused(num_tasks, seed, text):
    with pytest.raises(ValueError, match=text):
        adaptation_tasks(FACTS, (), num_tasks, seed)


def test_a_subset_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match=r"7 facts .* first of 8 tasks, .* room for 5 of 40"):
        adaptation_tasks(FACTS, SPORTS, 8, 0)
    with pytest.raises(ValueError, match="<person, play, chess> is not among the 40 facts"):
        adaptation_tasks(FACTS, [Fact("person", "play", "chess")], 2, 0)
