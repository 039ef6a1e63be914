"""What killed or failed writers leave in a store: entries half written or half deleted."""

import contextlib
import pathlib
import time

import orbax.checkpoint as ocp
from etils import epath

from mas_jax import store_files

DELETED = ".deleted"
"""Where an entry goes, in one rename, to be deleted: nobody sees it half gone."""


def found(directory: epath.Path) -> list[epath.Path]:
    """The leftovers in a store's directory, by name; none where there is no directory."""
    paths = sorted(directory.iterdir()) if directory.exists() else []
    return [path for path in paths if path.name == DELETED or _is_half_written(path)]


def remove(directory: epath.Path) -> None:
    """Remove them. Only a store's one writer may."""
    for path in found(directory):
        if store_files.is_remote(path):
            path.rmtree()
        else:
            store_files.remove(pathlib.Path(path))


def settle(directory: epath.Path) -> None:
    """Remove what a failed write leaves, as long as its threads may go on writing."""
    for _ in range(10):
        with contextlib.suppress(OSError):
            remove(directory)
        time.sleep(0.02)


def _is_half_written(path: epath.Path) -> bool:
    """Whether `path` is an entry that Orbax has begun and not committed."""
    types = ocp.path.atomicity_types
    step, suffix, _ = path.name.partition(types.TMP_DIR_SUFFIX)
    if not step.isdecimal():
        return False
    # Object storage has no rename: there a file says that the entry is complete.
    has_no_mark = store_files.is_remote(path) and not (path / types.COMMIT_SUCCESS_FILE).exists()
    return bool(suffix) or has_no_mark
