"""The state of a run after a finished task, in one file that is whole or not there."""

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

from flax import serialization

from experiments.files import write_whole
from experiments.results import SeedRecord, seed_record


def save(path: Path, params: Any, record: SeedRecord) -> None:
    """Write the parameters and the record so far; the file appears whole or not at all."""
    content = serialization.msgpack_serialize(
        {
            "params": serialization.to_state_dict(params),
            "record": json.dumps(dataclasses.asdict(record)),
        }
    )
    write_whole(path, hashlib.sha256(content).digest() + content)


def load(path: Path) -> tuple[Any, SeedRecord] | None:
    """The parameters and record that `save` wrote, or None before the first save.

    Raises ValueError where the file is not what was written.
    """
    if not path.exists():
        return None
    stored = path.read_bytes()
    digest, content = stored[:32], stored[32:]
    if hashlib.sha256(content).digest() != digest:
        raise ValueError(
            f"{path} is damaged (its digest does not fit its content). Remove the folder "
            f"{path.parent} to learn that seed again from the start; nothing else is affected"
        )
    state = serialization.msgpack_restore(content)
    return state["params"], seed_record(json.loads(str(state["record"])))
