"""The state of a run after a finished task, in files that are whole or not there."""

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

from flax import serialization

from experiments import files
from experiments.results import SeedRecord, seed_record


def save(path: Path, params: Any, optimizer: list[Any], record: SeedRecord) -> None:
    """Write parameters, the leaves of the optimizer's state and the record so far."""
    save_tree(
        path,
        {
            "params": params,
            "optimizer": optimizer,
            "record": json.dumps(dataclasses.asdict(record)),
        },
    )


def load(path: Path) -> tuple[Any, list[Any], SeedRecord] | None:
    """What `save` wrote, or None before the first save.

    Raises ValueError where the file is not what was written.
    """
    if not path.exists():
        return None
    state = load_tree(path)
    optimizer = state["optimizer"]
    leaves = [optimizer[str(number)] for number in range(len(optimizer))]
    return state["params"], leaves, seed_record(json.loads(str(state["record"])))


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
