"""Strength and learning rate chosen for each task on its own held-out examples, and on a grid."""

import dataclasses
import math
from pathlib import Path
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import checkpoint, cli, registry, runs, sequence
from experiments import search as searching
from experiments.config import Search
from experiments.data.types import Examples, Task
from experiments.learning import Start, Trained, train
from experiments.methods import MAS, METHODS, Method
from experiments.methods.ebll import EBLL
from experiments.methods.lwf import LwF
from experiments.search import search
from experiments.setup import Setup, prepare
from experiments.training import Accuracy, Rates, Recorded
from tests import tiny
from tests.watched import StopError, learn, without_times

SEARCH = Search(enabled=True, learning_rates=(0.1, 0.02, 1e-6), first_strength=64.0, max_halvings=9)


def searched(method: Method, tasks: Any = None, **settings: Any) -> Setup:
    """The method on the tiny sequence with a fifth of it held out."""
    settings = {"search": SEARCH, "validation_fraction": 0.2, "class_accuracy": False} | settings
    tasks = tiny.tasks(validation_fraction=0.2) if tasks is None else tasks
    return prepare(tiny.Tiny(**settings), method, tasks)


def start_of(setup: Setup, task: int, memory: Any = None, recorded: Any = None) -> Start:
    """A task with parameters drawn at random."""
    params = setup.learner.init(jax.random.key(0), setup.evaluation)
    return Start(
        task, 0, params, setup.learner.init_optimizer(params), memory, setup.training(task),
        recorded or Recorded(), jax.random.key(1),
    )  # fmt: skip


def anchored_start(setup: Setup) -> Start:
    """The second task, after the first was learned by MAS."""
    start = start_of(setup, 0)
    first = train(setup, start, Rates(0.05, 0.0), lambda _: None)
    stage = sequence.stage_at(setup, 0, first.params, first.opt_state, start.key)
    memory = setup.method.end_task(None, stage)
    return start_of(setup, 1, memory)._replace(params=first.params)


def accuracy_of(setup: Setup, start: Start, rates: Rates, *, protected: bool = True) -> float:
    """The new task's validation accuracy, measured by hand."""
    trained = train(setup, start, rates, lambda _: None, protected=protected)
    part = tiny.tasks(validation_fraction=0.2)[start.task].validation
    logits = setup.network.logits(trained.params, setup.validated(start.task).batch)
    answers = np.asarray(logits)[: len(part.labels)].argmax(axis=1)  # task scenario: the classes
    return float((answers == part.labels).mean())


def test_the_rate_is_the_one_that_learns_the_new_task_alone_best() -> None:
    setup = searched(MAS())
    start = anchored_start(setup)
    rates = SEARCH.learning_rates
    alone = [accuracy_of(setup, start, Rates(rate, 0.0), protected=False) for rate in rates]
    assert len(set(alone)) > 1
    chosen = search(setup, start, lambda _: None).trained.rates
    assert chosen.learning_rate == rates[int(np.argmax(alone))]


def test_the_strength_is_the_highest_that_comes_within_the_margin() -> None:
    setup = searched(MAS())
    start = anchored_start(setup)
    trained = search(setup, start, lambda _: None).trained
    rate, strength = float(trained.rates.learning_rate), float(trained.rates.strength)
    wanted = max(
        accuracy_of(setup, start, Rates(rate, 0.0), protected=False)
        for rate in SEARCH.learning_rates
    )
    tried = [64.0 / 2**halving for halving in range(10)]
    reached = [
        accuracy_of(setup, start, Rates(rate, each)) >= (1 - SEARCH.margin) * wanted
        for each in tried
    ]
    assert any(reached)
    assert strength == tried[reached.index(True)]
    assert reached.index(True) > 0  # or nothing would have been halved
    # What is returned is the network of the last attempt.
    by_hand = train(setup, start, trained.rates, lambda _: None)
    chex.assert_trees_all_equal(trained.params, by_hand.params)
    assert trained.losses == by_hand.losses


@pytest.fixture
def attempts(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Rates, bool]]:
    """What is tried, trained in no time: accuracy falls with the strength, 0.9 without."""
    made: list[tuple[Rates, bool]] = []

    def fake(_: Any, start: Start, rates: Rates, __: Any, *, protected: bool = True) -> Trained:
        made.append((rates, protected))
        if float(rates.strength) > 100 or float(rates.learning_rate) > 0.5:
            raise FloatingPointError("training diverged")
        return Trained(start.params, None, rates, ())

    monkeypatch.setattr(searching, "train", fake)
    return made


def with_accuracy(setup: Setup, attempts: Any, accuracy: Any) -> Setup:
    """`setup`, whose network is as accurate as `accuracy` of the latest attempt's rates says."""

    def measured(*_: Any) -> Accuracy:
        return Accuracy(jnp.full(3, accuracy(attempts[-1][0])), jnp.zeros(6), jnp.zeros(()))

    return setup._replace(learner=setup.learner._replace(accuracy=measured))


def anchored_fake(setup: Setup) -> Start:
    return start_of(setup, 1, memory="something")


def test_halving_stops_at_the_first_strength_within_the_margin(attempts: Any) -> None:
    settings = Search(enabled=True, learning_rates=(0.1, 0.2, 0.3), first_strength=80.0, margin=0.1)
    setup = with_accuracy(
        searched(MAS(), search=settings),
        attempts,
        lambda rates: rates.learning_rate * 4 - rates.strength / 100,
    )
    # 0.3 is best, with 1.2. At least 0.9 · 1.2 = 1.08 is kept from a strength of 12 on: 80, 40,
    # 20 and 10.
    trained = search(setup, anchored_fake(setup), lambda _: None).trained
    assert trained.rates == Rates(0.3, 10.0)
    alone = [(Rates(rate, 0.0), False) for rate in (0.1, 0.2, 0.3)]
    assert attempts == alone + [(Rates(0.3, s), True) for s in (80.0, 40.0, 20.0, 10.0)]


def test_after_the_last_halving_the_strength_stays(attempts: Any) -> None:
    settings = Search(enabled=True, learning_rates=(0.1,), first_strength=8.0, max_halvings=2)
    setup = with_accuracy(
        searched(MAS(), search=settings), attempts, lambda rates: 1.0 - (rates.strength > 0)
    )
    trained = search(setup, anchored_fake(setup), lambda _: None).trained
    assert trained.rates == Rates(0.1, 2.0)


def test_attempts_that_diverge_are_survived(attempts: Any) -> None:
    # Above a rate of 0.5 and a strength of 100 training diverges.
    settings = Search(enabled=True, learning_rates=(0.6, 0.1), first_strength=300.0)
    setup = with_accuracy(searched(MAS(), search=settings), attempts, lambda _: 0.9)
    trained = search(setup, anchored_fake(setup), lambda _: None).trained
    assert trained.rates == Rates(0.1, 75.0)


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"learning_rates": (0.6, 0.7)}, r"each of the learning rates \(0.6, 0.7\) in task 2/3"),
        ({"max_halvings": 1}, r"each strength from 1e\+06 down to 500000 in task 2/3, seed 0"),
    ],
)
def test_where_all_attempts_diverge_it_says_what_to_lower(
    attempts: Any, settings: dict[str, Any], text: str
) -> None:
    options = {"learning_rates": (0.1,), **settings}
    setup = searched(MAS(), search=Search(enabled=True, **options))
    setup = with_accuracy(setup, attempts, lambda _: 0.9)
    with pytest.raises(FloatingPointError, match=text):
        search(setup, anchored_fake(setup), lambda _: None)


def test_an_attempt_with_a_huge_rate_really_diverges_and_is_survived() -> None:
    setup = searched(MAS(), search=Search(enabled=True, learning_rates=(1e30, 0.05)))
    assert search(setup, start_of(setup, 0), lambda _: None).trained.rates == Rates(0.05, 0.0)


@pytest.mark.parametrize(
    ("method", "memory", "recorded", "halves"),
    [
        (METHODS["finetune"], None, Recorded(), False),
        (LwF(), None, Recorded("targets"), True),
        (EBLL(code_size=3), {"task_0": 1}, Recorded("targets"), True),
    ],
)
def test_a_strength_is_chosen_where_there_is_one(
    attempts: Any, method: Method, memory: Any, recorded: Any, halves: bool
) -> None:
    setup = with_accuracy(searched(method), attempts, lambda _: 0.9)
    search(setup, start_of(setup, 1, memory, recorded), lambda _: None)
    assert [protected for _, protected in attempts] == [False] * 3 + [True] * halves


# What is looked at


def garbage(examples: Examples, value: float = np.nan) -> Examples:
    """As many examples, of one value and one class."""
    return Examples(
        np.full_like(examples.inputs, value), np.full_like(examples.labels, examples.labels[0])
    )


def poisoned(tasks: tuple[Task, ...], kept: int) -> tuple[Task, ...]:
    """`tasks` with garbage for all test data, and for all data of tasks but one."""
    return tuple(
        task._replace(test=garbage(task.test))
        if number == kept
        else task._replace(
            **{p: garbage(getattr(task, p)) for p in ("train", "validation", "test")}
        )
        for number, task in enumerate(tasks)
    )


@pytest.mark.parametrize("method", [MAS(), LwF(), EBLL(code_size=3)])
def test_nothing_of_other_tasks_or_of_test_data_is_looked_at(method: Method) -> None:
    clean = searched(method)
    start = start_of(clean, 0)
    first = train(clean, start, Rates(0.05, 0.0), lambda _: None)
    memory = method.end_task(
        None, sequence.stage_at(clean, 0, first.params, first.opt_state, start.key)
    )
    setups = clean, searched(method, poisoned(tiny.tasks(validation_fraction=0.2), kept=1))
    found = []
    for setup in setups:
        stage = sequence.stage_at(setup, 1, first.params, None, jax.random.key(3))
        recorded = method.record(memory, stage)
        start = start_of(setup, 1, memory, recorded)._replace(params=first.params)
        found.append(search(setup, start, lambda _: None).trained)
    assert found[0].rates == found[1].rates
    assert found[0].losses == found[1].losses
    chex.assert_trees_all_equal(found[0].params, found[1].params)


def test_test_data_changes_no_choice_of_a_whole_run(tmp_path: Path) -> None:
    tasks = tiny.tasks(validation_fraction=0.2)
    without_test = tuple(task._replace(test=garbage(task.test, 9.0)) for task in tasks)
    records = [
        learn(searched(MAS(), given), tmp_path / name).record
        for name, given in (("clean", tasks), ("poisoned", without_test))
    ]
    assert records[0].chosen == records[1].chosen
    assert records[0].loss == records[1].loss
    assert records[0].accuracy != records[1].accuracy


# In a run


def test_what_is_chosen_is_recorded_and_a_stopped_run_goes_on(tmp_path: Path) -> None:
    setup = searched(MAS())
    whole = learn(setup, tmp_path / "whole").record
    names = {"learning_rate", "strength", "validation_accuracy", "alone"}
    assert [chosen.keys() for chosen in whole.chosen] == [names] * 3
    reached = [chosen["validation_accuracy"] / chosen["alone"] for chosen in whole.chosen]
    assert reached[0] == 1.0
    assert whole.chosen[0]["strength"] == 0.0
    assert all(math.log2(64.0 / chosen["strength"]) % 1 == 0 for chosen in whole.chosen[1:])
    with pytest.raises(StopError):
        learn(setup, tmp_path / "stopped", stop_at=(2, 1))
    resumed = learn(setup, tmp_path / "stopped").record
    assert without_times(resumed) == without_times(whole)
    stored = checkpoint.load(tmp_path / "stopped" / sequence.STATE_FILE)
    assert stored is not None
    assert stored[2].chosen == whole.chosen


def test_without_a_search_nothing_is_recorded_as_chosen(tmp_path: Path) -> None:
    assert learn(searched(MAS(), search=Search()), tmp_path).record.chosen == ()


# The grid


def run_tune(out: Path, *arguments: str) -> None:
    held_out = ["--seeds", "1", "--validation-fraction", "0.2"]
    cli.main(["tune", "tiny", *held_out, "--out", str(out), *arguments])


@pytest.mark.parametrize(
    ("method", "carried"),
    [
        ("mas", False),
        ("mas", True),
        ("si", True),
        ("alpha", False),
        ("imm_mode", True),
        ("ebll", True),
    ],
)
def test_every_strength_goes_on_from_the_first_task_as_if_from_scratch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, carried: bool
) -> None:
    from_scratch = METHODS[method]
    if method == "ebll":
        from_scratch = EBLL(code_size=3)
    config = tiny.Tiny(
        methods={method: from_scratch}, epochs=2, optimizer="adam", reset_optimizer=not carried
    )
    monkeypatch.setitem(registry.EXPERIMENTS, "tiny", tiny.EXPERIMENT._replace(config=config))
    learned: list[tuple[float, float, int]] = []
    true_train = sequence.train

    def counting(setup: Setup, start: Start, rates: Rates, *rest: Any) -> Trained:
        learned.append((float(rates.learning_rate), float(rates.strength), start.task))
        return true_train(setup, start, rates, *rest)

    monkeypatch.setattr(sequence, "train", counting)
    run_tune(tmp_path, "--method", method, "--strengths", "0.5", "0.1", "--learning-rates", "0.05")
    assert sorted(task for *_, task in learned) == [0, 1, 1, 2, 2]
    for strength in (0.5, 0.1):
        chosen = dataclasses.replace(from_scratch, strength=strength)  # pyright: ignore[reportCallIssue]
        plain = dataclasses.replace(
            config, methods={method: chosen}, seeds=1, first_seed=1000, validation_fraction=0.2,
            evaluate_on="validation",
        )  # fmt: skip
        tasks = tiny.tasks(validation_fraction=0.2)
        out = tmp_path / f"scratch_{strength}"
        expected = runs.run("tiny", plain, method, tasks, out, lambda _: None, "")
        folder = f"strength={strength},learning_rate=0.05"
        states = [
            checkpoint.load(path / method / "seed_1000" / sequence.STATE_FILE)
            for path in (tmp_path / folder, out)
        ]
        params, leaves, records, _ = zip(*[state for state in states if state], strict=True)
        chex.assert_trees_all_equal(*params)
        chex.assert_trees_all_equal(*leaves)
        ours, theirs = (dataclasses.replace(without_times(r), made={}) for r in records)
        assert ours == theirs
        assert theirs.accuracy == expected.seeds[0].accuracy


def test_the_first_task_is_learned_once_for_each_rate_and_a_stopped_grid_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(registry.EXPERIMENTS, "tiny", tiny.EXPERIMENT)
    learned: list[tuple[float, int]] = []
    true_train = sequence.train

    def counting(setup: Setup, start: Start, rates: Rates, *rest: Any) -> Trained:
        if len(learned) == 7:
            raise KeyboardInterrupt
        learned.append((float(rates.learning_rate), start.task))
        return true_train(setup, start, rates, *rest)

    monkeypatch.setattr(sequence, "train", counting)
    grid = ["--strengths", "0.5", "0.1", "--learning-rates", "0.05", "0.01"]
    with pytest.raises(SystemExit) as end:
        run_tune(tmp_path, *grid)
    assert end.value.code == 130
    monkeypatch.setattr(sequence, "train", true_train)

    def rest(setup: Setup, start: Start, rates: Rates, *others: Any) -> Trained:
        learned.append((float(rates.learning_rate), start.task))
        return true_train(setup, start, rates, *others)

    monkeypatch.setattr(sequence, "train", rest)
    run_tune(tmp_path, *grid)
    # Nothing twice but what was at work when it stopped, which had not begun.
    wanted = [(rate, task) for rate in (0.05, 0.01) for task in (0, 1, 1, 2, 2)]
    assert sorted(learned) == sorted(wanted)
    assert not list((tmp_path / "first_task").rglob("result.json"))
