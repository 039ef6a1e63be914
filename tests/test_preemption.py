"""A run that is stopped at any boundary, by a signal or killed, ends like one that was not."""

import dataclasses
import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from experiments import bookmark, checkpoint, preemption, sequence
from experiments.bookmark import Bookmark
from experiments.config import Search
from experiments.methods import METHODS, anchored
from experiments.methods.ebll import EBLL
from experiments.networks import Network
from experiments.preemption import Preempted
from experiments.results import SeedRecord
from experiments.setup import Setup, prepare
from tests import tiny


class Stepwise(tiny.Tiny):
    """The same, its steps called from the host."""

    def network(self, heads: Any, tasks: Any) -> Network:
        return dataclasses.replace(super().network(heads, tasks), stepwise=True)


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """75 examples in 8 batches, in 3 chunks."""
    monkeypatch.setattr(anchored, "BATCH_SIZE", 10)
    monkeypatch.setattr(anchored, "BATCHES_PER_CHUNK", 3)


@functools.cache
def prepared(method: str, variant: str = "plain") -> Setup:
    """Compiled once for all tests."""
    chosen = EBLL(code_size=3, autoencoder_steps=5) if method == "ebll" else METHODS[method]
    if variant in ("bfloat16", "log8"):
        chosen = dataclasses.replace(chosen, importance_as=variant)  # pyright: ignore[reportCallIssue]
    config_class = Stepwise if variant == "stepwise" else tiny.Tiny
    config = config_class(epochs=2, seeds=1, methods={method: chosen})
    options: dict[str, Any] = {
        "warm-up": {"head_warmup_epochs": 2},
        "carried": {"optimizer": "adam", "reset_optimizer": False},
        "search": {
            "search": Search(
                enabled=True, learning_rates=(0.05,), first_strength=1.0, max_halvings=1
            ),
            "validation_fraction": 0.2,
        },
    }.get(variant, {})
    config = dataclasses.replace(config, **options)
    return prepare(config, chosen, tiny.tasks(config.validation_fraction))


class Signals:
    """Asks to stop at the n-th boundary from here, once."""

    def __init__(self, left: int) -> None:
        self.left = left

    def __call__(self) -> bool:
        self.left -= 1
        return self.left == 0


def learn(setup: Setup, folder: Path, **options: Any) -> SeedRecord:
    """The record of seed 0."""
    return sequence.learn(setup, 0, folder, lambda _: None, **options)


def content(folder: Path) -> dict[str, Any]:
    """All arrays and numbers below a folder, but for times, by file."""
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*.msgpack")):
        tree = checkpoint.load_tree(path)
        if path.name == sequence.STATE_FILE:
            record = json.loads(tree.pop("record"))
            tree["record"] = {
                name: record[name] for name in record if name not in ("seconds", "made")
            }
        found[str(path.relative_to(folder))] = tree
    return found


def assert_same(got: Path, expected: Path) -> None:
    """Bit for bit the same parameters, memory and record; nothing half done is left."""
    found, wanted = content(got), content(expected)
    assert found.keys() == wanted.keys()
    for name in wanted:
        assert jax.tree.structure(found[name]) == jax.tree.structure(wanted[name])
        jax.tree.map(same_bits, found[name], wanted[name])


def same_bits(got: Any, expected: Any) -> None:
    """Equal, and -0.0 is not 0.0."""
    got, expected = np.asarray(got), np.asarray(expected)
    assert (got.dtype, got.shape) == (expected.dtype, expected.shape)
    assert got.tobytes() == expected.tobytes()


def stopped_again_and_again(
    monkeypatch: pytest.MonkeyPatch, learn_fn: Callable[[], Any], first: int, then: int
) -> int:
    """Stop at the boundary `first`, then at every `then`-th, until the end; how often it was."""
    stops = 0
    while True:
        with monkeypatch.context() as patch:
            patch.setattr(preemption, "is_asked", Signals(then if stops else first))
            try:
                learn_fn()
            except Preempted:
                stops += 1
            else:
                return stops


METHODS_IN_CHUNKS = ("mas", "mas_both", "lmas", "ewc", "ewc_online", "alpha", "imm_mode")
CASES = [
    *((method, "plain") for method in ("finetune", "joint", "l2", "si", "lwf", "ebll", "imm_mean")),
    *((method, "plain") for method in METHODS_IN_CHUNKS),
    ("mas", "stepwise"),
    ("ewc", "warm-up"),
    ("si", "carried"),
    ("mas", "bfloat16"),
    *((method, "log8") for method in ("mas", "alpha", "imm_mode")),
]


@pytest.mark.parametrize(("method", "variant"), CASES)
def test_a_run_stopped_at_its_boundaries_ends_the_same_bit_for_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, variant: str
) -> None:
    setup = prepared(method, variant)
    whole = learn(setup, tmp_path / "whole")
    # A start comes further if it passes more than a task's start and the epochs of its heads,
    # where nothing is kept. The second time the boundaries between are those it stops at.
    stride = 4 if variant == "warm-up" else 2
    for first in (stride, stride + 1):
        folder = tmp_path / str(first)
        stops = stopped_again_and_again(
            monkeypatch, lambda folder=folder: learn(setup, folder), first, stride
        )
        # Each of three tasks has its start, two epochs, and chunks in some methods.
        assert stops >= (3 + 6) // stride
        resumed = learn(setup, folder)
        assert dataclasses.replace(resumed, seconds=()) == dataclasses.replace(whole, seconds=())
        assert_same(folder, tmp_path / "whole")
        assert not (folder / bookmark.FILE).exists()


@pytest.mark.parametrize(("variant", "step"), [("plain", 1), ("search", 4)])
def test_a_run_stopped_once_at_the_nth_boundary_ends_the_same_for_every_n(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variant: str, step: int
) -> None:
    setup = prepared("mas", variant)
    learn(setup, tmp_path / "whole")
    for number in range(1, 1000, step):
        folder = tmp_path / str(number)
        with monkeypatch.context() as patch:
            patch.setattr(preemption, "is_asked", Signals(number))
            try:
                learn(setup, folder)
            except Preempted:
                pass
            else:
                break  # it has fewer boundaries
        learn(setup, folder)
        assert_same(folder, tmp_path / "whole")
    # Three tasks, each with its start, two epochs and three chunks; a search has more.
    assert number >= 19


def test_a_shared_first_task_is_stopped_within_its_importance_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learn(prepared("finetune"), tmp_path / "first", stop_after=1)
    setup = prepared("mas")

    def learn_from_first(folder: Path) -> SeedRecord:
        return learn(setup, folder, first=tmp_path / "first")

    learn_from_first(tmp_path / "whole")
    for first in (2, 3):
        folder = tmp_path / str(first)
        stopped_again_and_again(
            monkeypatch, lambda folder=folder: learn_from_first(folder), first, 2
        )
        assert_same(folder, tmp_path / "whole")


# What is kept, and when


def epochs_learned(
    setup: Setup, folder: Path, seed: int = 0, **options: Any
) -> list[tuple[int, int]]:
    """(task, epoch) of every epoch that this start learned."""
    seen: list[tuple[int, int]] = []
    sequence.learn(
        setup, seed, folder, lambda epoch: seen.append((epoch.task, epoch.epoch)), **options
    )
    return seen


def stopped_at(
    monkeypatch: pytest.MonkeyPatch, number: int, setup: Setup, folder: Path, **options: Any
) -> None:
    """A run stopped at its boundary of that number."""
    with monkeypatch.context() as patch:
        patch.setattr(preemption, "is_asked", Signals(number))
        with pytest.raises(Preempted):
            learn(setup, folder, **options)


def test_only_what_was_not_learned_is_learned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Task 0 has 6 boundaries; of task 1 the start, an epoch.
    stopped_at(monkeypatch, 8, prepared("mas"), tmp_path)
    assert epochs_learned(prepared("mas"), tmp_path) == [(1, 1), (2, 0), (2, 1)]


def test_it_is_kept_how_long_the_task_took_before_the_stop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr(bookmark.time, "monotonic", lambda: now[0])

    def later(_: object) -> None:
        now[0] += 100.0

    with monkeypatch.context() as patch:
        patch.setattr(preemption, "is_asked", Signals(2))
        with pytest.raises(Preempted):
            sequence.learn(prepared("mas"), 0, tmp_path, later)
    now[0] = 7.0  # another start has another clock
    record = sequence.learn(prepared("mas"), 0, tmp_path, later)
    assert [seconds["training"] for seconds in record.seconds] == [200.0] * 3


@pytest.mark.parametrize(("seconds", "expected"), [(0.0, 15), (1e9, 0), (250.0, 3)])
def test_it_is_written_no_more_often_than_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: float, expected: int
) -> None:
    written, now = [], [0.0]

    def boundary() -> bool:
        now[0] += 100.0
        return False

    monkeypatch.setattr(bookmark.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(preemption, "is_asked", boundary)
    write = Bookmark._write
    monkeypatch.setattr(
        Bookmark, "_write", lambda self, path: written.append(now[0]) or write(self, path)
    )
    learn(prepared("mas"), tmp_path, checkpoint_seconds=seconds)
    # Five boundaries with something to keep in each of three tasks. The clock goes on by 100 s at
    # each, the task's start included, so that 250 s are over at one of a task's five, not at two.
    assert len(written) == expected


@pytest.mark.parametrize("damage", ["bit", "cut", "empty", "text"])
def test_a_damaged_bookmark_costs_the_task_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    setup = prepared("mas")
    learn(setup, tmp_path / "whole")
    folder = tmp_path / "stopped"
    stopped_at(monkeypatch, 10, setup, folder)
    file = folder / bookmark.FILE
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    damaged = {"bit": content, "cut": content[:99], "empty": b"", "text": b"hello"}[damage]
    file.write_bytes(damaged)
    assert epochs_learned(setup, folder) == [(1, 0), (1, 1), (2, 0), (2, 1)]
    assert_same(folder, tmp_path / "whole")


def test_a_bookmark_on_the_way_from_elsewhere_is_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    setup = prepared("mas")
    learn(setup, tmp_path / "whole")
    stopped_at(monkeypatch, 10, setup, tmp_path / "stopped")
    kept = (tmp_path / "stopped" / bookmark.FILE).read_bytes()
    # Killed after the task was saved and before the bookmark was removed: one of another task.
    learn(setup, tmp_path / "stopped")
    (tmp_path / "stopped" / bookmark.FILE).write_bytes(kept)
    learn(setup, tmp_path / "stopped")
    assert not (tmp_path / "stopped" / bookmark.FILE).exists()
    # That of another seed's same task; number 7 is where task 1 starts, and nothing is kept there.
    with monkeypatch.context() as patch:
        patch.setattr(preemption, "is_asked", Signals(7))
        with pytest.raises(Preempted):
            sequence.learn(setup, 1, tmp_path / "other", lambda _: None)
    (tmp_path / "other" / bookmark.FILE).write_bytes(kept)
    assert epochs_learned(setup, tmp_path / "other", 1) == [(1, 0), (1, 1), (2, 0), (2, 1)]


def test_a_bookmark_with_other_arrays_is_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped_at(monkeypatch, 3, prepared("mas"), tmp_path)
    # Before the first task there is no state with a digest. This optimizer has another state.
    assert epochs_learned(prepared("si", "carried"), tmp_path)[:2] == [(0, 0), (0, 1)]
