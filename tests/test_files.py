"""Files that are whole or not there: what the fault shim of tests/faults cannot see of them."""

import os
import stat
from pathlib import Path

import pytest

from experiments import files


def test_content_and_then_its_name_are_on_the_disk_before_it_returns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    fsync, replace = os.fsync, os.replace

    def seen_fsync(descriptor: int) -> None:
        is_folder = stat.S_ISDIR(os.fstat(descriptor).st_mode)
        done.append("flush folder" if is_folder else "flush file")
        fsync(descriptor)

    def seen_replace(source: Path, target: Path) -> None:
        assert source.read_bytes() == b"new"
        done.append("rename")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", seen_fsync)
    monkeypatch.setattr(os, "replace", seen_replace)
    files.write_whole(tmp_path / "state", b"new")
    assert done == ["flush file", "rename", "flush folder"]


def test_folders_are_on_the_disk_with_those_above_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed: list[int] = []
    fsync = os.fsync

    def seen(descriptor: int) -> None:
        fsync(descriptor)
        flushed.append(os.fstat(descriptor).st_ino)

    monkeypatch.setattr(os, "fsync", seen)
    files.make_folder(tmp_path / "runs" / "seed")
    # A folder's name is in the one above it.
    assert set(flushed) == {folder.stat().st_ino for folder in (tmp_path, tmp_path / "runs")}
    files.make_folder(tmp_path / "runs" / "seed")
    assert len(flushed) == 2


def test_an_error_names_the_file_and_not_the_temporary_one(tmp_path: Path) -> None:
    path = tmp_path / "gone" / "state"
    with pytest.raises(FileNotFoundError) as raised:
        files.write_whole(path, b"new")
    assert raised.value.filename == str(path)
