"""Facts cut into tasks: at random, or with some of them in the first task."""

from collections.abc import Collection, Sequence

import numpy as np

from experiments.facts.types import Fact

Tasks = tuple[tuple[int, ...], ...]


def adaptation_tasks(
    facts: Sequence[Fact], subset: Collection[Fact], num_tasks: int, seed: int
) -> Tasks:
    """Cut facts into tasks at random, but for a subset, which is in the first task.

    The subset is for the adaptation test of section 5.2, and empty elsewhere: importance comes
    from the images of a few facts of the first task alone ("person playing sports", seven), and
    their retrieval is followed as other tasks are learned.

    Args:
      facts: at least as many as tasks.
      subset: facts of `facts`, no more than there is room for in the first task.
      num_tasks: at least 1; the paper's 2 and 4.
      seed: at least 0; decides which facts fill the first task up, and about the other tasks.

    Returns:
      For each task the rows of `facts` that are in it, rising. Each fact is in one task; sizes
      are equal, or the first tasks have one more.

    Raises:
      ValueError: fewer facts than tasks, no tasks, a negative seed, or `subset` is too large or
        has a fact that is not in `facts`.

    >>> facts = [Fact(name) for name in "abcdef"]
    >>> adaptation_tasks(facts, facts[4:], 2, seed=0)[0][1:]
    (4, 5)
    """
    _check(facts, num_tasks, seed)
    chosen = rows_of(facts, subset)
    rest = np.setdiff1d(np.arange(len(facts)), np.array(chosen, int))
    order = np.concatenate([np.array(chosen, int), np.random.default_rng(seed).permutation(rest)])
    tasks = np.array_split(order, num_tasks)
    if len(chosen) > len(tasks[0]):
        raise ValueError(
            f"{len(chosen)} facts are to be in the first of {num_tasks} tasks, which has room for "
            f"{len(tasks[0])} of {len(facts)}; take fewer facts or fewer tasks"
        )
    return tuple(tuple(sorted(task.tolist())) for task in tasks)


def rows_of(facts: Sequence[Fact], subset: Collection[Fact]) -> tuple[int, ...]:
    """Find the rows of some facts among all.

    Args:
      facts: all facts.
      subset: some of them.

    Returns:
      Their rows, rising, each once.

    Raises:
      ValueError: one (named) is not in `facts`.

    >>> rows_of([Fact("a"), Fact("b"), Fact("c")], [Fact("c"), Fact("a")])
    (0, 2)
    """
    rows = {fact: row for row, fact in enumerate(facts)}
    for fact in subset:
        if fact not in rows:
            raise ValueError(f"{fact} is not among the {len(rows)} facts that tasks are made of")
    return tuple(sorted({rows[fact] for fact in subset}))


def _check(facts: Sequence[Fact], num_tasks: int, seed: int) -> None:
    """Raise ValueError unless every task can have a fact, and the seed is one."""
    if num_tasks < 1 or len(facts) < num_tasks:
        raise ValueError(
            f"num_tasks must be from 1 to the number of facts, {len(facts)}, got {num_tasks}"
        )
    if seed < 0:
        raise ValueError(f"seed must be at least 0, got {seed}")
