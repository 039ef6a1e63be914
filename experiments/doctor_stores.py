"""What is in the folder of an `AnchorStore`, for `experiments.doctor`."""

import json
from collections.abc import Iterator
from pathlib import Path

from experiments import files
from experiments.findings import Finding, unreadable
from mas_jax import AnchorStore, MasJaxError

LOCK = ".lock"


def is_store(folder: Path) -> bool:
    """Whether an AnchorStore has its entries there.

    Another program's Orbax checkpoints are numbered folders too, and other programs have locks.
    """
    children = [child for child in folder.iterdir() if child.name != LOCK]
    is_own = any((child / "metadata").exists() or (child / "anchor").exists() for child in children)
    is_emptied = all(child.name.isdecimal() for child in children)
    return is_own or ((folder / LOCK).exists() and is_emptied)


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
    held = {entry.folder for entry in condition.entries}
    for name in condition.others:
        yield _other(folder / name, held)
    for name in condition.leftovers:
        text = "a writer that was killed, or is at work, left it half done"
        yield Finding("note", folder / name, text, "nothing: the next save or delete removes it")
    if condition.writer is not None:
        gone = "not run any more" in condition.writer
        advice = "nothing: a lock ends with its process" if gone else "let it finish"
        yield Finding("note", folder, f"the lock was signed by {condition.writer}", advice)


def _other(path: Path, held: set[str]) -> Finding:
    """What lies in a store's folder and is none of its entries, but may have been one."""
    number = _entry_number(path)
    if number is None:
        return Finding("note", path, "it is not of this store, which never reads it")
    if number in held:
        text = f"a copy of entry {number}, which the store never reads"
        return Finding("note", path, text, "keep it elsewhere, or remove it")
    text = f"entry {number} under a name that the store never reads"
    advice = f"rename it back to {number}, or remove it to give its task up"
    return Finding("damaged", path, text, advice)


def _entry_number(path: Path) -> str | None:
    """The number of the entry that `path` was saved as; None if it is no entry that tells."""
    try:
        return str(int(json.loads(files.read(path / "metadata" / "metadata"))["entry"]))
    except (ValueError, TypeError, KeyError, OSError):
        return None
