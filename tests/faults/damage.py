"""One damager: each file of a store of several tasks, and each whole entry, harmed in many ways."""

import contextlib
import pathlib
import shutil
import tempfile
import zlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from mas_jax import AnchorStore
from tests.faults import stores
from tests.faults.changes import BY_CHANCE, CHANGES, possible

TASKS = ("birds", "scenes", "flowers")

OTHERS = ("delete", "exchange", "overwrite")
"""What is done to a file as a whole: the last two with the same file of another task's entry."""
WHOLE = ("remove entry", "exchange entry", "overwrite entry", "exchange half of entry")
"""What is done to an entry."""

PER_FILE = 22
"""How often a damage with chance in it is done to a file that is read."""
PER_UNREAD = 1
"""How often to one that nobody reads."""


class Damage(NamedTuple):
    """What happens to one file of one entry."""

    kind: str
    file: pathlib.PurePath  # from the store's directory; its first part is the entry
    place: str  # of the file; unlike its name the same in each store that is made
    number: int  # of the damages there
    draw: int  # the seed of what is random in it

    @property
    def entry(self) -> int:
        """The entry it is done to."""
        return int(self.file.parts[0])

    @property
    def other(self) -> int:
        """The entry whose files stand for those of `entry`, where any do."""
        return (self.entry + 1) % len(TASKS)

    @property
    def harmed(self) -> tuple[int, ...]:
        """The entries that are not as they were."""
        return (self.entry, self.other) if self.kind in PAIRS else (self.entry,)

    def __str__(self) -> str:
        return f"{self.kind} {self.file} (draw {self.draw})"


PAIRS = ("exchange", "exchange entry")
"""What harms two entries."""


def make_store(directory: pathlib.Path) -> None:
    """The store that is harmed."""
    for task in TASKS:
        stores.save(AnchorStore(directory), task)


def plan(directory: pathlib.Path, seed: int, per_file: int = PER_FILE) -> list[Damage]:
    """Every kind of damage to every file, those with chance in them `per_file` times.

    Data files have random names, and are grouped as threads happen to end. A place and a number
    are therefore what tells a damage, and each has chance of its own.
    """
    damages = []
    for place, file in places(directory).items():
        times = per_file if is_read(directory, file) else PER_UNREAD
        kinds = possible((directory / file).read_bytes())
        kinds = [kind for kind in kinds for _ in range(times if kind in BY_CHANCE else 1)]
        damages += _numbered([*kinds, *OTHERS], file, place, seed)
    for entry in range(len(TASKS)):
        damages += _numbered(WHOLE, pathlib.PurePath(str(entry)), str(entry), seed)
    return damages


def _numbered(
    kinds: list[str] | tuple[str, ...], file: pathlib.PurePath, place: str, seed: int
) -> list[Damage]:
    """The damages of one place."""
    rng = np.random.default_rng([seed, zlib.crc32(place.encode())])
    draws = rng.integers(2**31, size=len(kinds)).tolist()
    return [
        Damage(kind, file, place, number, draw)
        for number, (kind, draw) in enumerate(zip(kinds, draws, strict=True))
    ]


def places(directory: pathlib.Path) -> dict[str, pathlib.PurePath]:
    """The files of the entries by place; of data files that is their rank by size."""
    found = {}
    files = [path for path in directory.glob("*/**/*") if path.is_file()]
    for path in sorted(files, key=lambda path: (path.parent, path.stat().st_size, path.name)):
        file = path.relative_to(directory)
        place = str(file)
        if file.parent.name == "d":
            rank = sum(other.parent == file.parent for other in found.values())
            place = f"{file.parent}/{rank}"
        found[place] = file
    return found


def is_read(directory: pathlib.Path, file: pathlib.PurePath) -> bool:
    """Whether an entry is damaged where nothing is in that file."""
    content = (directory / file).read_bytes()
    (directory / file).write_bytes(b"")
    try:
        return any(entry.error for entry in AnchorStore(directory).examine().entries)
    finally:
        (directory / file).write_bytes(content)


@contextlib.contextmanager
def copied(directory: pathlib.Path) -> Iterator[pathlib.Path]:
    """A copy of a store, to be harmed."""
    with tempfile.TemporaryDirectory(dir=directory.parent) as folder:
        yield shutil.copytree(directory, pathlib.Path(folder, "store"))


def do(damage: Damage, sound: pathlib.Path, directory: pathlib.Path) -> None:
    """Harm the store in `directory`, which is a copy of the `sound` one."""
    path = directory / damage.file
    if damage.kind in WHOLE:
        _do_to_entry(damage, sound, directory)
    elif damage.kind in CHANGES:
        rng = np.random.default_rng(damage.draw)
        path.write_bytes(CHANGES[damage.kind](path.read_bytes(), rng))
    elif damage.kind == "delete":
        path.unlink()
    else:
        partner = _partner(damage, sound)
        path.write_bytes((sound / partner).read_bytes())
        if damage.kind == "exchange":
            (directory / partner).write_bytes((sound / damage.file).read_bytes())


def _partner(damage: Damage, sound: pathlib.Path) -> pathlib.PurePath:
    """The file of another entry that stands where the damage's does."""
    within = pathlib.PurePath(damage.place).relative_to(str(damage.entry))
    found = places(sound)
    same = found.get(f"{damage.other}/{within}")
    # Of data files another entry may have fewer; then it is the largest.
    siblings = [file for place, file in found.items() if place.startswith(f"{damage.other}/")]
    return same or [file for file in siblings if file.parts[1:-1] == within.parts[:-1]][-1]


def _do_to_entry(damage: Damage, sound: pathlib.Path, directory: pathlib.Path) -> None:
    """Harm a whole entry."""
    entry, other = str(damage.entry), str(damage.other)
    part = "anchor" if damage.kind == "exchange half of entry" else ""
    shutil.rmtree(directory / entry / part)
    if damage.kind != "remove entry":
        shutil.copytree(sound / other / part, directory / entry / part)
    if damage.kind == "exchange entry":
        shutil.rmtree(directory / other)
        shutil.copytree(sound / entry, directory / other)
