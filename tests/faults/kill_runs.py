"""Kill a run at random moments, start it again, and compare the end with that of a run left alone.

    python -m tests.faults.kill_runs --kills 200 --seed 0 --out kill_runs.json

The run is `python -m experiments run split_digits` with few epochs, and everything kept at every
boundary. Each start is a fork of this process, which has imported what the command needs and has
asked JAX for nothing yet: a new Python would be importing most of the time, and killed there. The
moments are drawn from the seed and the start's number, in units of how long a run takes here; a
failure prints the command that draws them again. Programs are compiled once, in a cache of this
process's own.
"""

import argparse
import collections
import hashlib
import json
import os
import random
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import numpy as np

import mas_jax
from experiments import bookmark, checkpoint, cli, results, sequence
from experiments.data import digits
from experiments.methods import anchored
from tests.faults.made import made

METHOD = "mas"
OPTIONS = ("--seeds", "1", "--epochs", "2", "--hidden-sizes", "8", "--checkpoint-seconds", "0")

Kind = Literal["any", "work", "write"]


class Moment(NamedTuple):
    """When a start is killed."""

    kind: Kind  # at any moment; after it has begun to write; right at one of its writes
    seconds: float  # from the start, from the first write, from the write
    write: int  # at which change of the seed's folder


class Usual(NamedTuple):
    """A run that is left alone."""

    seconds: float
    working: float  # of these after its first write
    writes: int  # changes of the seed's folder that were seen
    end: dict[str, str]


class Killed(NamedTuple):
    """What came of killing."""

    by_kind: collections.Counter[str]  # kills
    ends: int  # of runs that were killed, compared and the same
    failures: list[str]


class FaultError(Exception):
    """A run did not end as it should."""


def command(out: Path) -> list[str]:
    """What a start runs."""
    return ["run", "split_digits", "--method", METHOD, "--out", str(out), *OPTIONS]


def forked(fn: Callable[[], None], log: Path) -> int:
    """The number of a fork of this process that calls `fn`; what it prints is in `log`."""
    process = os.fork()
    if process:
        return process
    status = 1
    try:
        with log.open("ab") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        fn()
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(status)


def learn(out: Path) -> None:
    """The command, with parts of importance as small as its tasks."""
    anchored.BATCH_SIZE, anchored.BATCHES_PER_CHUNK = 50, 1
    cli.main(command(out))


def ended(process: int) -> int | None:
    """The exit status of a process that has ended; that of a signal is negative."""
    found, status = os.waitpid(process, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if found else None


def watch(process: int, folder: Path, moment: Moment | None) -> tuple[int, list[float]]:
    """Wait for a process, killed at `moment`; its exit status, and when the folder changed."""
    began, before, changes = time.monotonic(), state_of(folder), []
    while (status := ended(process)) is None:
        now, here = time.monotonic() - began, state_of(folder)
        if here != before:
            changes.append(now)
            before = here
        if moment is not None and now >= due(moment, changes):
            os.kill(process, signal.SIGKILL)
            moment = None
        time.sleep(0.0005)
    return status, changes


def due(moment: Moment, changes: list[float]) -> float:
    """When it is time to kill, given the changes so far."""
    match moment.kind:
        case "any":
            return moment.seconds
        case "work":
            return changes[0] + moment.seconds if changes else float("inf")
        case "write":
            enough = len(changes) >= moment.write
            return changes[moment.write - 1] + moment.seconds if enough else float("inf")


def state_of(folder: Path) -> frozenset[tuple[str, int]]:
    """The names in a seed's folder and its stores, and when they changed."""
    found: set[tuple[str, int]] = set()
    for each in (folder, folder / "anchors"):
        try:
            with os.scandir(each) as entries:
                found |= {(entry.name, entry.stat().st_mtime_ns) for entry in entries}
        except (FileNotFoundError, NotADirectoryError):
            continue
    return frozenset(found)


def drawn(seed: int, number: int, usual: Usual) -> Moment:
    """The moment of a kill."""
    rng = random.Random(f"{seed}/{number}")
    kind: Kind = rng.choice(("any", "work", "write", "write"))
    seconds = {"any": usual.seconds, "work": usual.working, "write": 0.004}[kind]
    return Moment(kind, rng.uniform(0.0, seconds), rng.randint(1, max(1, usual.writes // 2)))


def fingerprint(out: Path, file: Path) -> None:
    """Write digests of all that a finished run leaves: parameters, every task's Ω and θ*, results.

    Times are left out, and how the run was started.
    """
    folder = out / METHOD / "seed_0"
    left = [path.name for path in folder.parent.rglob("*.tmp")]
    if left or (folder / bookmark.FILE).exists():
        raise FaultError(f"a finished run leaves {left or bookmark.FILE} behind")
    stored = checkpoint.load(folder / sequence.STATE_FILE)
    assert stored is not None
    params, optimizer, _, _ = stored
    found = {"parameters": digest((params, optimizer))}
    store = mas_jax.AnchorStore(folder / "anchors")
    for task in store.tasks():
        found[f"anchor {task}"] = digest(store.restore(task, like=params))
    (record,) = json.loads((out / METHOD / results.FILE_NAME).read_text())["seeds"]
    plain = {name: record[name] for name in record if name not in ("seconds", "made")}
    found["results"] = hashlib.sha256(json.dumps(plain).encode()).hexdigest()
    file.write_text(json.dumps(found))


def digest(tree: Any) -> str:
    """A digest of a tree's structure and every bit in it."""
    hashed = hashlib.sha256(str(jax.tree.structure(tree)).encode())
    for leaf in map(np.asarray, jax.tree.leaves(tree)):
        hashed.update(f"{leaf.dtype}{leaf.shape}".encode() + leaf.tobytes())
    return hashed.hexdigest()


def end_of(out: Path, work: Path) -> dict[str, str]:
    """The digests of a finished run; read in a fork, since this process asks JAX for nothing."""
    file, log = work / "end.json", work / "end.log"
    process = forked(lambda: fingerprint(out, file), log)
    if os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) != 0:
        raise FaultError(f"what the run left cannot be read:\n{log.read_text()[-3000:]}")
    return json.loads(file.read_text())


def left_alone(work: Path) -> Usual:
    """The run that others are compared with; a first one fills the cache of programs."""
    for name in ("first", "whole"):
        began, out = time.monotonic(), work / name
        process = forked(lambda out=out: learn(out), work / f"{name}.log")
        status, changes = watch(process, out / METHOD / "seed_0", None)
        if status != 0:
            raise FaultError(f"a run left alone ended with {status}: {work / name}.log")
    seconds = time.monotonic() - began
    return Usual(seconds, seconds - changes[0], len(changes), end_of(out, work))


def kill(work: Path, kills: int, seed: int, usual: Usual) -> Killed:
    """Kill so often, or until an end is not as it should be."""
    done, ends, starts = collections.Counter[str](), 0, 0
    while True:
        out, log = work / f"run_{ends}", work / f"run_{ends}.log"
        number = done.total()
        moment = drawn(seed, starts, usual) if number < kills else None
        starts += 1
        status, _ = watch(forked(lambda out=out: learn(out), log), out / METHOD / "seed_0", moment)
        if status == -signal.SIGKILL and moment is not None:
            done[moment.kind] += 1
            print(f"kill {done.total()}: {moment}", flush=True)
            continue
        try:
            compare(status, log, out, work, usual)
        except FaultError as error:
            return Killed(done, ends, [f"after kill {number} {error}"])
        ends += 1
        print(f"end {ends}: the same", flush=True)
        if number >= kills:
            return Killed(done, ends, [])


def compare(status: int, log: Path, out: Path, work: Path, usual: Usual) -> None:
    """Raise FaultError where a start that was not killed did not end as the usual run."""
    if status != 0:
        raise FaultError(f"a start ended with {status}:\n{log.read_text()[-3000:]}")
    end = end_of(out, work)
    differing = [name for name in usual.end.keys() | end if usual.end.get(name) != end.get(name)]
    if differing:
        raise FaultError(f"the end differs in {differing}: {out}")


def main() -> None:
    """Kill, compare, and write what came of it; exit with status 1 where an end was not right."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="a JSON file for the figures")
    options = parser.parse_args()
    began, about = time.monotonic(), {"seed": options.seed, **made()}
    work = Path(tempfile.mkdtemp(prefix="kill_runs_"))
    jax.config.update("jax_compilation_cache_dir", str(work / "programs"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    digits.load()  # imports scikit-learn, which forks need not do again
    try:
        usual = left_alone(work)
    except FaultError as error:
        sys.exit(f"{error}\nfiles: {work}")
    killed = kill(work, options.kills, options.seed, usual)
    figures = {
        **about,
        "seconds": round(time.monotonic() - began),
        "command": " ".join(["python -m experiments", *command(Path("OUT"))]),
        "tried": killed.by_kind.total(),
        "tried_by_kind": dict(killed.by_kind),
        "ends_compared": killed.ends,
        "failed": len(killed.failures),
        "failures": killed.failures,
        "seconds_of_a_run_left_alone": round(usual.seconds, 2),
    }
    print(json.dumps(figures, indent=1))
    if options.out is not None:
        options.out.write_text(json.dumps(figures, indent=1) + "\n")
    if killed.failures:
        again = f"python -m tests.faults.kill_runs --kills {options.kills} --seed {options.seed}"
        sys.exit(f"files: {work}\nagain: {again}")


if __name__ == "__main__":
    main()
