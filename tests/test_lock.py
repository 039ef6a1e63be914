"""The writer's lock: one at a time, named, and gone with its process."""

import errno
import os
import pathlib
import subprocess
import sys

import pytest

from mas_jax.errors import StoreLockedError, StoreNotWritableError
from mas_jax.lock import LOCK_FILE, writer_lock, writer_of

HOLDER = """
import pathlib, sys
from mas_jax.lock import writer_lock
with writer_lock(pathlib.Path(sys.argv[1])):
    print("locked", flush=True)
    sys.stdin.read()
"""


def test_a_second_writer_learns_at_once_who_the_first_is_and_a_dead_one_leaves_no_lock(tmp_path):
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "locked\n"
        with (
            pytest.raises(StoreLockedError, match=rf"process {holder.pid} on .+, for \d+ s so far"),
            writer_lock(tmp_path),
        ):
            pass
        holder.kill()
        holder.wait()
    with writer_lock(tmp_path):
        pass


def test_two_writers_in_one_process_exclude_each_other(tmp_path):
    with (
        writer_lock(tmp_path),
        pytest.raises(StoreLockedError, match="is being written to by process"),
        writer_lock(tmp_path),
    ):
        pass


def test_an_error_inside_frees_the_lock(tmp_path):
    with pytest.raises(KeyError), writer_lock(tmp_path):
        raise KeyError
    with writer_lock(tmp_path):
        pass


def test_an_unsigned_lock_has_an_unknown_owner(tmp_path):
    with writer_lock(tmp_path):
        (tmp_path / LOCK_FILE).write_text("")
        with (
            pytest.raises(StoreLockedError, match=r"by another process\. Try again"),
            writer_lock(tmp_path),
        ):
            pass


def test_the_lock_creates_its_directory(tmp_path):
    with writer_lock(tmp_path / "a" / "b"):
        assert (tmp_path / "a" / "b").is_dir()


@pytest.mark.parametrize("name", ["file", "file/below"])
def test_a_directory_that_cannot_be_is_not_writable(tmp_path, name):
    (tmp_path / "file").touch()
    with (
        pytest.raises(StoreNotWritableError, match=f"cannot write to the store .*{name}"),
        writer_lock(tmp_path / name),
    ):
        pass


@pytest.mark.parametrize(("module", "method"), [(pathlib.Path, "mkdir"), (os, "open")])
@pytest.mark.parametrize("code", [errno.EACCES, errno.EROFS, errno.ENOSPC])
def test_no_permission_or_no_room_is_not_writable(tmp_path, monkeypatch, module, method, code):
    def fail(*_args, **_kwargs):
        raise OSError(code, "refused")

    with monkeypatch.context() as patched:
        patched.setattr(module, method, fail)
        with (
            pytest.raises(StoreNotWritableError, match="refused") as caught,
            writer_lock(tmp_path / "s"),
        ):
            pass
    assert isinstance(caught.value.__cause__, OSError)
    assert str(tmp_path / "s") in str(caught.value)


def test_a_link_in_the_locks_place_is_not_followed(tmp_path):
    (tmp_path / "thesis").write_text("mine")
    (tmp_path / LOCK_FILE).symlink_to(tmp_path / "thesis")
    with (
        pytest.raises(StoreNotWritableError, match=r"cannot write to the store .*\.lock"),
        writer_lock(tmp_path),
    ):
        pass
    assert (tmp_path / "thesis").read_text() == "mine"


@pytest.mark.parametrize(
    "content", [b"\xff", b'{"pid": 99999999999999999999999, "host": "HOST", "time": 0}', b"["]
)
def test_a_damaged_signature_is_another_process_and_no_error(tmp_path, content):
    content = content.replace(b"HOST", os.uname().nodename.encode())
    (tmp_path / LOCK_FILE).write_bytes(content)
    assert "process" in (writer_of(tmp_path) or "")
    with writer_lock(tmp_path):
        pass


def test_a_folder_in_the_locks_place_is_told_to_be_removed(tmp_path):
    (tmp_path / LOCK_FILE).mkdir()
    assert writer_of(tmp_path) is None
    with pytest.raises(StoreNotWritableError, match=r"Remove .*\.lock"), writer_lock(tmp_path):
        pass


def test_without_room_for_a_signature_the_lock_is_held_all_the_same(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "write", full)
    with (
        writer_lock(tmp_path),
        pytest.raises(StoreLockedError, match="another process"),
        writer_lock(tmp_path),
    ):
        pass


def test_a_file_system_without_locks_is_refused_with_advice(tmp_path, monkeypatch):
    def unknown(*_):
        raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))

    monkeypatch.setattr("mas_jax.lock.fcntl.flock", unknown)
    with pytest.raises(StoreNotWritableError, match="a local disk"), writer_lock(tmp_path):
        pass
