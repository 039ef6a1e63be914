"""The killer of runs, for a few kills; `python -m tests.faults.kill_runs` is the long part."""

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.test_devices import ROOT

SEED = os.environ.get("MAS_JAX_FAULT_SEED", "0")


def test_a_run_that_is_killed_and_started_again_ends_the_same_bit_for_bit(tmp_path: Path) -> None:
    file = tmp_path / "figures.json"
    command = [sys.executable, "-m", "tests.faults.kill_runs", "--kills", "4", "--seed", SEED]
    done = subprocess.run(
        [*command, "--out", str(file)],
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
        cwd=ROOT, capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    # What failed, with the seed and the command that does it again, is in the output.
    assert done.returncode == 0, done.stdout + done.stderr
    figures = json.loads(file.read_text())
    assert (figures["tried"], figures["failed"]) == (4, 0)
    assert sum(figures["tried_by_kind"].values()) == 4
    assert sum(figures["tried_by_phase"].values()) == 4
    assert figures["ends_compared"] >= 1
