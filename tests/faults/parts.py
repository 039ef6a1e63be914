"""The parts of the harness: streams of cases, each with what is wrong, from one seed."""

import functools
import itertools
import os
import pathlib
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from tests.faults import damage, damage_of_lock, damage_of_runs, judge, small_runs, stores
from tests.faults.cases import Bench, Case
from tests.faults.operations import OPERATIONS
from tests.faults.shim import Mode

ERRORS = (Mode.FAIL, Mode.FULL, Mode.GONE, Mode.SHORT)
KILLS = (Mode.KILL, Mode.TEAR)
LIMITS = (0, 1, 50, 150, 300, 1_000, 3_000, 10_000)
"""Bytes that a file may have; what is written has 13,000 and more."""
NEVER = 10**9
PER_OPERATION = 50
"""How often each operation is killed by the clock."""


class Outcome(NamedTuple):
    """One case tried."""

    operation: str
    number: int
    case: str  # in words
    failure: str | None
    ending: str = ""  # of a damage that is no failure: refused, or harmless


class Trial(NamedTuple):
    """A damage to be done to the copy of a folder."""

    place: str  # which of the folder's files
    number: int  # of the damages there
    case: str  # in words
    run: Callable[[pathlib.Path], judge.Verdict]


class Only(NamedTuple):
    """Which cases of a part to try; by default all."""

    named: Sequence[str] | None = None  # operations
    number: int | None = None

    def operations(self) -> list[str]:
        """Those that are wanted."""
        return list(filter(self.names, OPERATIONS))

    def names(self, operation: str) -> bool:
        """Whether those of `operation` are wanted."""
        return self.named is None or operation in self.named

    def has(self, number: int) -> bool:
        """Whether the case of that number is wanted."""
        return self.number in (None, number)


ALL = Only()


def seed_given() -> int:
    """The seed that the environment gives, 0 without one."""
    return int(os.environ.get("MAS_JAX_FAULT_SEED", "0"))


def again(part: str, outcome: Outcome, seed: int) -> str:
    """The command that tries a case again."""
    return (
        f'MAS_JAX_FAULT_SEED={seed} python -m tests.faults --part "{part}" '
        f'--operation "{outcome.operation}" --number {outcome.number}'
    )


def every_operation(bench: Bench, mode: Mode, only: Only) -> Iterator[Outcome]:
    """`mode` at file operation 1, 2, 3, … of everything done, until none is left."""
    for operation in only.operations():
        for number in itertools.count(1) if only.number is None else [only.number]:
            answer, outcome = _tried(bench, Case(operation, mode, number), number)
            yield outcome
            if not answer.get("fired", True):
                break


def some_operations(bench: Bench, mode: Mode, count: int, seed: int) -> Iterator[Outcome]:
    """`mode` at `count` file operations, drawn at random, of everything done to a store."""
    rng = np.random.default_rng(seed)
    for operation in stores.OPERATIONS:
        seen = bench.run(Case(operation, mode, NEVER))["seen"]
        for number in sorted(set(rng.integers(1, seen + 1, count).tolist())):
            yield _tried(bench, Case(operation, mode, number), number)[1]


def _tried(bench: Bench, case: Case, number: int) -> tuple[dict, Outcome]:
    """What the worker said of a case, and what came of it."""
    answer = bench.run(case)
    return answer, Outcome(case.operation, number, str(case), answer["failure"])


def full_disks(bench: Bench, only: Only = ALL, limits: Sequence[int] = LIMITS) -> Iterator[Outcome]:
    """Every operation with files that may not grow beyond a limit."""
    for operation in only.operations():
        for limit in filter(only.has, limits):
            answer, outcome = _tried(bench, Case(operation, limit=limit), limit)
            if outcome.failure is None and OPERATIONS[operation].takes_room and not answer["error"]:
                outcome = outcome._replace(failure="it saved a file too large to be there")
            yield outcome


def clock_kills(bench: Bench, seed: int, only: Only) -> Iterator[Outcome]:
    """Every operation killed at random moments of the time it takes here."""
    for operation in only.operations():
        # In a child, as those that are killed; the first one compiles.
        usual = [bench.run(Case(operation, Mode.KILL, NEVER))["took"] for _ in range(3)][-1]
        moments = np.random.default_rng(seed).uniform(0, 1.2 * usual, PER_OPERATION)
        for number, seconds in enumerate(moments):
            if only.has(number):
                yield _tried(bench, Case(operation, seconds=float(seconds)), number)[1]


def damages(
    seed: int, only: Only = ALL, per_file: int = damage.PER_FILE, count: int | None = None
) -> Iterator[Outcome]:
    """Every damage to a store of several tasks; with `count` a random choice of them."""
    with tempfile.TemporaryDirectory() as folder:
        sound = pathlib.Path(folder, "store")
        damage.make_store(sound)
        trials = [
            Trial(".lock", number, str(each), functools.partial(damage_of_lock.tried, each))
            for number, each in enumerate(damage_of_lock.plan(seed))
        ] + [
            Trial(each.place, each.number, str(each), functools.partial(judge.tried, each, sound))
            for each in damage.plan(sound, seed, per_file)
        ]
        for trial in some(trials, count, seed):
            if only.has(trial.number) and only.names(trial.place):
                with damage.copied(sound) as directory:
                    ending, failure = trial.run(directory)
                yield Outcome(trial.place, trial.number, trial.case, failure, ending)


def damages_of_runs(
    seed: int,
    only: Only = ALL,
    methods: Sequence[str] = tuple(small_runs.KEPT),
    count: int | None = None,
) -> Iterator[Outcome]:
    """Every damage to stopped runs; with `count` a random choice of them."""
    for method in methods:
        with tempfile.TemporaryDirectory() as folder:
            run = small_runs.make(method, pathlib.Path(folder))
            for number, each in enumerate(some(damage_of_runs.plan(run, seed), count, seed)):
                if only.has(each.number) and only.names(each.place):
                    directory = pathlib.Path(folder, f"case {number}")
                    ending, failure = damage_of_runs.tried(each, directory)
                    shutil.rmtree(directory)
                    yield Outcome(each.place, each.number, str(each), failure, ending)


def some(cases: list[Any], count: int | None, seed: int) -> list[Any]:
    """So many of `cases`, drawn at random; all without a count."""
    if count is None:
        return cases
    chosen = np.random.default_rng(seed).choice(len(cases), count, replace=False)
    return [cases[number] for number in sorted(chosen)]
