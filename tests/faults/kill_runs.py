"""Kill a run at random moments, start it again, and compare the end with that of a run left alone.

    python -m tests.faults.kill_runs --kills 200 --seed 0 --out kill_runs.json

The run is `python -m experiments run split_digits` with few epochs, and everything kept at every
boundary. Each start is a fork of this process, which has imported what the command needs and has
asked JAX for nothing yet: a new Python would be importing most of the time, and killed there. The
moments are drawn from the seed and the start's number, in units of how long a run takes here: any
time, at a write, or within a phase, of which all have the same chance. A failure prints the command
that draws them again; the machine may be elsewhere then, so that what is recorded is the phase that
a kill fell into, and not that which was drawn. Programs are compiled once, in a cache of this
process's own.
"""

import argparse
import collections
import functools
import json
import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax

from experiments import cli
from experiments.data import digits
from experiments.methods import anchored
from tests.faults.ends import FaultError, fingerprint
from tests.faults.made import made
from tests.faults.moments import Clock, Moment, Usual, drawn
from tests.faults.phases import PHASES, Phases, install

METHOD = "mas"
OPTIONS = ("--seeds", "1", "--epochs", "2", "--hidden-sizes", "8", "--checkpoint-seconds", "0")
ENOUGH = 100
"""From so many kills on each phase has to have had some."""


class Killed(NamedTuple):
    """What came of killing."""

    by_kind: collections.Counter[str]  # kills, by how their moments were drawn
    by_phase: collections.Counter[str]  # kills, by what the run was at when it died
    ends: int  # of runs that were killed, compared and the same
    failures: list[str]


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


def learn(out: Path, phases: Phases, moment: Moment | None = None) -> None:
    """The command, with parts of importance as small as its tasks, to be killed at `moment`."""
    install(phases, moment and (moment.phase, moment.number))
    anchored.BATCH_SIZE, anchored.BATCHES_PER_CHUNK = 50, 1
    cli.main(command(out))


def ended(process: int) -> int | None:
    """The exit status of a process that has ended; that of a signal is negative."""
    found, status = os.waitpid(process, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if found else None


def watch(
    process: int, folder: Path, moment: Moment | None, phases: Phases
) -> tuple[int, list[float]]:
    """Wait for a process, killed at `moment`; its exit status, and when the folder changed."""
    began, before, changes = time.monotonic(), state_of(folder), []
    clock = Clock(moment)
    while (status := ended(process)) is None:
        now, here = time.monotonic() - began, state_of(folder)
        if here != before:
            changes.append(now)
            before = here
        if clock.is_due(now, changes, phases):
            os.kill(process, signal.SIGKILL)
            clock = Clock(None)
        time.sleep(0.0005)
    return status, changes


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


def end_of(out: Path, work: Path) -> dict[str, str]:
    """The digests of a finished run; read in a fork, since this process asks JAX for nothing."""
    file, log = work / "end.json", work / "end.log"
    process = forked(lambda: fingerprint(out / METHOD, file), log)
    if os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) != 0:
        raise FaultError(f"what the run left cannot be read:\n{log.read_text()[-3000:]}")
    return json.loads(file.read_text())


def left_alone(work: Path, phases: Phases) -> Usual:
    """The run that others are compared with; a first one fills the cache of programs."""
    for name in ("first", "whole"):
        phases.clear()
        began, out = time.monotonic(), work / name
        process = forked(lambda out=out: learn(out, phases), work / f"{name}.log")
        status, changes = watch(process, out / METHOD / "seed_0", None, phases)
        if status != 0:
            raise FaultError(f"a run left alone ended with {status}: {work / name}.log")
    seconds = time.monotonic() - began
    seen = {phase: (phases.visits(phase), phases.seconds(phase)) for phase in PHASES}
    return Usual(seconds, seconds - changes[0], len(changes), seen, end_of(out, work))


def kill(work: Path, kills: int, seed: int, usual: Usual, phases: Phases) -> Killed:
    """Kill so often, or until an end is not as it should be."""
    killed, starts = Killed(collections.Counter(), collections.Counter(), 0, []), 0
    while True:
        out, log = work / f"run_{killed.ends}", work / f"run_{killed.ends}.log"
        number = killed.by_kind.total()
        moment = drawn(seed, starts, usual) if number < kills else None
        starts += 1
        phases.clear()
        start = functools.partial(learn, out, phases, moment)
        status, _ = watch(forked(start, log), out / METHOD / "seed_0", moment, phases)
        if status == -signal.SIGKILL and moment is not None:
            killed.by_kind[moment.kind] += 1
            killed.by_phase[phases.now()] += 1
            print(f"kill {number + 1}, in {phases.now()}: {moment}", flush=True)
            continue
        try:
            compare(status, log, out, work, usual)
        except FaultError as error:
            return killed._replace(failures=[f"after kill {number} {error}"])
        killed = killed._replace(ends=killed.ends + 1)
        print(f"end {killed.ends}: the same", flush=True)
        if number >= kills:
            return killed._replace(failures=never_killed(killed.by_phase, kills))


def never_killed(by_phase: collections.Counter[str], kills: int) -> list[str]:
    """Phases in which nothing was killed, where there were enough kills for each."""
    missing = [phase for phase in PHASES if not by_phase[phase]] if kills >= ENOUGH else []
    return [f"of {kills} kills none fell into {phase}" for phase in missing]


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
    work, phases = Path(tempfile.mkdtemp(prefix="kill_runs_")), Phases()
    jax.config.update("jax_compilation_cache_dir", str(work / "programs"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    digits.load()  # imports scikit-learn, which forks need not do again
    try:
        usual = left_alone(work, phases)
    except FaultError as error:
        sys.exit(f"{error}\nfiles: {work}")
    killed = kill(work, options.kills, options.seed, usual, phases)
    figures = {
        **about,
        "seconds": round(time.monotonic() - began),
        "command": " ".join(["python -m experiments", *command(Path("OUT"))]),
        "tried": killed.by_kind.total(),
        "tried_by_kind": dict(killed.by_kind),
        "tried_by_phase": dict(killed.by_phase),
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
