"""One file-operation shim: shim.c compiled, loaded into a process, and driven from Python."""

import ctypes
import enum
import os
import pathlib
import shutil
import subprocess

SOURCE = pathlib.Path(__file__).with_name("shim.c")


class Mode(enum.IntEnum):
    """What befalls the n-th file operation; the same numbers as in shim.c."""

    COUNT = 0
    """Nothing."""
    FAIL = 1
    """It fails with EIO, once."""
    FULL = 2
    """It and all later ones that take room fail with ENOSPC; only such are counted."""
    GONE = 3
    """It and all later ones fail with EIO."""
    SHORT = 4
    """A write of half of what was asked, which says so; only writes are counted."""
    KILL = 5
    """SIGKILL in its place."""
    TEAR = 6
    """SIGKILL after half of a write; only writes are counted."""


def missing() -> str | None:
    """Why the shim cannot be had on this machine, or None."""
    if compiler() is None:
        return "no C compiler (cc, gcc or clang), which the file-operation shim needs"
    if not pathlib.Path("/proc/self/fd").is_dir():
        return "no /proc/self/fd, by which the file-operation shim knows its files"
    return None


def compiler() -> str | None:
    """The C compiler's path."""
    return next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)


def build(folder: pathlib.Path) -> pathlib.Path:
    """The library that LD_PRELOAD loads, compiled in `folder`."""
    library = folder / "shim.so"
    command = [str(compiler()), "-Wall", "-O1", "-shared", "-fPIC", "-o", str(library), str(SOURCE)]
    subprocess.run([*command, "-ldl"], check=True)
    return library


class Shim:
    """The shim in this process, which was started with LD_PRELOAD."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL(os.environ["LD_PRELOAD"])
        self._library.fault_disarm.restype = ctypes.c_long

    def arm(self, directory: str, number: int, mode: Mode) -> None:
        """From now on count operations below `directory`, and let `mode` befall the n-th."""
        self._library.fault_arm(os.fsencode(directory), ctypes.c_long(number), int(mode))

    def disarm(self) -> int:
        """Stop; how many operations were seen."""
        return self._library.fault_disarm()

    def fired(self) -> bool:
        """Whether the n-th operation came."""
        return bool(self._library.fault_fired())
