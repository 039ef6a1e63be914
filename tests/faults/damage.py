"""One damager: each file of a store of several tasks, and each whole entry, harmed in many ways."""

import contextlib
import pathlib
import shutil
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from mas_jax import AnchorStore, CheckpointCorruptError, MasJaxError, TaskNotFoundError
from tests.faults import stores

TASKS = ("birds", "scenes", "flowers")


class Damage(NamedTuple):
    """What happens to one file of one entry."""

    kind: str
    file: pathlib.PurePath  # from the store's directory; its first part is the entry
    draw: int  # the seed of what is random in it

    @property
    def entry(self) -> str:
        """The entry it is done to."""
        return self.file.parts[0]

    def __str__(self) -> str:
        return f"{self.kind} {self.file} (draw {self.draw})"


def flipped(content: bytes, rng: np.random.Generator) -> bytes:
    """`content` with one bit turned over."""
    changed = bytearray(content)
    changed[rng.integers(len(content))] ^= 1 << int(rng.integers(8))
    return bytes(changed)


def truncated(content: bytes, rng: np.random.Generator) -> bytes:
    """`content` without its end."""
    return content[: rng.integers(len(content))]


def lengthened(content: bytes, rng: np.random.Generator) -> bytes:
    """`content` and some bytes more."""
    return content + rng.bytes(int(rng.integers(1, 64)))


def zeroed(content: bytes, rng: np.random.Generator) -> bytes:
    """`content` with a block of zeros in it, as after a crash of the machine."""
    start = int(rng.integers(len(content)))
    length = min(len(content) - start, 512)
    return content[:start] + bytes(length) + content[start + length :]


def emptied(content: bytes, rng: np.random.Generator) -> bytes:
    """Nothing."""
    del content, rng
    return b""


CHANGES: dict[str, Callable[[bytes, np.random.Generator], bytes]] = {
    "flip a bit of": flipped,
    "truncate": truncated,
    "lengthen": lengthened,
    "zero a block of": zeroed,
    "empty": emptied,
}
"""What is done to the bytes of a file; an empty file can only be lengthened."""
OTHERS = ("delete", "exchange", "overwrite")
"""What is done to a file as a whole: the last two with the same file of another task's entry."""
WHOLE = ("remove entry", "exchange entry", "overwrite entry", "exchange half of entry")
"""What is done to an entry."""


def make_store(directory: pathlib.Path) -> None:
    """The store that is harmed."""
    for task in TASKS:
        stores.save(AnchorStore(directory), task)


def plan(directory: pathlib.Path, seed: int, per_file: int) -> list[Damage]:
    """Every kind of damage to every file, those with chance in them `per_file` times."""
    damages = []
    rng = np.random.default_rng(seed)
    # Data files have random names; by their sizes they come in the same order in the next store.
    files = [path for path in directory.glob("*/**/*") if path.is_file()]
    for path in sorted(files, key=lambda path: (path.parent, path.stat().st_size, path.name)):
        file = path.relative_to(directory)
        kinds = [kind for kind in CHANGES if path.stat().st_size or kind == "lengthen"]
        for kind in [*kinds, *OTHERS]:
            times = per_file if kind in CHANGES and kind != "empty" else 1
            damages += [Damage(kind, file, int(rng.integers(2**31))) for _ in range(times)]
    entries = sorted({pathlib.PurePath(damage.entry) for damage in damages})
    return damages + [Damage(kind, entry, seed) for kind in WHOLE for entry in entries]


@contextlib.contextmanager
def done(damage: Damage, directory: pathlib.Path) -> Iterator[None]:
    """Harm the store, and mend it afterwards."""
    other = str((int(damage.entry) + 1) % len(TASKS))
    entries = {name: directory / name for name in (damage.entry, other)}
    backup = {name: directory.with_name(f"backup {name}") for name in entries}
    for name, folder in entries.items():
        shutil.copytree(folder, backup[name])
    try:
        _do(damage, directory, backup[other])
        yield
    finally:
        for name, folder in entries.items():
            shutil.rmtree(folder, ignore_errors=True)
            backup[name].rename(folder)


def _do(damage: Damage, directory: pathlib.Path, other: pathlib.Path) -> None:
    """Harm the store; `other` is a copy of another entry, which stands for that."""
    path = directory / damage.file
    if damage.kind in WHOLE:
        _do_to_entry(damage.kind, path, other, directory)
    elif damage.kind in CHANGES:
        rng = np.random.default_rng(damage.draw)
        path.write_bytes(CHANGES[damage.kind](path.read_bytes(), rng))
    elif damage.kind == "delete":
        path.unlink()
    else:
        partner = _partner(damage.file, other)
        content = path.read_bytes()
        path.write_bytes(partner.read_bytes())
        if damage.kind == "exchange":
            there = directory / other.name.removeprefix("backup ") / partner.relative_to(other)
            there.write_bytes(content)


def _partner(file: pathlib.PurePath, other: pathlib.Path) -> pathlib.Path:
    """The file of another entry that stands where `file` does; data files have random names."""
    same = other.joinpath(*file.parts[1:])
    if same.exists():
        return same
    siblings = sorted(same.parent.iterdir(), key=lambda path: path.stat().st_size)
    return siblings[-1]


def _do_to_entry(
    kind: str, path: pathlib.Path, other: pathlib.Path, directory: pathlib.Path
) -> None:
    """Harm a whole entry."""
    there = directory / other.name.removeprefix("backup ")
    if kind == "exchange half of entry":
        shutil.rmtree(path / "anchor")
        shutil.copytree(other / "anchor", path / "anchor")
        return
    if kind == "exchange entry":
        shutil.rmtree(there)
        shutil.copytree(path, there)
    shutil.rmtree(path)
    if kind != "remove entry":
        shutil.copytree(other, path)


def silent(damage: Damage, directory: pathlib.Path) -> str | None:
    """Why the damage is not told as it should be; None if it is, or is harmless."""
    store = AnchorStore(directory)
    for number, task in enumerate(TASKS):
        try:
            wrong = stores.difference(store, task)
        except CheckpointCorruptError as error:
            wrong = _unclear(str(error), directory)
        except TaskNotFoundError as error:
            right = damage.kind == "remove entry" and str(number) == damage.entry
            wrong = None if right else f"{type(error).__name__}: {error}"
        except (MasJaxError, OSError, ValueError) as error:
            wrong = f"{type(error).__name__}: {error}"
        if wrong:
            return f"{task}: {wrong}"
    return _silent_in_list(damage, directory)


def _unclear(text: str, directory: pathlib.Path) -> str | None:
    """What an error about damage does not say."""
    if not any(str(directory / str(number)) in text for number in range(len(TASKS))):
        return f"it does not name the entry's folder: {text}"
    if "metadata in" in text or "was saved as" in text:
        return None
    if not any(f"['{name}'] of task " in text for name in stores.anchor_of("any").params):
        return f"it names no leaf and no task: {text}"
    return None


def _silent_in_list(damage: Damage, directory: pathlib.Path) -> str | None:
    """Why the list of tasks does not tell of the damage; None if it does, or is right."""
    wanted = TASKS
    if damage.kind == "remove entry":
        wanted = tuple(task for place, task in enumerate(TASKS) if str(place) != damage.entry)
    try:
        listed = tuple(AnchorStore(directory).tasks())
    except CheckpointCorruptError as error:
        return _unclear(str(error), directory)
    return None if listed == wanted else f"it lists {listed} and says nothing"
