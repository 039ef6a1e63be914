"""One writer at a time: a lock on a directory that the kernel frees when its owner dies."""

import contextlib
import fcntl
import json
import os
import pathlib
import socket
import time
from collections.abc import Iterator
from typing import TextIO

from mas_jax import store_files
from mas_jax.errors import StoreLockedError, StoreNotWritableError

LOCK_FILE = ".lock"
"""Stays in the directory between writers: removing it would let two of them lock two files."""


@contextlib.contextmanager
def writer_lock(directory: pathlib.Path) -> Iterator[None]:
    """Hold the directory's lock, creating the directory if need be; never waits.

    Raises StoreLockedError, which names the owner, if another writer holds it (in this process
    or another), StoreNotWritableError if the directory cannot be created or written to.
    """
    with _opened(directory) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise StoreLockedError(
                f"the store {directory} is being written to by {_owner(file)}. Try again when it "
                "has finished; the lock ends with that process, there is nothing to clear away"
            ) from error
        except OSError as error:
            raise StoreNotWritableError(
                f"the store {directory} cannot be locked: {error}. Choose a directory on a local "
                "disk, NFS 4 or another file system with locks"
            ) from error
        # On a full disk nobody can sign, and a deletion is what makes room.
        with contextlib.suppress(OSError):
            _sign(file)
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                file.truncate(0)


@contextlib.contextmanager
def _opened(directory: pathlib.Path) -> Iterator[TextIO]:
    """The lock file, open for writing."""
    try:
        store_files.make(directory)
        # No link is followed: the lock is emptied, and what a link leads to would be.
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW
        descriptor = os.open(directory / LOCK_FILE, flags, 0o666)
    except OSError as error:
        lock, refused = directory / LOCK_FILE, f"cannot write to the store {directory}: {error}"
        if lock.is_symlink() or lock.is_dir():
            raise StoreNotWritableError(
                f"{refused}. Remove {lock}, which is no lock of this library's"
            ) from error
        raise StoreNotWritableError(
            f"{refused}. Choose a directory in which this user may create files"
        ) from error
    with os.fdopen(descriptor, "a+", encoding="utf-8", errors="replace") as file:
        yield file


def _sign(file: TextIO) -> None:
    """Write who holds the lock, for whoever finds it taken."""
    file.truncate(0)
    owner = {"host": socket.gethostname(), "pid": os.getpid(), "time": time.time()}
    # Past the file's buffer, which would be written again when it is closed.
    os.write(file.fileno(), json.dumps(owner).encode())


def _owner(file: TextIO) -> str:
    """Who holds the lock, and for how long, in words."""
    file.seek(0)
    try:
        owner = json.load(file)
        age = max(0, round(time.time() - owner["time"]))
        return f"process {owner['pid']} on {owner['host']}, for {age} s so far"
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
        # Between a writer's lock and its signature there is nothing to read.
        return "another process"


def writer_of(directory: pathlib.Path) -> str | None:
    """Who has signed the lock, in words, without touching it; None if nobody has.

    A writer takes its signature back; that of one which was killed stays, and does no harm.
    """
    try:
        with (directory / LOCK_FILE).open(encoding="utf-8", errors="replace") as file:
            text = file.read()
            return f"{_owner(file)}{_if_gone(text)}" if text else None
    except (FileNotFoundError, IsADirectoryError):
        return None


def _if_gone(signature: str) -> str:
    """What to add where the process that signed is known not to run any more."""
    try:
        owner = json.loads(signature)
        if owner["host"] != socket.gethostname():
            return ""
        os.kill(owner["pid"], 0)
    except ProcessLookupError:
        return ", which does not run any more"
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError, OSError):
        pass
    return ""
