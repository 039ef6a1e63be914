"""What it takes to keep large anchors: `python -m experiments.benchmarks.store --out FILE.json`.

Saving and restoring run in a process each, since a process remembers its peak of memory alone.
"""

import dataclasses
import json
import math
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import tyro

import mas_jax
from experiments.benchmarks import record
from experiments.benchmarks.markdown import table

Code = Literal["exact", "bfloat16", "log8"]

_STATUS = Path("/proc/self/status")
_TASK = "large"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Save an anchor of float32 θ* and Ω, restore it, and compare: seconds, memory, bytes."""

    parameters: float = 1e9
    """How many. 1e9 of them are 8 GB, and want 11 GB of memory."""
    leaves: int = 50
    """In how many leaves of one size."""
    importance_as: tuple[Code, ...] = ("exact", "bfloat16", "log8")
    """How Ω is stored, one after the other."""
    directory: Path | None = None
    """Where the stores are while they are measured; the system's temporary folder by default."""
    out: Path | None = None
    """A JSON file for what is measured."""
    step: Literal["", "save", "restore"] = ""
    """What one process measures; given by the benchmark to those it starts."""


def main(options: Options) -> None:
    """Print a table, and write everything as JSON."""
    if options.step:
        assert options.directory is not None
        measure = _save if options.step == "save" else _restore
        print(json.dumps(measure(options)))
        return
    measured = {code: _both(options, code) for code in options.importance_as}
    report = {"measured": measured, **record.conditions(options)}
    if options.out is not None:
        record.write(report, options.out)
    print(tables(report))


def _both(options: Options, code: Code) -> dict[str, Any]:
    """A save and a restore, in a process each."""
    with tempfile.TemporaryDirectory(dir=options.directory) as folder:
        measured: dict[str, Any] = {
            step: _in_process(options, code, step, folder) for step in _STEPS
        }
        files = [path.stat().st_size for path in Path(folder).rglob("*") if path.is_file()]
    tree = 8 * shape_of(options)[0] * options.leaves
    return {
        **measured,
        "tree_bytes": tree,
        "disk_bytes": sum(files),
        "disk_bytes_per_parameter": round(sum(files) / (tree / 8), 3),
    }


_STEPS = ("save", "restore")


def _in_process(options: Options, code: Code, step: str, folder: str) -> dict[str, float]:
    """What a new process measures."""
    given = {"parameters": options.parameters, "leaves": options.leaves}
    flags = {**given, "step": step, "directory": folder}
    command = [sys.executable, "-m", "experiments.benchmarks.store", "--importance-as", code]
    for name, value in flags.items():
        command += [f"--{name}", str(value)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def tables(report: dict[str, Any]) -> str:
    """The measurements in Markdown."""
    heading = ["Ω stored as", "on disk", "save", "its peak of memory", "restore", "its peak"]
    options, versions, machine = report["options"], report["versions"], report["machine"]
    conditions = (
        f"{options['parameters']:,.0f} float32 parameters in {options['leaves']} leaves, θ* and Ω; "
        "memory is that of the whole process, as a multiple of the tree's; "
        f"jax {versions['jax']}, {machine['cpu'] or machine['device']}."
    )
    rows = [_cells(code, measured) for code, measured in report["measured"].items()]
    return f"{table(heading, rows)}\n\n{conditions}"


def _cells(code: str, measured: dict[str, Any]) -> list[str]:
    """One row of the table."""
    cells = [code, f"{measured['disk_bytes'] / 1e9:.2f} GB"]
    for step in _STEPS:
        peak = measured[step]["peak_bytes"] / measured["tree_bytes"]
        cells += [f"{measured[step]['seconds']:.0f} s", f"{peak:.2f} ×"]
    return cells


def shape_of(options: Options) -> tuple[int]:
    """The shape of each leaf."""
    return (math.ceil(options.parameters / options.leaves),)


def leaf(number: int, shape: tuple[int]) -> tuple[np.ndarray, np.ndarray]:
    """θ* and Ω of one leaf, Ω over many orders of magnitude; the same in every process."""
    rng = np.random.default_rng(number)
    theta = rng.standard_normal(shape, np.float32)
    # In place, or what lies in between would be the peak.
    omega = rng.standard_normal(shape, np.float32)
    np.multiply(omega, 4, out=omega)
    np.exp(omega, out=omega)
    return theta, omega


def _save(options: Options) -> dict[str, float]:
    """Seconds of the save and the peak of the process, the tree that is saved included."""
    shape = shape_of(options)
    trees: tuple[dict[str, jax.Array], dict[str, jax.Array]] = ({}, {})
    for number in range(options.leaves):
        for tree, value in zip(trees, leaf(number, shape), strict=True):
            tree[f"{number:02}"] = jnp.array(value)
    anchor = mas_jax.Anchor(*jax.block_until_ready(trees))
    before, start = _begun()
    _store(options).save(
        _TASK, anchor, objective="none", num_samples=0, importance_as=options.importance_as[0]
    )
    return _measured(before, start)


def _restore(options: Options) -> dict[str, float]:
    """Seconds of the restore and the peak of the process, the tree restored included."""
    shape = shape_of(options)
    like = {
        f"{number:02}": jax.ShapeDtypeStruct(shape, jnp.float32) for number in range(options.leaves)
    }
    jax.block_until_ready(jnp.zeros(1))  # what JAX itself takes is there before
    before, start = _begun()
    anchor = jax.block_until_ready(_store(options).restore(_TASK, like=like))
    measured = _measured(before, start)
    for number in {0, options.leaves - 1}:
        theta, omega = leaf(number, shape)
        np.testing.assert_array_equal(anchor.params[f"{number:02}"], theta)
        close = 0 if options.importance_as[0] == "exact" else 0.034
        floor = 2.0**-24 * omega.max() if close else 0
        np.testing.assert_allclose(anchor.importance[f"{number:02}"], omega, rtol=close, atol=floor)
    return measured


def _store(options: Options) -> mas_jax.AnchorStore:
    """The store that is measured."""
    assert options.directory is not None
    return mas_jax.AnchorStore(options.directory / "anchors")


def _begun() -> tuple[int, float]:
    """Resident bytes and the time now; from here on the peak is counted anew."""
    Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS"), time.perf_counter()


def _measured(before: int, start: float) -> dict[str, float]:
    """Seconds since `start`, memory before and at the peak of this process."""
    seconds = time.perf_counter() - start
    return {
        "seconds": round(seconds, 2),
        "bytes_before": before,
        "peak_bytes": _status("VmHWM"),
    }


def _status(name: str) -> int:
    """VmRSS, resident bytes now, or VmHWM, the most there have been."""
    lines = dict(line.split(":", 1) for line in _STATUS.read_text().splitlines())
    return 1024 * int(lines[name].split()[0])


if __name__ == "__main__":
    main(tyro.cli(Options))
