"""Files that are whole or not there."""

import os
import re
import shutil
from pathlib import Path


def write_whole(path: Path, content: bytes) -> None:
    """Replace `path` by `content`, on the disk itself before this returns."""
    temporary = temporary_for(path)
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def temporary_for(path: Path) -> Path:
    """What this process calls `path` while it is not whole."""
    return path.with_name(f"{path.name}.{os.getpid()}.tmp")


def remove_leftovers(directory: Path) -> None:
    """Remove what processes that were killed left half written in `directory`.

    To be called before this process writes there: what has its own number is a leftover too, as
    where every start in a container has the same.
    """
    for path in directory.glob("*.tmp"):
        named = re.search(r"\.(\d+)\.tmp$", path.name)
        if named and (int(named[1]) == os.getpid() or not _is_alive(int(named[1]))):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)


def _is_alive(process: int) -> bool:
    """Whether a process of that number runs on this machine."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True
