"""One of two processes that test_devices.py starts: goes on with a run, and writes what it saw."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

import mas_jax
from experiments import devices, runs
from tests import tiny


def raised_by(fn: Callable[[], Any]) -> list[str]:
    """The kind and the text of the error that `fn` raises."""
    try:
        fn()
    except Exception as error:
        return [type(error).__name__, str(error)]
    return []


def fail_in(process: int) -> int:
    """Raise in that process alone."""
    if jax.process_index() == process:
        raise OSError("disk full")
    return 7


def rounded_on_all() -> list[Any]:
    """Ω that every device has whole, rounded: its values here, and whether it is where it was."""
    whole = {"w": devices.replicated(devices.all_devices(), np.float32([1.0, 0.3, 0.0]))}
    (leaf,) = mas_jax.as_stored(mas_jax.Anchor(whole, whole), "log8").importance.values()
    return [np.asarray(leaf).tolist(), leaf.sharding == whole["w"].sharding]


def outcome(folder: Path) -> dict[str, Any]:
    """What each function gave in this process."""
    process = jax.process_index()
    calls: list[int] = []
    tasks_learned: list[int] = []

    def first_alone() -> dict[str, Any]:
        calls.append(process)
        return {"numbers": jax.numpy.arange(3.0) + process, "none": None}

    told = devices.from_first(first_alone)
    # Process 1 has another folder, as on a machine that does not share process 0's.
    out = folder / ("run" if process == 0 else "elsewhere")
    result = runs.run(
        "tiny", tiny.Tiny(seeds=1), "mas", tiny.tasks(), out,
        lambda epoch: tasks_learned.append(epoch.task), "two processes", devices.all_devices(),
    )  # fmt: skip
    return {
        "devices": [jax.device_count(), jax.local_device_count()],
        "from_first": [calls, told["numbers"].tolist(), told["none"]],
        "from_first fails": raised_by(lambda: devices.from_first(lambda: fail_in(0))),
        "same": devices.same_everywhere("data", lambda: np.arange(3)).tolist(),
        "same fails": raised_by(lambda: devices.same_everywhere("data", lambda: fail_in(1))),
        "same differs": raised_by(lambda: devices.same_everywhere("data", lambda: process)),
        "tasks learned": tasks_learned,
        "accuracy": result.seeds[0].accuracy,
        "loss": result.seeds[0].loss,
        "machine": result.machine,
        "rounded": rounded_on_all(),
    }


if __name__ == "__main__":
    devices.initialise()
    directory = Path(sys.argv[1])
    content = json.dumps(outcome(directory))
    (directory / f"process_{jax.process_index()}.json").write_text(content)
