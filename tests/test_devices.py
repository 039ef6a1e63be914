"""Runs on all devices, of one process and of two real ones, are those on one device."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from experiments import cli, devices, results, runs, sequence, split_digits
from experiments import config as configs
from experiments.results import Result
from experiments.sequence import Epoch
from experiments.setup import prepare
from tests import tiny

ROOT = Path(__file__).parents[1]
NAMES = (*devices.VARIABLES, *devices.PROCESS_COUNTS.values(), *devices.MARKS.values())
SLURM_PORTS = range(61440, 65536)
"""JAX takes the coordinator's port from here: 61440 + SLURM_JOB_ID mod 4096."""


# What the environment says


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[dict[str, Any]]]:
    """The calls of jax.distributed.initialize, which does nothing; a plain environment."""
    made: list[dict[str, Any]] = []
    monkeypatch.setattr(jax.distributed, "initialize", lambda **options: made.append(options))
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    yield made
    jax.config.update("jax_enable_preemption_service", True)


def set_all(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"JAX_COORDINATOR_ADDRESS": "", "JAX_NUM_PROCESSES": "", "JAX_PROCESS_ID": ""},
        # One task of a Slurm job; a shell on an allocation for four.
        {"SLURM_JOB_ID": "1", "SLURM_STEP_NUM_TASKS": "1", "SLURM_NTASKS": "1"},
        {"SLURM_JOB_ID": "1", "SLURM_NTASKS": "4", "SLURM_PROCID": "0"},
        {"OMPI_COMM_WORLD_SIZE": "1"},
        {"KUBERNETES_SERVICE_HOST": "10.0.0.1"},
    ],
    ids=str,
)
def test_a_process_on_its_own_does_nothing(
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    calls: list[dict[str, Any]],
    variables: dict[str, str],
) -> None:
    set_all(monkeypatch, variables)
    devices.initialise()
    assert calls == []
    assert capfd.readouterr() == ("", "")


def test_the_variables_are_passed_on_and_nothing_else_is_asked(
    monkeypatch: pytest.MonkeyPatch, calls: list[dict[str, Any]]
) -> None:
    values = ("host-0.example:1234", "4", "3")
    set_all(monkeypatch, dict(zip(devices.VARIABLES, values, strict=True)))
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "2")
    devices.initialise()
    (options,) = calls
    del options["shutdown_timeout_seconds"]
    assert options == {
        "coordinator_address": "host-0.example:1234",
        "num_processes": 4,
        "process_id": 3,
        "cluster_detection_method": "deactivate",
    }


@pytest.mark.parametrize(
    "variables",
    [
        {"SLURM_STEP_NUM_TASKS": "2"},
        {"OMPI_COMM_WORLD_SIZE": "2"},
        {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "JOB_COMPLETION_INDEX": "0"},
        {"TPU_ML_PLATFORM": "JAX"},
    ],
    ids=str,
)
def test_behind_a_launcher_jax_finds_out_by_itself(
    monkeypatch: pytest.MonkeyPatch, calls: list[dict[str, Any]], variables: dict[str, str]
) -> None:
    set_all(monkeypatch, variables)
    devices.initialise()
    assert [options.keys() for options in calls] == [{"shutdown_timeout_seconds"}]


@pytest.mark.parametrize(
    ("values", "text"),
    [
        (("h:1", None, None), "ADDRESS without JAX_NUM_PROCESSES and JAX_PROCESS_ID: wanted all"),
        ((None, "2", "0"), "JAX_NUM_PROCESSES and JAX_PROCESS_ID without JAX_COORDINATOR_ADDRESS"),
        (("h:1", "2", None), "JAX_NUM_PROCESSES without JAX_PROCESS_ID"),
        (("h", "2", "0"), "JAX_COORDINATOR_ADDRESS must be host:port, got 'h'"),
        ((":1", "2", "0"), "JAX_COORDINATOR_ADDRESS must be host:port, got ':1'"),
        (("h:1", "two", "0"), "JAX_NUM_PROCESSES must be from 1 to 1000000, got 'two'"),
        (("h:1", "0", "0"), "JAX_NUM_PROCESSES must be from 1"),
        (("h:1", "2", "2"), "JAX_PROCESS_ID must be from 0 to 1, got '2'"),
        (("h:1", "2", "-1"), "JAX_PROCESS_ID must be from 0 to 1, got '-1'"),
    ],
)
def test_variables_that_make_no_sense_are_refused_by_name(
    monkeypatch: pytest.MonkeyPatch,
    calls: list[dict[str, Any]],
    values: tuple[str | None, ...],
    text: str,
) -> None:
    given = zip(devices.VARIABLES, values, strict=True)
    set_all(monkeypatch, {name: value for name, value in given if value is not None})
    with pytest.raises(ValueError, match=text):
        devices.initialise()
    assert calls == []


def test_what_jax_cannot_find_out_is_said_with_what_to_set(
    monkeypatch: pytest.MonkeyPatch, calls: list[dict[str, Any]]
) -> None:
    def fail(**_: Any) -> None:
        raise ValueError("coordinator_address should be defined.")

    monkeypatch.setattr(jax.distributed, "initialize", fail)
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "2")
    text = r"Open MPI may have .*\(coordinator_address should.*\)\. Set JAX_COORDINATOR_ADDRESS, "
    with pytest.raises(ConnectionError, match=text):
        devices.initialise()
    assert calls == []


def test_only_all_devices_join_other_processes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, calls: list[dict[str, Any]]
) -> None:
    meshes = []

    def run(*arguments: Any, **_: Any) -> None:
        meshes.append(arguments[7])
        sys.exit(7)

    monkeypatch.setattr(cli.runs, "run", run)
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "2")
    for choice in ("one", "all"):
        with pytest.raises(SystemExit):
            cli.main(["run", "split_digits", "--devices", choice, "--out", str(tmp_path)])
        assert len(calls) == (0 if choice == "one" else 1)
    assert meshes == [None, devices.all_devices()]


# One process


def test_on_four_devices() -> None:
    tests = Path(__file__).with_name("on_four_devices.py")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tests)],
        env={**os.environ, "XLA_FLAGS": host_devices(4), "JAX_PLATFORMS": "cpu"},
        capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-4000:]


def host_devices(count: int) -> str:
    """Flags for so many devices. Compiling is most of what these tests take, so it does less."""
    return f"--xla_force_host_platform_device_count={count} --xla_backend_optimization_level=0"


def test_half_given_variables_end_the_command_with_their_text(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    calls: list[dict[str, Any]],
) -> None:
    monkeypatch.setenv("JAX_NUM_PROCESSES", "2")
    with pytest.raises(SystemExit) as end:
        cli.main(["run", "split_digits", "--devices", "all"])
    assert end.value.code == 2
    assert "error: JAX_NUM_PROCESSES without" in capsys.readouterr().err
    assert calls == []


def test_an_error_says_which_other_process_it_was_in(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(devices, "which_process", lambda: " in process 3")
    with pytest.raises(SystemExit):
        cli.main(["run", "split_digits", "--method", "max"])
    assert "error in process 3: no method" in capsys.readouterr().err


# Two processes


def started(commands: list[list[str]], environments: list[dict[str, str]], folders: list[Path]):
    """Each command in its environment and folder; (status, output, error output) of each."""
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    running = [
        subprocess.Popen(
            [sys.executable, *command],
            env={**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": path, **environment},
            cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for command, environment, folder in zip(commands, environments, folders, strict=True)
    ]  # fmt: skip
    try:
        outputs = [process.communicate(timeout=180) for process in running]
    finally:
        for process in running:
            process.kill()
    return [(process.returncode, *out) for process, out in zip(running, outputs, strict=True)]


def free_port(candidates: range) -> int:
    """A port that nothing listens on."""
    for port in candidates:
        try:
            with socket.create_server(("localhost", port)) as server:
                return server.getsockname()[1]
        except OSError:
            continue
    raise AssertionError(f"all ports from {candidates[0]} to {candidates[-1]} are taken")


def slurm(process: int, port: int) -> dict[str, str]:
    """What srun sets in one of two tasks."""
    return {
        "SLURM_JOB_ID": str(port - SLURM_PORTS[0]),
        "SLURM_STEP_NODELIST": "localhost",
        "SLURM_STEP_NUM_TASKS": "2",
        "SLURM_NTASKS": "2",
        "SLURM_PROCID": str(process),
        "SLURM_LOCALID": str(process),
        "XLA_FLAGS": host_devices(1),
    }


def own_lines(output: str) -> list[str]:
    """`output` without what XLA's library for communication between CPUs prints."""
    return [line for line in output.splitlines() if "[Gloo]" not in line]


def test_a_command_in_two_slurm_tasks_is_one_run_and_process_0_writes_it(tmp_path: Path) -> None:
    options = ["--only", "finetune", "--seeds", "1", "--epochs", "1", "--devices", "all"]
    command = ["-m", "experiments", "compare", "split_digits", *options, "--out", "out"]
    # Each has a folder of its own, as on machines that share none.
    folders = [tmp_path / str(process) for process in range(2)]
    for folder in folders:
        folder.mkdir()

    def run() -> list[list[str]]:
        port = free_port(SLURM_PORTS)
        tasks = [slurm(process, port) for process in range(2)]
        ended = started([command] * 2, tasks, folders)
        assert [status for status, *_ in ended] == [0, 0], ended
        return [own_lines(out + err) for _, out, err in ended]

    first, second = run()
    assert second == []
    assert sum("average accuracy" in line for line in first) == 1
    assert list(folders[1].iterdir()) == []

    file = folders[0] / "out" / "finetune" / results.FILE_NAME
    config = split_digits.SplitDigits(seeds=1, epochs=1)
    tasks = split_digits.tasks(config)
    expected = runs.run(
        "split_digits", config, "finetune", tasks, tmp_path / "one", lambda _: None, "one process"
    )
    assert_same_result(results.read(file), expected)
    assert results.read(file).machine["processes"] == 2
    assert results.read(file).machine["devices"] == 2

    written = file.stat().st_mtime_ns, file.read_bytes()
    first, second = run()
    assert second == []
    assert not any("epoch" in line for line in first)  # nothing is learned again
    assert (file.stat().st_mtime_ns, file.read_bytes()) == written


def assert_same_result(got: Result, expected: Result) -> None:
    """The same numbers, but for rounding."""
    (record,), (expected_record,) = got.seeds, expected.seeds
    assert record.accuracy == expected_record.accuracy
    np.testing.assert_allclose(record.loss, expected_record.loss, rtol=1e-5)
    assert got.config == expected.config


class StopError(Exception):
    """What a test stops a run with."""


def test_two_processes_go_on_with_a_stopped_run_and_share_their_errors(tmp_path: Path) -> None:
    def stop(epoch: Epoch) -> None:
        if epoch.task == 1:
            raise StopError

    config = tiny.Tiny(seeds=1)
    setup = prepare(config, config.methods["mas"], tiny.tasks())
    whole = sequence.learn(setup, 0, tmp_path / "whole", lambda _: None)
    stopped = tmp_path / "run" / "mas"
    with pytest.raises(StopError):
        sequence.learn(setup, 0, stopped / "seed_0", stop)
    results.write_json(configs.settings(config, "mas"), stopped / "settings.json")

    worker = str(ROOT / "tests" / "two_processes_worker.py")
    address = f"localhost:{free_port(range(1))}"
    environments = [
        {**dict(zip(devices.VARIABLES, (address, "2", str(process)), strict=True)),
         "XLA_FLAGS": host_devices(2)}
        for process in range(2)
    ]  # fmt: skip
    ended = started([[worker, str(tmp_path)]] * 2, environments, [tmp_path] * 2)
    assert [status for status, *_ in ended] == [0, 0], ended
    first, second = (
        json.loads((tmp_path / f"process_{process}.json").read_text()) for process in range(2)
    )

    for outcome in (first, second):
        assert outcome["devices"] == [4, 2]
        assert outcome["tasks learned"] == [1, 1, 1, 2, 2, 2]
        assert [tuple(row) for row in outcome["accuracy"]] == list(whole.accuracy)
        np.testing.assert_allclose(outcome["loss"], whole.loss, rtol=1e-5)
        assert (outcome["machine"]["devices"], outcome["machine"]["processes"]) == (4, 2)
        # 0.3 is nearest to the 18th step below 1: 2^(−18 · 24/254).
        assert outcome["rounded"] == [[1.0, pytest.approx(0.30762, rel=1e-4), 0.0], True]
    assert not (tmp_path / "elsewhere").exists()

    assert first["from_first"] == [[0], [0.0, 1.0, 2.0], None]
    assert second["from_first"] == [[], [0.0, 1.0, 2.0], None]
    assert first["from_first fails"] == second["same fails"] == ["OSError", "disk full"]
    elsewhere = "OtherProcessError"
    assert second["from_first fails"] == [elsewhere, "process 0 failed, and says why itself"]
    text = "another process failed to get its data, and says why itself"
    assert first["same fails"] == [elsewhere, text]
    text = "the processes differ in their data: wanted the same of all of them"
    for outcome in (first, second):
        assert outcome["same"] == [0, 1, 2]
        assert outcome["same differs"] == ["ValueError", text]
