"""Signals to real processes: a run that is stopped ends with 75, and the same command goes on."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from experiments import preemption
from experiments.preemption import Preempted
from tests.test_devices import ROOT, free_port, host_devices
from tests.test_preemption import assert_same

BOTH = [signal.SIGTERM, signal.SIGINT]


# The handlers


def test_a_signal_is_noticed_and_the_handlers_before_are_put_back() -> None:
    before = [signal.getsignal(number) for number in BOTH]
    with preemption.caught(prompt=False):
        assert not preemption.is_asked()
        signal.raise_signal(signal.SIGTERM)
        assert preemption._asked.wait(timeout=60)
    assert not preemption.is_asked()
    assert [signal.getsignal(number) for number in BOTH] == before


def test_a_prompt_signal_interrupts_what_nothing_is_kept_of() -> None:
    with preemption.caught(prompt=True):
        with preemption.until_boundary():
            pass
        with pytest.raises(Preempted):
            signal.raise_signal(signal.SIGINT)


def test_other_threads_are_left_alone() -> None:
    seen: list[bool] = []

    def elsewhere() -> None:
        with preemption.caught(prompt=True):
            seen.append(preemption.is_asked())

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert seen == [False]


WAITING = """
import sys, time
from experiments import preemption
try:
    with preemption.caught(prompt=sys.argv[1] == "prompt"):
        print("ready", flush=True)
        time.sleep(300)  # goes on after a handler, as compiled code does
except preemption.Preempted:
    sys.exit(preemption.EXIT_CODE)
"""


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Variables for processes that start again and again, and compile the same each time."""
    folder = str(tmp_path_factory.mktemp("programs"))
    at_once = {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    return {"JAX_COMPILATION_CACHE_DIR": folder, **at_once}


@pytest.fixture
def started(programs: dict[str, str]) -> Iterator[Any]:
    """Starts Python with arguments, in a process that is gone after the test."""
    running: list[subprocess.Popen[str]] = []

    def start(*arguments: str, **environment: str) -> subprocess.Popen[str]:
        path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
        variables = {"JAX_PLATFORMS": "cpu", "PYTHONPATH": path, **programs, **environment}
        running.append(
            subprocess.Popen(
                [sys.executable, *arguments], env={**os.environ, **variables},
                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            )
        )  # fmt: skip
        return running[-1]

    yield start
    for process in running:
        process.kill()
        process.communicate()


@pytest.mark.parametrize(("first", "second"), [(15, 15), (2, 2), (15, 2)])
def test_a_second_signal_ends_the_process_at_once(started: Any, first: int, second: int) -> None:
    process = started("-c", WAITING, "later")
    assert process.stdout.readline() == "ready\n"
    process.send_signal(first)
    assert "again to stop at once" in process.stderr.readline()
    process.send_signal(second)
    assert process.wait(timeout=60) == 128 + second


@pytest.mark.parametrize("number", BOTH)
def test_a_prompt_signal_ends_what_waits(started: Any, number: int) -> None:
    process = started("-c", WAITING, "prompt")
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    assert process.wait(timeout=60) == 75


# The command


def command(out: Path, epochs: int, *options: str) -> list[str]:
    """A run that lasts some seconds; but for signals, nothing is written within its tasks."""
    return [
        "-m", "experiments", "run", "split_digits", "--method", "mas", "--seeds", "1",
        "--epochs", str(epochs), "--checkpoint-seconds", "inf", "--out", str(out), *options,
    ]  # fmt: skip


def wait_for_an_epoch(process: subprocess.Popen[str]) -> bool:
    """Whether an epoch was learned before the process ended."""
    assert process.stdout is not None
    return any("epoch" in line for line in process.stdout)


def seed_folder(out: Path) -> Path:
    return out / "mas" / "seed_0"


def test_a_loop_around_a_command_that_is_stopped_again_and_again_reaches_the_end(
    tmp_path: Path, started: Any
) -> None:
    whole = started(*command(tmp_path / "whole", 40))
    whole.communicate(timeout=240)
    assert whole.returncode == 0
    stopped = tmp_path / "stopped"
    signals = [signal.SIGTERM, signal.SIGINT]
    while True:
        process = started(*command(stopped, 40))
        if signals and wait_for_an_epoch(process):
            process.send_signal(signals.pop(0))
            _, error = process.communicate(timeout=240)
            assert process.returncode == 75, error
            assert "stopped; the same command goes on from here" in error
        else:
            _, error = process.communicate(timeout=240)
            assert process.returncode == 0, error
            break
    assert signals == []
    assert_same(seed_folder(stopped), seed_folder(tmp_path / "whole"))


def test_two_processes_of_which_one_gets_a_signal_stop_together_and_go_on(
    tmp_path: Path, started: Any
) -> None:
    def start(out: Path) -> list[subprocess.Popen[str]]:
        variables = {
            "JAX_COORDINATOR_ADDRESS": f"localhost:{free_port(range(1))}",
            "JAX_NUM_PROCESSES": "2",
            "XLA_FLAGS": host_devices(1),
        }
        arguments = command(out, 4, "--devices", "all", "--hidden-sizes", "8")
        return [started(*arguments, **variables, JAX_PROCESS_ID=str(n)) for n in range(2)]

    def ended(processes: list[subprocess.Popen[str]], status: int) -> None:
        outputs = [process.communicate(timeout=240) for process in processes]
        assert [process.returncode for process in processes] == [status] * 2, outputs

    ended(start(tmp_path / "whole"), 0)
    # The one that gets the signal is not the one that writes.
    first, second = start(tmp_path / "stopped")
    assert wait_for_an_epoch(first)
    second.send_signal(signal.SIGTERM)
    ended([first, second], 75)
    ended(start(tmp_path / "stopped"), 0)
    assert_same(seed_folder(tmp_path / "stopped"), seed_folder(tmp_path / "whole"))
