"""What a finished run leaves, as digests: parameters, every task's Ω and θ*, results."""

import hashlib
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np

import mas_jax
from experiments import bookmark, checkpoint, results, sequence


class FaultError(Exception):
    """A run did not end as it should."""


def fingerprint(folder: Path, file: Path) -> None:
    """Write digests of what a run of one seed has left in a method's folder.

    Times are left out, and how the run was started.
    """
    seed = folder / "seed_0"
    left = [path.name for path in folder.rglob("*.tmp")]
    if left or (seed / bookmark.FILE).exists():
        raise FaultError(f"a finished run leaves {left or bookmark.FILE} behind")
    stored = checkpoint.load(seed / sequence.STATE_FILE)
    assert stored is not None
    found = {"parameters": digest((stored.params, stored.optimizer))}
    store = mas_jax.AnchorStore(seed / "anchors")
    for task in store.tasks():
        found[f"anchor {task}"] = digest(store.restore(task, like=stored.params))
    (record,) = json.loads((folder / results.FILE_NAME).read_text())["seeds"]
    plain = {name: record[name] for name in record if name not in ("seconds", "made")}
    found["results"] = hashlib.sha256(json.dumps(plain).encode()).hexdigest()
    file.write_text(json.dumps(found))


def digest(tree: Any) -> str:
    """A digest of a tree's structure and every bit in it."""
    hashed = hashlib.sha256(str(jax.tree.structure(tree)).encode())
    for leaf in map(np.asarray, jax.tree.leaves(tree)):
        hashed.update(f"{leaf.dtype}{leaf.shape}".encode() + leaf.tobytes())
    return hashed.hexdigest()
