"""Files that are whole or not there."""

import contextlib
import fcntl
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path


def write_whole(path: Path, content: bytes) -> None:
    """Replace `path` by `content`, on the disk itself before this returns.

    Raises:
      OSError: it was not written, or may not be on the disk yet; names `path`, which holds all of
        what it held before, or of `content`.
    """
    temporary = temporary_for(path)
    try:
        with _naming(path):
            _write(temporary, content)
            os.replace(temporary, path)
            _flush(path.parent)
    except BaseException:
        # The disk may fail here again: the user wants to hear of the first error.
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def make_folder(folder: Path) -> None:
    """Create a folder, with those above it, so that a power cut leaves them there."""
    new = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for path in new:
        _flush(path.parent)


def give_name(temporary: Path, folder: Path) -> None:
    """Rename a folder to what it shall be, when all that is in it is on the disk itself."""
    for path in (*temporary.rglob("*"), temporary):
        _flush(path)
    temporary.rename(folder)
    _flush(folder.parent)


class HeldError(RuntimeError):
    """Another process holds a file that this one wants for itself."""


@contextlib.contextmanager
def held(path: Path) -> Iterator[None]:
    """Hold a file that is there for this process alone; the kernel lets go when the process ends.

    Where it cannot be written to, or the file system knows no locks, nothing is held.

    Raises:
      HeldError: another process holds it.
    """
    with contextlib.ExitStack() as stack:
        try:
            file = stack.enter_context(path.open("r+b"))
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise HeldError(
                f"another process is at work in {path.parent}. Let it finish or end it, and give "
                "the command again"
            ) from error
        except OSError:
            pass
        yield


def read(path: Path) -> bytes:
    """What is in a file; OSError names it, also where it can be opened and not be read."""
    with _naming(path):
        return path.read_bytes()


@contextlib.contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Errors name `path`; those of files that are open name none."""
    try:
        yield
    except OSError as error:
        if error.errno is None:  # no error of the machine's
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error


def _write(path: Path, content: bytes) -> None:
    """Write a file, and wait until it is on the disk."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _flush(path: Path) -> None:
    """Wait until the names in a folder, or what is in a file, are on the disk itself."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def temporary_for(path: Path) -> Path:
    """What this process calls `path` while it is not whole."""
    return path.with_name(f"{path.name}.{os.getpid()}.tmp")


def writer_of(temporary: Path) -> int | None:
    """The number of the process that called a file so; None where none did."""
    named = re.search(r"\.(\d+)\.tmp$", temporary.name)
    return int(named[1]) if named else None


def remove_leftovers(directory: Path) -> None:
    """Remove what processes that were killed left half written in `directory`.

    To be called before this process writes there: what has its own number is a leftover too, as
    where every start in a container has the same.
    """
    for path in directory.glob("*.tmp"):
        writer = writer_of(path)
        if writer is not None and (writer == os.getpid() or not is_alive(writer)):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)


def is_alive(process: int | None) -> bool:
    """Whether a process of that number runs on this machine."""
    if process is None:
        return False
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True
