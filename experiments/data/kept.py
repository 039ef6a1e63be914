"""Decoded arrays kept on disk, because decoding takes seconds and reading them 0.1 s."""

import contextlib
import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np


def read_or_make(path: Path, make: Callable[[], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """The arrays kept in `path`; where they are not there or damaged, made and kept."""
    arrays = _read(path)
    if arrays is None:
        arrays = make()
        _write(path, arrays)
    return arrays


def _read(path: Path) -> dict[str, np.ndarray] | None:
    """The kept arrays, or None where they are not there or damaged (zip keeps a CRC)."""
    try:
        # Opened here, because np.load leaves open what it cannot read.
        with path.open("rb") as file, np.load(file) as arrays:
            return dict(arrays)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile):
        return None


def _write(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Keep the arrays where possible."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    # A cache that cannot be written to (shared, or full) costs time, not the data.
    with contextlib.suppress(OSError):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("wb") as file:
                np.savez(file, allow_pickle=False, **arrays)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
