"""The estimator over a mesh of two real processes, each with its own share of the samples."""

import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

import mas_jax
from tests import multi_process_worker as worker

WORKER = Path(worker.__file__)


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What every case gave, for each process."""
    folder = tmp_path_factory.mktemp("processes")
    with socket.create_server(("localhost", 0)) as server:
        port = str(server.getsockname()[1])
    flags = "--xla_force_host_platform_device_count=2 --xla_backend_optimization_level=0"
    env = {
        **os.environ,
        "XLA_FLAGS": flags,
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": os.pathsep.join([str(WORKER.parents[1]), os.environ.get("PYTHONPATH", "")]),
    }
    files = [folder / f"{process}.json" for process in range(worker.PROCESSES)]
    running = [
        subprocess.Popen(
            [sys.executable, str(WORKER), port, str(process), str(file)],
            env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for process, file in enumerate(files)
    ]  # fmt: skip
    try:
        for process in running:
            output, _ = process.communicate(timeout=180)
            assert process.returncode == 0, output[-4000:]
    finally:
        for process in running:
            process.kill()
    return [json.loads(file.read_text()) for file in files]


def estimate(sizes: Any, **options: Any) -> Any:
    """Ω on one device, of the shares one after the other."""
    batches = [batch for process in range(2) for batch in worker.share(sizes, process)]
    return mas_jax.estimate_importance(worker.apply_fn, worker.network(), batches, **options)


@pytest.mark.parametrize(
    ("case", "sizes"),
    [
        ("equal", worker.EQUAL),
        ("equal, vmap engine", worker.EQUAL),
        ("equal, automatic axes", worker.EQUAL),
        ("uneven", worker.UNEVEN),
        ("large, then small", worker.LARGE_THEN_SMALL),
        ("global arrays", worker.EQUAL),
        ("no padding, equal", worker.EQUAL),
        ("devices of this process", [[24], []]),
    ],
)
def test_it_equals_the_result_of_one_device(outcomes, case, sizes) -> None:
    assert_agree([outcome[case] for outcome in outcomes], estimate(sizes))


def assert_agree(got: list[Any], expected: Any) -> None:
    """Every process has the same, within 1e-6 of each leaf's largest entry of what is expected."""
    assert got[0] == got[1]
    assert got[0].keys() == expected.keys(), got[0]
    for name, leaf in expected.items():
        tolerance = 1e-6 * np.abs(leaf).max()
        np.testing.assert_allclose(got[0][name], leaf, rtol=0, atol=tolerance)


def test_a_batch_is_that_of_all_processes(outcomes) -> None:
    # reduction="batch" depends on how the stream is cut: here both processes' rows together.
    steps = zip(*(worker.share(worker.EQUAL, process) for process in range(2)), strict=True)
    batches = [jax.tree.map(lambda *leaves: np.concatenate(leaves), *step) for step in steps]
    expected = mas_jax.estimate_importance(
        worker.apply_fn, worker.network(), batches, reduction="batch"
    )
    assert_agree([outcome["batch mean"] for outcome in outcomes], expected)


def test_samples_that_are_not_finite_may_be_skipped(outcomes) -> None:
    good = jax.tree.map(lambda leaf: np.delete(leaf, 20, axis=0), worker.samples())
    expected = mas_jax.estimate_importance(worker.apply_fn, worker.network(), [good])
    assert_agree([outcome["skipped"] for outcome in outcomes], expected)


def test_progress_counts_the_samples_of_all(outcomes) -> None:
    # The steps have 5 + 6, 3 + 5 and 5 samples.
    for outcome in outcomes:
        assert outcome["progress"] == [11, 19, 24]


SAME = [
    ("no sample", "ValueError: process 1 yielded no sample"),
    (
        "no padding",
        r"ValueError: the processes have \[5, 6\] samples at one step, wanted 6 of each",
    ),
    ("differing parameters", "ValueError: params of processes 0 and 1 are not the same numbers"),
    ("not finite", "NonFiniteError: the outputs for sample 12 of process 1's share"),
    ("local arrays", r"ValueError: batch\['scale'\] belongs to this process alone"),
    ("global batches", r"ValueError: batch\['scale'\] is a global array already"),
    ("axis across processes", "ValueError: mesh has devices of several processes at one position"),
    ("half of the devices", r"ValueError: mesh must give each process .* got \[2, 1\]"),
    ("differing batches", "ValueError: the processes' batches differ in their structure"),
]


@pytest.mark.parametrize(("case", "error"), SAME, ids=[case for case, _ in SAME])
def test_what_one_process_runs_into_all_of_them_raise(outcomes, case, error) -> None:
    for outcome in outcomes:
        assert re.match(error, outcome[case]), outcome[case]


def test_a_share_that_cannot_be_read_stops_all(outcomes) -> None:
    failed = "RuntimeError: process 1 failed to read its next batch"
    assert outcomes[0]["failing"].startswith(failed)
    assert outcomes[1]["failing"] == "OSError: disk"
