"""The state of a run after a finished task, in files that are whole or not there."""

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import serialization

from experiments import files
from experiments.results import SeedRecord, seed_record


class Stored(NamedTuple):
    """The state of a run after a task."""

    params: Any
    optimizer: list[Any]  # the leaves of its state
    record: SeedRecord  # so far
    memory: str  # the digest of what the method keeps beside it; "" where it is not known


def save(
    path: Path, params: Any, optimizer: list[Any], record: SeedRecord, memory: str = ""
) -> None:
    """Write what `load` reads."""
    save_tree(
        path,
        {
            "params": params,
            "optimizer": optimizer,
            "record": json.dumps(dataclasses.asdict(record)),
            "memory": memory,
        },
    )


def load(path: Path) -> Stored | None:
    """What `save` wrote, or None before the first save.

    Raises ValueError where the file is not what was written.
    """
    if not path.exists():
        return None
    state = load_tree(path)
    optimizer = state["optimizer"]
    leaves = [optimizer[str(number)] for number in range(len(optimizer))]
    record = seed_record(json.loads(str(state["record"])))
    return Stored(state["params"], leaves, record, state.get("memory", ""))


def tree_digest(tree: Any) -> str:
    """The SHA-256 of all arrays in `tree`, whatever holds them and in whatever order.

    Single numbers are left out: what is read back may have them in another type.
    """
    arrays = [leaf for leaf in map(np.asarray, jax.tree.leaves(tree)) if leaf.ndim]
    return hashlib.sha256(b"".join(sorted(map(_array_digest, arrays)))).hexdigest()


def _array_digest(array: np.ndarray) -> bytes:
    """The SHA-256 of an array's dtype, shape and bytes."""
    return hashlib.sha256(f"{array.dtype} {array.shape} ".encode() + array.tobytes()).digest()


def save_tree(path: Path, tree: Any) -> None:
    """Write a pytree of arrays; the file appears whole or not at all."""
    content = serialization.msgpack_serialize(serialization.to_state_dict(tree))
    files.write_whole(path, hashlib.sha256(content).digest() + content)


def load_tree(path: Path) -> Any:
    """The tree that `save_tree` wrote, its lists as dicts of "0", "1", ….

    Raises ValueError where the file is not what was written.
    """
    stored = files.read(path)
    digest, content = stored[:32], stored[32:]
    if hashlib.sha256(content).digest() != digest:
        raise ValueError(
            f"{path} is damaged (its digest does not fit its content). Remove the folder "
            f"{path.parent} to learn that seed again from the start; nothing else is affected"
        )
    return serialization.msgpack_restore(content)


def digest(path: Path) -> str:
    """The digest in a file that `save_tree` wrote, which tells it from all others; "" for none."""
    if not path.exists():
        return ""
    with path.open("rb") as file:
        return file.read(32).hex()
