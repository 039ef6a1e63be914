"""Runs of split_digits small enough to go on hundreds of times in one process, stopped half way."""

import contextlib
import dataclasses
import functools
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

from experiments import checkpoint, preemption, results, runs, sequence
from experiments.data.types import Task
from experiments.learning import Epoch
from experiments.methods import METHODS, Method
from experiments.methods.ebll import EBLL
from experiments.preemption import Preempted
from experiments.setup import Setup, prepare
from experiments.split_digits import SplitDigits, tasks
from mas_jax import AnchorStore
from tests.faults.kill_runs import digest

KEPT: dict[str, Method] = {
    "mas": METHODS["mas"],
    "ebll": EBLL(code_size=2, autoencoder_steps=3),
}
"""A method whose memory is in a store, and one whose memory is in files of the run's own."""
SEEDS = (0, 1)
CONFIG = SplitDigits(
    classes=((1, 2), (3, 4), (5, 6)),
    methods=KEPT,
    hidden_sizes=(8,),
    epochs=2,
    seeds=len(SEEDS),
)

End = dict[str, str | None]
"""Digests of what a run leaves, by name; None for an anchor that is damaged, as its reader says."""


class SoundRun(NamedTuple):
    """A run that nothing has befallen."""

    method: str
    learn: Callable[[Path], None]  # gives its command again, with a folder as its --out
    half_way: Path  # a folder in which it is within the third task
    earlier: Path  # the same within the second one
    end: End


def make(method: str, work: Path) -> SoundRun:
    """A run in `work`, stopped, and how it ends."""
    learned = tasks(CONFIG)
    setup = prepare(CONFIG, KEPT[method], learned)
    learn = functools.partial(_learn, method, learned, setup)
    half_way, earlier, whole = (work / name for name in ("half way", "earlier", "whole"))
    for seed in SEEDS:
        _stop(learn, half_way, seed, task=1)
    shutil.copytree(half_way, earlier)
    for seed in SEEDS:
        _stop(learn, half_way, seed, task=2)
    # Not from there: the end is that of a run which was never stopped.
    learn(whole)
    return SoundRun(method, learn, half_way, earlier, end_of(whole / method))


def _learn(
    method: str,
    learned: tuple[Task, ...],
    setup: Setup,
    out: Path,
    report: Callable[[Epoch], None] = lambda _: None,
    **settings: Any,
) -> None:
    """What the command does, with the functions that are compiled already."""
    config = dataclasses.replace(CONFIG, **settings)
    run = functools.partial(runs.run, command="the same command", checkpoint_seconds=0.0)
    with mock.patch.object(runs, "prepare", return_value=setup):
        run("split_digits", config, method, learned, out, report)


def _stop(learn: Callable[..., None], out: Path, seed: int, task: int) -> None:
    """Learn one seed, and stop it after the first epoch of a task."""
    seen: list[Epoch] = []

    def is_asked() -> bool:
        return bool(seen) and seen[-1].task == task

    with mock.patch.object(preemption, "is_asked", is_asked), contextlib.suppress(Preempted):
        learn(out, seen.append, seeds=1, first_seed=seed)


def end_of(folder: Path) -> End:
    """What a finished run of a method has left, without times."""
    result = results.read(folder / results.FILE_NAME)
    plain = dataclasses.asdict(result)
    end: End = {"result": _text({**plain, "seeds": list(map(_record, result.seeds))})}
    for seed in folder.glob("seed_*"):
        stored = checkpoint.load(seed / sequence.STATE_FILE)
        assert stored is not None, f"a finished run leaves no state in {seed}"
        end[f"{seed.name}: state"] = digest((stored.params, stored.optimizer, stored.memory))
        end[f"{seed.name}: record"] = _text(_record(stored.record))
        for memory in seed.glob("memory_*.msgpack"):
            try:
                end[f"{seed.name}: {memory.name}"] = digest(checkpoint.load_tree(memory))
            except ValueError:
                end[f"{seed.name}: {memory.name}"] = None
        end |= _anchors(seed, stored.params)
        left = sorted(path.name for path in seed.iterdir())
        end[f"{seed.name}: files"] = _text(left)
    return end


def _anchors(seed: Path, params: Any) -> End:
    """The anchors of one seed, by task."""
    store = AnchorStore(seed / "anchors")
    end: End = {}
    for entry in store.examine().entries:
        if entry.task is not None:
            whole = entry.error is None
            anchor = digest(store.restore(entry.task, like=params)) if whole else None
            end[f"{seed.name}: anchor {entry.task}"] = anchor
    return end


def _record(record: results.SeedRecord) -> dict[str, Any]:
    """What of a record does not depend on the time."""
    plain = dataclasses.asdict(record)
    return {name: plain[name] for name in plain if name not in ("seconds", "made")}


def _text(plain: Any) -> str:
    """Numbers and names as a digest, in which a loss that is no number equals itself."""
    return json.dumps(plain)
