"""Stores to be harmed, what is done to them, and whether what is left is whole."""

import pathlib
import shutil
import zlib
from typing import NamedTuple

import ml_dtypes
import numpy as np

from mas_jax import Anchor, AnchorStore, MasJaxError


def anchor_of(task: str) -> Anchor:
    """The anchor that a task of that name has: other numbers for every name, the same each time."""
    rng = np.random.default_rng(zlib.crc32(task.encode()))
    params = {
        "big": rng.normal(size=(64, 48)).astype(np.float32),  # a data file to itself
        "half": rng.normal(size=(4, 10)).astype(ml_dtypes.bfloat16),
        "inline": rng.normal(size=3).astype(np.float32),  # kept in an index node
        "scalar": np.float32(rng.normal()),
    }
    importance = {name: np.abs(value).astype(np.float32) for name, value in params.items()}
    return Anchor(params, importance)


def save(store: AnchorStore, task: str) -> None:
    """Save the anchor of `task`."""
    store.save(task, anchor_of(task), objective="squared_l2_norm", num_samples=8)


class StoreOperation(NamedTuple):
    """Something done to a store, and its tasks before and after."""

    before: tuple[str, ...]
    after: tuple[str, ...]
    task: str
    leftovers: bool = False  # of a killed writer

    @property
    def raises(self) -> type[Exception]:
        """What it raises where the disk fails."""
        return MasJaxError

    @property
    def takes_room(self) -> bool:
        """Whether it cannot be done on a full disk."""
        return self.task in self.after

    def prepare(self, directory: pathlib.Path) -> None:
        """Make the store in `directory` what it is before."""
        store = AnchorStore(directory)
        for task in self.before:
            save(store, task)
        if self.leftovers:
            for folder in ("1.orbax-checkpoint-tmp", ".deleted/7"):
                shutil.copytree(directory / "0" / "anchor", directory / folder / "anchor")

    def act(self, directory: pathlib.Path) -> None:
        """Do it."""
        store = AnchorStore(directory)
        if self.task in self.after:
            save(store, self.task)
        else:
            store.delete(self.task)

    def is_done(self, directory: pathlib.Path) -> bool:
        """Whether it is as after; AssertionError where it is not as before, or an anchor wrong."""
        store = AnchorStore(directory)
        tasks = tuple(store.tasks())
        known = tasks in (self.before, self.after)
        assert known, f"the tasks are {tasks}, neither those before nor those after"
        check(store)
        return tasks == self.after

    def go_on(self, directory: pathlib.Path, is_done: bool) -> None:
        """Do it, or another save; AssertionError where not just the wanted anchors are there."""
        wanted = self.after
        if is_done:
            save(AnchorStore(directory), "next")
            wanted = (*self.after, "next")
        else:
            self.act(directory)
        store = AnchorStore(directory)
        assert tuple(store.tasks()) == wanted, f"the next writer left {store.tasks()}"
        names = sorted(path.name for path in directory.iterdir() if path.name != ".lock")
        are_entries = len(names) == len(wanted) and all(map(str.isdecimal, names))
        assert are_entries, f"the next writer left {names} lying there"
        check(store)


OPERATIONS = {
    "first save": StoreOperation((), ("a",), "a"),
    "save": StoreOperation(("a",), ("a", "b"), "b"),
    "delete": StoreOperation(("a", "b"), ("b",), "a"),
    "save over leftovers": StoreOperation(("a",), ("a", "b"), "b", leftovers=True),
}


def difference(store: AnchorStore, task: str) -> str | None:
    """What is wrong with a task's anchor; None if it is right, bit for bit."""
    return unlike(store.restore(task, like=anchor_of(task).params), task)


def unlike(anchor: Anchor, task: str) -> str | None:
    """In what an anchor is not that of `task`, bit for bit; None if it is."""
    for name, tree in anchor_of(task)._asdict().items():
        for leaf, value in tree.items():
            got = np.asarray(getattr(anchor, name)[leaf])
            if got.dtype != value.dtype or got.tobytes() != np.asarray(value).tobytes():
                return f"{name}[{leaf!r}] of task {task!r} is wrong, and nobody says so"
    return None


def check(store: AnchorStore) -> None:
    """Raise AssertionError for the first anchor that is not right, of all tasks in the store."""
    for task in store.tasks():
        wrong = difference(store, task)
        assert wrong is None, wrong
