"""What a benchmark writes: its measurements, and how they were made."""

import dataclasses
import json
import os
import platform
from pathlib import Path
from typing import Any

from experiments import results

_FILES = {"out", "read", "directory"}
_CPUINFO = Path("/proc/cpuinfo")


def conditions(options: Any) -> dict[str, Any]:
    """What times depend on: the options (a dataclass; not where files go), versions, machine."""
    settings = dataclasses.asdict(options)
    settings = {name: value for name, value in settings.items() if name not in _FILES}
    machine = {**results.machine(), "cpu": cpu(), "xla_flags": os.environ.get("XLA_FLAGS", "")}
    return {"options": settings, "versions": results.versions(), "machine": machine}


def cpu() -> str:
    """The processor's name as it gives it itself, or what Python knows of it."""
    lines = _CPUINFO.read_text().splitlines() if _CPUINFO.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def write(report: dict[str, Any], path: Path) -> None:
    """Write a report as JSON, into a folder made if need be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    results.write_json(report, path)


def read(path: Path) -> dict[str, Any]:
    """What `write` wrote."""
    return json.loads(path.read_text(encoding="utf-8"))
