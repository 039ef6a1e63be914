"""The lock file of a store, harmed: it holds nothing that is needed, and may be in the way."""

import json
import os
import pathlib
import shutil
import socket
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from mas_jax import AnchorStore, MasJaxError
from mas_jax.lock import LOCK_FILE
from tests.faults import stores
from tests.faults.changes import BY_CHANCE, CHANGES
from tests.faults.damage import TASKS
from tests.faults.judge import Verdict
from tests.faults.run_files import NOBODY

SIGNATURE = json.dumps({"host": socket.gethostname(), "pid": NOBODY, "time": 1e9}).encode()
"""What a writer that was killed leaves in the lock."""

Harm = Callable[[pathlib.Path, np.random.Generator], None]


class LockDamage(NamedTuple):
    """What happens to the lock."""

    kind: str
    draw: int

    def __str__(self) -> str:
        return f"{self.kind} {LOCK_FILE} (draw {self.draw})"


def _a_folder(lock: pathlib.Path, rng: np.random.Generator) -> None:
    """A folder with something in it stands there."""
    lock.unlink()
    lock.mkdir()
    (lock / "content").write_bytes(rng.bytes(9))


def _a_link(lock: pathlib.Path, rng: np.random.Generator) -> None:
    """A link to a file beside the store, which is not the store's to change."""
    lock.unlink()
    _beside(lock).write_bytes(rng.bytes(9))
    lock.symlink_to(_beside(lock))


def _beside(lock: pathlib.Path) -> pathlib.Path:
    """A file outside the store."""
    return lock.parent.with_name("somebody's")


OTHERS: dict[str, Harm] = {
    "delete": lambda lock, _: lock.unlink(),
    "put a folder in the place of": _a_folder,
    "put a link in the place of": _a_link,
    "put garbage into": lambda lock, rng: _write(lock, rng.bytes(300)),
    "put nested lists into": lambda lock, _: _write(lock, b"[" * 200_000),
    "put an entry's metadata into": lambda lock, _: _write(
        lock, (lock.parent / "0" / "metadata" / "metadata").read_bytes()
    ),
}


def _write(path: pathlib.Path, content: bytes) -> None:
    """Replace what is in a file."""
    path.write_bytes(content)


def plan(seed: int, per_kind: int = 8) -> list[LockDamage]:
    """Every damage, those with chance in them `per_kind` times."""
    kinds = [kind for kind in CHANGES for _ in range(per_kind if kind in BY_CHANCE else 1)]
    draws = np.random.default_rng(seed).integers(2**31, size=len(kinds) + len(OTHERS)).tolist()
    return [LockDamage(*each) for each in zip([*kinds, *OTHERS], draws, strict=True)]


def tried(damage: LockDamage, directory: pathlib.Path) -> Verdict:
    """Harm the lock; whether all is read as ever, and written, or refused with what to remove."""
    _do(damage, directory)
    lock, refusal = directory / LOCK_FILE, None
    beside = _beside(lock).read_bytes() if _beside(lock).exists() else None
    try:
        _check_read(directory)
        try:
            _write_to(directory)
        except MasJaxError as error:
            refusal = error
            _remove(lock, str(error))
            _write_to(directory)
        left = tuple(AnchorStore(directory).tasks())
        assert left == (*TASKS[1:], "next"), f"the next writers left {left}"
        stores.check(AnchorStore(directory))
        assert beside is None or _beside(lock).read_bytes() == beside, "a link was followed"
    except Exception as error:
        return Verdict("harmless", f"{type(error).__name__}: {error}")
    return Verdict("refused" if refusal else "harmless", None)


def _do(damage: LockDamage, directory: pathlib.Path) -> None:
    """Harm the lock of the store in `directory`, which a killed writer has signed."""
    rng, lock = np.random.default_rng(damage.draw), directory / LOCK_FILE
    if damage.kind in CHANGES:
        lock.write_bytes(CHANGES[damage.kind](SIGNATURE, rng))
    else:
        OTHERS[damage.kind](lock, rng)


def _check_read(directory: pathlib.Path) -> None:
    """AssertionError unless reading goes as ever."""
    store = AnchorStore(directory)
    listed = tuple(store.tasks())
    assert listed == TASKS, f"it lists {listed}"
    stores.check(store)
    condition = store.examine()
    assert all(entry.error is None for entry in condition.entries), f"{condition}"
    assert (len(condition.entries), condition.leftovers) == (len(TASKS), ()), f"{condition}"


def _write_to(directory: pathlib.Path) -> None:
    """A save, and a deletion."""
    stores.save(AnchorStore(directory), "next")
    AnchorStore(directory).delete(TASKS[0])


def _remove(lock: pathlib.Path, advice: str) -> None:
    """Do as an error advises; AssertionError where it does not."""
    assert f"Remove {lock}" in advice, f"it does not say what to remove: {advice}"
    if lock.is_dir() and not lock.is_symlink():
        shutil.rmtree(lock)
    else:
        os.unlink(lock)
