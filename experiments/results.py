"""What a run leaves behind: one result.json per method, and how it is read again."""

import dataclasses
import functools
import hashlib
import importlib.metadata
import json
import os
import platform
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from scipy import stats

from experiments import devices, files, measures
from mas_jax import metrics

FORMAT = 1
FILE_NAME = "result.json"
VERSIONED_PACKAGES = ("mas-jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


@dataclasses.dataclass(frozen=True, kw_only=True)
class SeedRecord:
    """One seed of one method, as far as it has come.

    Attributes:
      seed: the random seed.
      accuracy: row i holds the accuracy on every task after learning task i, as fractions.
      untrained: the accuracy on every task at initialisation.
      loss: row i holds the mean training loss of each epoch of task i.
      seconds: row i holds what task i took, by phase: training, importance, evaluation, saving.
      importance: Ω at the end, per parameter what `histogram` returns; empty for methods
        without one.
      memory: row i counts bytes of arrays at task i: "parameters" of the network, "kept" by the
        method from this task to the next, "training" held beside these while the task was learned.
      chosen: row i holds the "strength" and "learning_rate" that a search chose for task i;
        empty without a search.
      overall: entry i is the accuracy on all tasks' examples together after learning task i; in a
        fact's retrieval among all. Empty in records from before it was kept.
      class_accuracy: row i holds the accuracy on every class (in the order of the outputs) after
        learning task i; empty where the experiment does not ask for it.
      made: "command", "versions" and "machine", with the number of devices and processes, of the
        run that learned the last task in it.
    """

    seed: int
    accuracy: tuple[tuple[float, ...], ...] = ()
    untrained: tuple[float, ...] = ()
    loss: tuple[tuple[float, ...], ...] = ()
    seconds: tuple[dict[str, float], ...] = ()
    importance: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)
    memory: tuple[dict[str, int], ...] = ()
    chosen: tuple[dict[str, float], ...] = ()
    overall: tuple[float, ...] = ()
    class_accuracy: tuple[tuple[float, ...], ...] = ()
    made: dict[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Result:
    """All seeds of one method of one experiment.

    Attributes:
      experiment: its name, as `python -m experiments list` shows it.
      method: its name in the experiment's config.
      description: what the experiment is about, its config's docstring.
      tasks: the tasks' names, in order.
      published: numbers to hold against, by the name of their source: {"average_accuracy": ...,
        "backward_transfer": ...} as fractions.
      config: the settings that determine the numbers.
      command: the command lines that made the seeds.
      versions: of Python and the packages; several, if seeds differ.
      machine: what they ran on, likewise.
      seeds: one record per seed, some perhaps not finished.
      measure: what "accuracy" in the records is, a name of `experiments.measures`.
      skipped: for each task how many of its pictures could not be read and were left out, where
        that was asked for; empty in records from before it was kept.
      num_classes: how many classes each task has; empty in records from before it was kept.
    """

    experiment: str
    method: str
    description: str
    tasks: tuple[str, ...]
    published: dict[str, dict[str, float]]
    config: dict[str, Any]
    command: str
    versions: dict[str, str]
    machine: dict[str, Any]
    seeds: tuple[SeedRecord, ...]
    measure: str = "accuracy"
    skipped: tuple[int, ...] = ()
    num_classes: tuple[int, ...] = ()


def histogram(values: Any, bins_per_decade: int = 4) -> dict[str, Any]:
    """Count values ≥ 0 by magnitude: {"log10_edges": [E + 1], "counts": [E], "zeros": n}.

    Raises ValueError for negative, NaN or infinite values.
    """
    flat = np.asarray(values, np.float64).ravel()
    if not (np.isfinite(flat) & (flat >= 0)).all():
        raise ValueError("a histogram of importance wants finite values of at least 0")
    positive = np.log10(flat[flat > 0])
    if positive.size == 0:
        return {"log10_edges": [], "counts": [], "zeros": int(flat.size)}
    low, high = np.floor(positive.min()), np.floor(positive.max()) + 1
    edges = np.linspace(low, high, round((high - low) * bins_per_decade) + 1)
    counts, _ = np.histogram(positive, edges)
    zeros = int(flat.size - positive.size)
    return {"log10_edges": edges.tolist(), "counts": counts.tolist(), "zeros": zeros}


def mean_interval(values: Any, confidence: float = 0.95) -> tuple[float, float]:
    """The mean over seeds and the half-width of its Student-t interval (NaN for one seed)."""
    sample = np.asarray(values, np.float64)
    if len(sample) < 2:
        return float(sample.mean()), float("nan")
    quantile = stats.t.ppf(0.5 + confidence / 2, df=len(sample) - 1)
    return float(sample.mean()), float(quantile * stats.sem(sample))


def finished(result: Result) -> list[SeedRecord]:
    """The seeds that have learned every task."""
    return [record for record in result.seeds if len(record.accuracy) == len(result.tasks)]


def summary(result: Result) -> dict[str, tuple[float, float]]:
    """The headline metrics of `result`: name -> (mean over seeds, 95 % half-width), fractions.

    "overall", of all tasks together at the end, is among them where that is no accuracy.
    """
    matrices = [np.array(record.accuracy) for record in finished(result)]
    of_matrix = {"average_accuracy": metrics.average_accuracy}
    if len(result.tasks) > 1:
        of_matrix["forgetting"] = metrics.forgetting
        of_matrix["backward_transfer"] = metrics.backward_transfer
    found = {
        name: mean_interval([measure(matrix) for matrix in matrices])
        for name, measure in of_matrix.items()
    }
    overall = [record.overall[-1] for record in finished(result) if record.overall]
    if result.measure == "accuracy" or len(overall) < len(matrices):
        return found
    return found | {"overall": mean_interval(overall)}


def versions() -> dict[str, str]:
    """Of Python, of the packages the numbers depend on and, in a checkout, of this code."""
    packages = {name: importlib.metadata.version(name) for name in VERSIONED_PACKAGES}
    return {"python": platform.python_version(), **packages, **_commit()}


@functools.cache
def _commit() -> dict[str, str]:
    """The commit that this code is of, with "+" where files have changed since; {} if unknown."""
    try:
        commit = _git("rev-parse", "--short=12", "HEAD")
        changes = _git("status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.CalledProcessError):
        return {}
    return {"commit": commit + "+" * bool(changes)}


def _git(*arguments: str) -> str:
    """What git says of the folder that this file is in."""
    command, here = ["git", *arguments], Path(__file__).parent
    ended = subprocess.run(command, cwd=here, capture_output=True, text=True, check=True)
    return ended.stdout.strip()


def machine() -> dict[str, Any]:
    """What this process runs on."""
    device = jax.devices()[0]
    return {
        "platform": device.platform,
        "device": device.device_kind,
        "devices": jax.device_count(),
        "cores": _cores(),
        "system": f"{platform.system()} {platform.machine()}",
    }


def _cores() -> int | None:
    """How many cores this process may use: a container or a scheduler may give it some of them."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count()


def provenance(command: str, mesh: Mesh | None = None) -> dict[str, Any]:
    """How a record is made here, on the devices of `mesh` or on one."""
    counts = devices.counts(mesh)
    return {"command": command, "versions": versions(), "machine": {**machine(), **counts}}


def joined(records: Sequence[SeedRecord], kind: str) -> dict[str, Any]:
    """The "versions" or "machine" of all records, differing values side by side."""
    made = [record.made[kind] for record in records if record.made]
    keys = dict.fromkeys(key for each in made for key in each)
    values = {key: list(dict.fromkeys(each.get(key, "none") for each in made)) for key in keys}
    return {key: v[0] if len(v) == 1 else " / ".join(map(str, v)) for key, v in values.items()}


def write(result: Result, path: Path) -> None:
    """Write `result` as JSON with a digest, whole or not at all."""
    content = {"format": FORMAT, **dataclasses.asdict(result)}
    write_json({**content, "sha256": _digest(content)}, path)


def write_json(content: Any, path: Path) -> None:
    """Write `content` as readable JSON, whole or not at all."""
    files.write_whole(path, json.dumps(content, indent=1).encode())


def read(path: Path) -> Result:
    """Read a result that `write` wrote; ValueError where it is not one, or not as written."""
    try:
        content = json.loads(files.read(path))
        # There is none in results from before it was written.
        if content.pop("sha256", None) not in (None, _digest(content)):
            raise ValueError("its digest does not fit its content")
        if content.pop("format") != FORMAT:
            raise _FormatError(
                f"{path} was written in another format than this version of mas_jax reads: read it "
                "with the version that it names"
            )
        seeds = tuple(seed_record(record) for record in content.pop("seeds"))
        names = ("tasks", "skipped", "num_classes")
        of_tasks: dict[str, Any] = {
            name: tuple(content.pop(name)) for name in names if name in content
        }
        content["measure"] = measures.recorded(content)
        return Result(**content, **of_tasks, seeds=seeds)
    except _FormatError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(
            f"{path} is not a result of this version: {error}. Put a copy back, or remove it: its "
            "run, given again, writes it from the seeds' folders, as far as they are there"
        ) from error


class _FormatError(ValueError):
    """A result is whole, and of another version."""


def _digest(content: dict[str, Any]) -> str:
    """The SHA-256 of what JSON makes of `content`, its own entry left out."""
    text = json.dumps(json.loads(json.dumps(content)), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def seed_record(plain: dict[str, Any]) -> SeedRecord:
    """A record from what JSON made of it: lists become tuples again."""
    names = ("accuracy", "loss", "class_accuracy")
    rows = {name: tuple(map(tuple, plain.get(name, ()))) for name in names}
    names = ("untrained", "seconds", "memory", "chosen", "overall")
    sequences = {name: tuple(plain.get(name, ())) for name in names}
    return SeedRecord(**{**plain, **rows, **sequences})


def read_all(directory: Path, order: Sequence[str] = ()) -> list[Result]:
    """Every result below `directory`, by folder; FileNotFoundError if none.

    Within a folder those of the methods in `order` are in that order, before others.
    """
    paths = sorted(directory.rglob(FILE_NAME))
    if not paths:
        raise FileNotFoundError(
            f"no {FILE_NAME} below {directory}: wanted the folder of a run, as "
            "`python -m experiments compare NAME --out DIR` makes it"
        )
    found = [(path.parent.parent, read(path)) for path in paths]
    if order:
        places = {method: place for place, method in enumerate(order)}
        found.sort(key=lambda pair: (pair[0], places.get(pair[1].method, len(places))))
    return [result for _, result in found]
