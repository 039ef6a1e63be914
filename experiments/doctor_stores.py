"""What is in the folder of an `AnchorStore`, for `experiments.doctor`."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from experiments import files
from experiments.findings import Finding, unreadable
from mas_jax import AnchorStore, MasJaxError

LOCK = ".lock"
LEFTOVERS = (".deleted", ".orbax-checkpoint-tmp")
"""In the names of what writers that were killed leave."""


def is_store(folder: Path) -> bool:
    """Whether an AnchorStore has its entries there.

    Another program's Orbax checkpoints are numbered folders too, and other programs have locks.
    """
    names = [child.name for child in folder.iterdir() if child.name != LOCK]
    is_locked = (folder / LOCK).exists()
    has_no_other = all(
        name.isdecimal() or any(mark in name for mark in LEFTOVERS) for name in names
    )
    return (is_locked and has_no_other) or any(_is_entry(folder / name) for name in names)


def _is_entry(path: Path) -> bool:
    """Whether a folder is an entry of a store, or was one under another name."""
    is_named_so = path.name.isdecimal() and _has_parts(path)
    return is_named_so or "sha256" in _saved(path)


def _has_parts(path: Path) -> bool:
    """Whether a folder has what an entry has, or a part of it."""
    return (path / "metadata").is_dir() or (path / "anchor").is_dir()


def _saved(path: Path) -> dict[str, Any]:
    """The metadata of an entry as they are; empty where there are none to be read."""
    try:
        return dict(json.loads(files.read(path / "metadata" / "metadata")))
    except (ValueError, TypeError, OSError, RecursionError):
        return {}


def in_store(folder: Path) -> Iterator[Finding]:
    """The condition of a store."""
    condition = AnchorStore(folder).examine()
    whole = [repr(entry.task) for entry in condition.entries if entry.error is None]
    for entry in condition.entries:
        if isinstance(entry.error, MasJaxError):
            yield Finding("damaged", folder / entry.folder, str(entry.error))
        elif entry.error is not None:
            yield unreadable(folder / entry.folder, entry.error)
    names = f": {', '.join(whole)}" if whole else ""
    yield Finding("well", folder, f"a store of anchors, whole ones {len(whole)}{names}")
    for name in condition.others:
        yield _other(folder / name)
    for name in condition.leftovers:
        text = "a writer that was killed, or is at work, left it half done"
        yield Finding("note", folder / name, text, "nothing: the next save or delete removes it")
    if condition.writer is not None:
        gone = "not run any more" in condition.writer
        advice = "nothing: a lock ends with its process" if gone else "let it finish"
        yield Finding("note", folder, f"the lock was signed by {condition.writer}", advice)


def _other(path: Path) -> Finding:
    """What lies in a store's folder and is none of its entries, but may have been one."""
    saved = _saved(path)
    if not _has_parts(path):
        return Finding("note", path, "it is not of this store, which never reads it")
    if "sha256" not in saved or not isinstance(saved.get("entry"), int):
        text = "it looks like an entry that was renamed, and does not tell its number"
        return Finding("damaged", path, text, "rename it back to the number that it had")
    number, task = str(saved["entry"]), saved.get("task")
    if _saved(path.parent / number) == saved:
        text = f"a copy of entry {number}, which the store never reads"
        return Finding("note", path, text, "keep it elsewhere, or remove it")
    text = f"the entry of task {task!r}, under a name that the store never reads"
    advice = f"rename it back to {number}"
    if (path.parent / number).exists():
        advice = f"{number} is another entry now: move it into a folder of its own, named {number}"
    return Finding("damaged", path, text, advice)
