"""What the store does with files itself: no links are followed, what is written is on the disk."""

import contextlib
import itertools
import os
import pathlib
import re
import shutil
from collections.abc import Iterator

from mas_jax.errors import CheckpointCorruptError, MasJaxError, StoreNotWritableError


def is_remote(directory: str | os.PathLike[str]) -> bool:
    """Whether `directory` is on object storage, by a URL."""
    return "://" in os.fspath(directory)


def named(directory: str | os.PathLike[str]) -> str | pathlib.Path:
    """`directory` as it stays when the working directory changes; a URL as it is."""
    name = os.fspath(directory)
    # An empty one comes of a variable that is not set, and would be the working directory. A URL
    # that went through a pathlib.Path has lost a stroke.
    if not isinstance(name, str) or not name or re.match(r"file:|[a-z][a-z0-9+.-]+:/(?!/)", name):
        raise ValueError(
            "directory must be a local path, such as runs/anchors, or the URL of an object "
            f"storage, such as gs://bucket/anchors, got {name!r}"
        )
    return name if is_remote(name) else pathlib.Path(name).expanduser().absolute()


@contextlib.contextmanager
def for_writing(directory: os.PathLike[str]) -> Iterator[None]:
    """Errors of the machine's become StoreNotWritableError, which says where and what to do."""
    try:
        with naming(directory):
            yield
    except MasJaxError:
        raise
    except OSError as error:
        raise StoreNotWritableError(
            f"the store {os.fspath(directory)} was not written to as asked: {error}. Mend what "
            "failed, see what tasks() lists, and try again"
        ) from error


@contextlib.contextmanager
def naming(directory: os.PathLike[str]) -> Iterator[None]:
    """Errors of the machine's that do not say where, as those of open files, name `directory`."""
    try:
        yield
    except OSError as error:
        if error.errno is None or os.path.isabs(str(error.filename)):
            raise
        raise OSError(error.errno, error.strerror, os.fspath(directory)) from error


def check_directory(directory: pathlib.Path) -> None:
    """Raise NotADirectoryError if `directory`, or what it would be created in, is a file."""
    nearest = next(path for path in (directory, *directory.parents) if path.exists())
    if not nearest.is_dir():
        raise NotADirectoryError(f"{nearest} is a file; the store {directory} wants a directory")


def check_no_links(entry: pathlib.Path, item: str) -> None:
    """Raise CheckpointCorruptError if `entry`, or what is read of it for `item`, is a link.

    The store makes none, and one may lead to files that are not the store's.
    """
    beside = (path for path in entry.glob("*") if not path.is_dir())
    within = (entry / item).rglob("*")
    # In this order: what lies behind a link is not looked at.
    paths = itertools.chain([entry, entry / item], beside, within)
    link = next((path for path in paths if path.is_symlink()), None)
    if link is not None:
        raise CheckpointCorruptError(
            f"{link} is a link to {os.readlink(link)}, and the store follows none inside its "
            f"directory. Remove the link, and put a copy of the folder {entry} in its place"
        )


def remove(path: pathlib.Path) -> None:
    """Remove a folder with all that is in it, or a file; of a link only the link itself."""
    if path.is_symlink() or not path.is_dir():
        path.unlink()
    else:
        shutil.rmtree(path)


def make(directory: pathlib.Path) -> None:
    """Create a store's directory, with those above it, so that a power cut leaves them there."""
    new = [path for path in (directory, *directory.parents) if not path.exists()]
    directory.mkdir(parents=True, exist_ok=True)
    for path in new:
        flush_one(path.parent)


def flush(folder: pathlib.Path) -> None:
    """Wait until a folder with all that is in it is on the disk itself, and its name is."""
    for path in (*folder.rglob("*"), folder, folder.parent):
        flush_one(path)


def flush_one(path: pathlib.Path) -> None:
    """Wait until the names in a folder, or what is in a file, are on the disk itself."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
