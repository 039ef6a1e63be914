"""A run's folder: one process at a time, and files that are all of one run and one moment."""

import dataclasses
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import orbax.checkpoint
import pytest

from experiments import bookmark, files, preemption, runs, sequence
from experiments.methods import METHODS
from experiments.methods.base import Method
from experiments.preemption import Preempted
from experiments.results import Result
from tests import tiny
from tests.test_preemption import Signals, assert_same, learn, prepared

ROOT = Path(__file__).parents[1]


def run(out: Path, method: str = "mas", config: Any = None, report: Any = None) -> Result:
    """Two seeds of two methods, learned as the command does."""
    config = config or tiny.Tiny(epochs=1)
    return runs.run("tiny", config, method, tiny.tasks(), out, report or (lambda _: None), "x")


def half_way(out: Path, method: str = "mas", config: Any = None) -> Path:
    """The method's folder of a run of which each seed has learned two tasks."""
    config = config or tiny.Tiny(epochs=1)
    runs.run("tiny", config, method, tiny.tasks(), out, lambda _: None, "x", stop_after=2)
    return out / method


# One process


def test_a_run_that_another_process_is_at_is_refused_and_left_alone(tmp_path: Path) -> None:
    folder = half_way(tmp_path)
    script = """
import sys
from pathlib import Path
from experiments import files
with files.held(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""
    with subprocess.Popen(
        [sys.executable, "-c", script, str(folder / runs.SETTINGS_FILE)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT,
    ) as other:  # fmt: skip
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
        with pytest.raises(files.HeldError, match="another process is at work in"):
            run(tmp_path)
        assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
        other.kill()
    assert len(run(tmp_path).seeds) == 2  # the kernel has let go


def test_what_cannot_be_locked_is_not_held(tmp_path: Path) -> None:
    with files.held(tmp_path / "missing"):
        pass


# One moment, one seed, one run


def test_a_state_that_is_gone_is_an_error_and_nothing_is_learned_over(tmp_path: Path) -> None:
    run(tmp_path)
    state = tmp_path / "mas" / "seed_1" / sequence.STATE_FILE
    content = state.read_bytes()
    state.unlink()
    with pytest.raises(ValueError, match=r"state\.msgpack is gone.*Put it back, or remove"):
        run(tmp_path)
    state.write_bytes(content)
    run(tmp_path)
    # As the error advises; a result without its seeds' folders is only read.
    shutil.rmtree(state.parent)
    run(tmp_path)


def test_another_seeds_state_is_an_error(tmp_path: Path) -> None:
    folder = half_way(tmp_path)
    shutil.copy(folder / "seed_1" / sequence.STATE_FILE, folder / "seed_0" / sequence.STATE_FILE)
    with pytest.raises(ValueError, match=r"is that of seed 1\. Put it back, or remove"):
        run(tmp_path)


def test_another_seeds_anchors_are_an_error(tmp_path: Path) -> None:
    folder = half_way(tmp_path)
    shutil.rmtree(folder / "seed_0" / "anchors")
    shutil.copytree(folder / "seed_1" / "anchors", folder / "seed_0" / "anchors")
    with pytest.raises(ValueError, match="files of another task or seed lie there"):
        run(tmp_path)


def test_anchors_that_are_gone_are_an_error_with_advice(tmp_path: Path) -> None:
    folder = half_way(tmp_path)
    shutil.rmtree(folder / "seed_0" / "anchors")
    with pytest.raises(ValueError, match=r"is gone .*Put it back, or remove .*to learn that seed"):
        run(tmp_path)


def test_another_tasks_memory_is_an_error(tmp_path: Path) -> None:
    methods: dict[str, Method] = {"ebll": dataclasses.replace(METHODS["ebll"], code_size=2)}
    config = tiny.Tiny(epochs=1, methods=methods)
    seed = half_way(tmp_path, "ebll", config) / "seed_0"
    memories = sorted(seed.glob("memory_*.msgpack"))
    assert len(memories) == 2
    shutil.copy(memories[0], memories[1])
    with pytest.raises(ValueError, match="files of another task or seed lie there"):
        run(tmp_path, "ebll", config)


def test_importance_of_chunks_of_another_size_begins_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    setup = prepared("mas")
    learn(setup, tmp_path / "whole")
    # The last boundary of the first task's importance before its end.
    with monkeypatch.context() as patch:
        patch.setattr(preemption, "is_asked", Signals(4))
        with pytest.raises(Preempted):
            learn(setup, tmp_path / "stopped")
    file = tmp_path / "stopped" / bookmark.FILE
    assert bookmark.place(file).chunks > 0
    kept = bookmark.Bookmark.found

    def of_other_size(self: Any, phase: Any, like: Any) -> Any:
        found = kept(self, phase, like)
        if found is not None and phase == "importance":
            found.told["rows"] += 1
        return found

    done: list[int] = []
    keep = bookmark.Bookmark.keep

    def seen(self: Any, phase: Any, tree: Any, **told: Any) -> None:
        done.extend([told["chunks"]] if phase == "importance" else [])
        keep(self, phase, tree, **told)

    monkeypatch.setattr(bookmark.Bookmark, "found", of_other_size)
    monkeypatch.setattr(bookmark.Bookmark, "keep", seen)
    learn(setup, tmp_path / "stopped")
    assert done[0] == 1
    assert_same(tmp_path / "stopped", tmp_path / "whole")


# Signals before there is anything to keep


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_while_a_run_is_starting_ends_it_with_status_75(
    tmp_path: Path, number: signal.Signals
) -> None:
    script = f"""
import os, sys
sys.argv = ["experiments", "run", "split_digits"]

class Imported:
    def find_spec(self, name, *_):
        if name == "experiments.cli":
            os.kill(os.getpid(), {int(number)})

sys.meta_path.insert(0, Imported())
import runpy
runpy.run_module("experiments", run_name="__main__", alter_sys=False)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, env={**os.environ, "HOME": str(tmp_path)},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == preemption.EXIT_CODE, done.stderr


@pytest.mark.parametrize("call", [1, 2])  # the metadata, and the arrays
def test_a_signal_while_anchors_are_read_stops_the_run_and_blames_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: int
) -> None:
    setup = prepared("mas")
    whole = learn(setup, tmp_path / "whole")
    with monkeypatch.context() as patch:
        patch.setattr(preemption, "is_asked", Signals(10))
        with pytest.raises(Preempted):
            learn(setup, tmp_path / "stopped")
    restore, calls = orbax.checkpoint.CheckpointManager.restore, [0]

    def signalled(*arguments: Any, **keywords: Any) -> Any:
        calls[0] += 1
        if calls[0] == call:
            os.kill(os.getpid(), signal.SIGTERM)
        return restore(*arguments, **keywords)

    with monkeypatch.context() as patch:
        patch.setattr(orbax.checkpoint.CheckpointManager, "restore", signalled)
        with pytest.raises(Preempted), preemption.caught(prompt=True):
            learn(setup, tmp_path / "stopped")
    assert calls[0] >= call
    learn(setup, tmp_path / "stopped")
    assert whole is not None
    assert_same(tmp_path / "stopped", tmp_path / "whole")
