"""What a power cut leaves: nothing gets its name before it is on the disk itself."""

import errno
import os
import pathlib

import jax.numpy as jnp
import orbax.checkpoint as ocp
import pytest

from mas_jax import leftovers, store_files
from mas_jax.anchor import Anchor
from mas_jax.errors import StoreNotWritableError
from mas_jax.store import AnchorStore

PARAMS = {"big": jnp.ones((64, 64)), "small": jnp.ones(3)}


def _save(store: AnchorStore, task: str) -> None:
    store.save(task, Anchor(PARAMS, PARAMS), objective="x", num_samples=1)


def _inode(path: pathlib.Path) -> int:
    return path.stat().st_ino


def test_all_that_is_read_of_an_entry_is_flushed_before_it_has_its_name(tmp_path, monkeypatch):
    flushed, unflushed = set(), []
    fsync, rename = os.fsync, ocp.path.atomicity.AtomicRenameTemporaryPath.finalize

    def noting(descriptor):
        fsync(descriptor)
        flushed.add((os.fstat(descriptor).st_ino, os.fstat(descriptor).st_mtime_ns))

    async def looking(self):
        paths = [pathlib.Path(self.get()), *pathlib.Path(self.get()).rglob("*")]
        unflushed.append(
            [path for path in paths if (_inode(path), path.stat().st_mtime_ns) not in flushed]
        )
        looked_at.extend(path.name for path in paths)
        await rename(self)

    looked_at = []
    monkeypatch.setattr(os, "fsync", noting)
    monkeypatch.setattr(ocp.path.atomicity.AtomicRenameTemporaryPath, "finalize", looking)
    _save(AnchorStore(tmp_path), "birds")
    assert unflushed
    assert not any(unflushed), unflushed
    assert {"anchor", "metadata", "manifest.ocdbt", "d"} <= set(looked_at)


def test_the_folders_that_a_first_save_creates_are_flushed(tmp_path, monkeypatch):
    flushed, fsync = set(), os.fsync

    def noting(descriptor):
        fsync(descriptor)
        flushed.add(os.fstat(descriptor).st_ino)

    monkeypatch.setattr(os, "fsync", noting)
    _save(AnchorStore(tmp_path / "runs" / "seed" / "anchors"), "birds")
    # A folder's name is in the one above it.
    for folder in (tmp_path, tmp_path / "runs", tmp_path / "runs" / "seed"):
        assert _inode(folder) in flushed, folder


def _failing(folder: pathlib.Path) -> None:
    raise OSError(errno.EIO, os.strerror(errno.EIO), str(folder))


def test_an_entry_that_does_not_reach_the_disk_is_not_there(tmp_path, monkeypatch):
    store = AnchorStore(tmp_path)
    _save(store, "birds")
    with monkeypatch.context() as patch:
        patch.setattr(store_files, "flush", _failing)
        with pytest.raises(StoreNotWritableError, match=r"'cars' was not saved to .*Input/output"):
            _save(store, "cars")
    assert store.tasks() == ["birds"]
    _save(store, "cars")
    assert store.tasks() == ["birds", "cars"]


def test_an_entry_whose_name_may_not_survive_a_power_cut_is_said_to_be_there(tmp_path, monkeypatch):
    store, flush = AnchorStore(tmp_path), store_files.flush
    with monkeypatch.context() as patch:
        patch.setattr(
            store_files, "flush", lambda path: (_failing if path.name == "0" else flush)(path)
        )
        with pytest.raises(StoreNotWritableError, match=r"is listed in .*Delete it, and save"):
            _save(store, "birds")
    assert store.tasks() == ["birds"]
    store.delete("birds")
    _save(store, "birds")


@pytest.mark.parametrize("action", ["save", "delete"])
def test_an_error_of_the_machine_says_where_and_what_to_do(tmp_path, monkeypatch, action):
    store = AnchorStore(tmp_path)
    _save(store, "birds")

    def failing(*_):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr("mas_jax.leftovers.remove", failing)
    wanted = rf"{tmp_path} was not written to as asked: .*Input/output.*Mend what failed, see what"
    with pytest.raises(StoreNotWritableError, match=wanted):
        store.delete("birds") if action == "delete" else _save(store, "cars")
    monkeypatch.undo()
    assert store.tasks() == ["birds"]


@pytest.mark.parametrize("action", ["save", "delete"])
def test_leftovers_that_cannot_be_removed_afterwards_are_no_error(tmp_path, monkeypatch, action):
    store, remove, calls = AnchorStore(tmp_path), leftovers.remove, []
    _save(store, "birds")

    def failing_at_the_end(directory):
        calls.append(directory)
        if len(calls) == 2:
            raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY))
        remove(directory)

    monkeypatch.setattr(leftovers, "remove", failing_at_the_end)
    store.delete("birds") if action == "delete" else _save(store, "cars")
    assert len(calls) == 2
    assert store.tasks() == ([] if action == "delete" else ["birds", "cars"])


def test_a_deletion_is_on_the_disk_when_it_returns(tmp_path, monkeypatch):
    store, flushed, fsync = AnchorStore(tmp_path), [], os.fsync
    _save(store, "birds")

    def noting(descriptor):
        fsync(descriptor)
        flushed.append((os.fstat(descriptor).st_ino, (tmp_path / "0").exists()))

    monkeypatch.setattr(os, "fsync", noting)
    store.delete("birds")
    assert (_inode(tmp_path), False) in flushed
