"""A run's files written anew, as each start of a run does, and whether what is left is whole."""

import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments import bookmark, checkpoint, files, results, sequence
from experiments.bookmark import Bookmark
from experiments.results import Result, SeedRecord

NOBODY = 2**22 + 1
"""A process number beyond the largest that Linux gives."""


class RunFile(NamedTuple):
    """One of a run's files, whose contents are numbered from 1."""

    name: str
    write: Callable[[pathlib.Path, int], None]
    read: Callable[[pathlib.Path], int]  # 0 where there is no file; raises where it is not whole


class FileOperation(NamedTuple):
    """A start of a run writes the next content of a file."""

    file: RunFile
    before: int
    leftovers: bool = False  # of a killed writer

    @property
    def raises(self) -> type[Exception]:
        """What it raises where the disk fails."""
        return OSError

    @property
    def takes_room(self) -> bool:
        """Whether it cannot be done on a full disk."""
        return True

    def prepare(self, directory: pathlib.Path) -> None:
        """Make the run's folder what it is before."""
        directory.mkdir()
        if self.before:
            self.file.write(directory / self.file.name, self.before)
        if self.leftovers:
            (directory / f"{self.file.name}.{NOBODY}.tmp").write_bytes(b"half")

    def act(self, directory: pathlib.Path) -> None:
        """Write it."""
        self._write(directory, self.before + 1)

    def is_done(self, directory: pathlib.Path) -> bool:
        """Whether the next content is there; AssertionError where it is not the one before."""
        number = self.file.read(directory / self.file.name)
        assert number in (self.before, self.before + 1), f"{self.file.name} holds content {number}"
        return number > self.before

    def go_on(self, directory: pathlib.Path, is_done: bool) -> None:
        """Start again, and write what comes next; AssertionError where not just that is there."""
        for path in directory.glob("*.tmp"):
            # A run that fails ends. The worker that has failed for it lives on, to fail again.
            if files.is_alive(files.writer_of(path)):
                path.rename(directory / f"{self.file.name}.{NOBODY}.tmp")
        number = self.before + 1 + is_done
        self._write(directory, number)
        assert self.file.read(directory / self.file.name) == number, "the next writer wrote nothing"
        names = sorted(path.name for path in directory.iterdir())
        assert names == [self.file.name], f"the next writer left {names}"

    def _write(self, directory: pathlib.Path, number: int) -> None:
        """What a start of a run does."""
        files.remove_leftovers(directory)
        self.file.write(directory / self.file.name, number)


def arrays_of(number: int) -> dict[str, np.ndarray]:
    """The arrays in the content of that number; too many for the file-size limits."""
    rng = np.random.default_rng(number)
    shapes = {"kernel": (64, 48), "bias": (3,)}
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def numbered(number: int, arrays: Any) -> int:
    """`number`, whose arrays these are; AssertionError where they are others."""
    for name, wanted in arrays_of(number).items():
        assert np.array_equal(arrays[name], wanted), f"{name} is wrong, and nobody says so"
    return number


def write_state(path: pathlib.Path, number: int) -> None:
    """The state after so many tasks."""
    record = SeedRecord(seed=0, accuracy=((0.5, 0.25),) * number)
    checkpoint.save(path, arrays_of(number), [], record)


def read_state(path: pathlib.Path) -> int:
    """After how many tasks it is."""
    stored = checkpoint.load(path)
    if stored is None:
        return 0
    params, _, record, _ = stored
    return numbered(len(record.accuracy), params)


def write_place(path: pathlib.Path, number: int) -> None:
    """Where a run stands within a task after so many epochs."""
    Bookmark(path, seconds=0.0).keep("training", arrays_of(number), losses=[0.5] * number)


def read_place(path: pathlib.Path) -> int:
    """After how many epochs it is; what is damaged would be removed, and read as if never kept."""
    kept = Bookmark(path).found("training", lambda: arrays_of(1))
    return numbered(len(kept.told["losses"]), jax.device_get(kept.tree)) if kept else 0


def result_of(number: int) -> Result:
    """A run's result with so many seeds."""
    seeds = tuple(SeedRecord(seed=seed, accuracy=((1.0, 0.5),)) for seed in range(number))
    return Result(
        experiment="tiny", method="mas", description="long " * 3_000, tasks=("first", "second"),
        published={}, config={"epochs": 3}, command="python -m experiments", versions={},
        machine={}, seeds=seeds,
    )  # fmt: skip


def write_result(path: pathlib.Path, number: int) -> None:
    """The result of so many seeds."""
    results.write(result_of(number), path)


def read_result(path: pathlib.Path) -> int:
    """Of how many seeds it is."""
    if not path.exists():
        return 0
    result = results.read(path)
    number = len(result.seeds)
    assert result == result_of(number), "the result is wrong, and nobody says so"
    return number


STATE = RunFile(sequence.STATE_FILE, write_state, read_state)
PLACE = RunFile(bookmark.FILE, write_place, read_place)
RESULT = RunFile(results.FILE_NAME, write_result, read_result)

OPERATIONS = {
    "first state of a run": FileOperation(STATE, before=0),
    "state of a run": FileOperation(STATE, before=1),
    "place within a task": FileOperation(PLACE, before=1),
    "result of a run": FileOperation(RESULT, before=1),
    "state over leftovers": FileOperation(STATE, before=1, leftovers=True),
}
