"""The entries of a store, each a step of an Orbax manager: found, read and verified, written."""

import asyncio
import contextlib
import functools
import os
import pathlib
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath

from mas_jax import host_arrays, leftovers, likeness, manifest, store_files
from mas_jax.anchor import Anchor
from mas_jax.condition import Entry
from mas_jax.errors import (
    CheckpointCorruptError,
    MasJaxError,
    StoreFormatError,
    StoreNotWritableError,
    TaskNotFoundError,
    TreeMismatchError,
)
from mas_jax.host_arrays import ByNumber
from mas_jax.manifest import Manifest, StoredArray
from mas_jax.types import Params

_ABANDONED: dict[str, int] = {}
"""By store, the number of the last entry that this process failed to write. TensorStore's threads
may still be writing there, and what they write must not come into another entry."""


class Older(NamedTuple):
    """An entry that stands for a damaged one."""

    task: str
    anchor: Anchor
    is_known: bool  # that the damaged one is of the task that was asked for


class _Flushed(ocp.path.atomicity.AtomicRenameTemporaryPath):
    """An entry that is on the disk itself before it gets its name.

    Else a power cut may leave the name, and not what is in it. Orbax writes two files more, which
    nobody reads.
    """

    async def finalize(self) -> None:
        await asyncio.to_thread(store_files.flush, pathlib.Path(self.get()))
        await super().finalize()


class Entries:
    """What is in a store's directory, as its manager saw it last. Steps are folders' numbers."""

    def __init__(self, directory: epath.Path, manager: ocp.CheckpointManager):
        self._directory, self._manager = directory, manager

    def names(self, *, newest_first: bool = False) -> Iterator[str]:
        """The names of the tasks."""
        for step in self._steps(newest_first):
            with contextlib.suppress(TaskNotFoundError):
                yield self.manifest(step)["task"]

    def find(self, task: str) -> tuple[int, Manifest]:
        """The step that holds `task`, and its manifest."""
        names, unreadable = [], None
        for step, content in self._manifests().items():
            if isinstance(content, MasJaxError):
                unreadable = content
            elif content["task"] == task:
                return step, content
            else:
                names.append(content["task"])
        if unreadable is not None:
            raise unreadable
        raise TaskNotFoundError(
            f"the store {self._directory} has no task {task!r}; it has "
            f"{', '.join(map(repr, names)) or 'none at all'}. Ask for one of these, or see whether "
            "this is the right directory"
        )

    def manifest(self, step: int) -> Manifest:
        """The manifest of one step, verified."""
        content = self._read(step, "metadata", "the metadata", ocp.args.JsonRestore())
        content = manifest.opened(content, self._where(step))
        manifest.check_entry(content, step, str(self._directory))
        return content

    def anchor(self, step: int, content: Manifest, like: Params) -> Anchor:
        """The anchor of one step, verified, in the structure of `like`."""
        likeness.check_like(content, like)
        read = functools.partial(self._arrays, step, content["task"])
        try:
            return host_arrays.restored(content, like, read, self._where(step))
        except CheckpointCorruptError:
            # It may have been deleted meanwhile, and another saved in its place.
            if self.manifest(step) == content:
                raise
            self._manager.reload()
            return self.anchor(*self.find(content["task"]), like)

    def newest_before(self, task: str, like: Params) -> Older | None:
        """The newest whole entry older than the damaged one of `task`."""
        found = self._manifests()
        named = {s: content for s, content in found.items() if not isinstance(content, MasJaxError)}
        own = [step for step, content in named.items() if content["task"] == task]
        damaged = [s for s, content in found.items() if isinstance(content, CheckpointCorruptError)]
        for step in (step for step in reversed(named) if step < (own or damaged)[0]):
            with contextlib.suppress(CheckpointCorruptError, TaskNotFoundError, TreeMismatchError):
                return Older(named[step]["task"], self.anchor(step, named[step], like), bool(own))
        return None

    def examined(self) -> Iterator[Entry]:
        """Each entry, read to the end."""
        for step in self._steps():
            task, failure = None, None
            try:
                content = self.manifest(step)
                task = content["task"]
                read = functools.partial(self._arrays, step, task)
                host_arrays.check_stored(content, read, self._where(step))
            except (MasJaxError, OSError) as error:
                failure = error
            yield Entry(str(step), task, failure)

    def write(self, arrays: ByNumber, content: Manifest) -> None:
        """Save one entry, and see that it is there."""
        abandoned = _ABANDONED.get(str(self._directory), -1)
        step = max(*self._steps(), abandoned, -1) + 1
        content = manifest.bound(content, step)
        failed = f"task {content['task']!r} was not saved to {self._directory}"
        items = ocp.args.Composite(
            anchor=ocp.args.PyTreeSave(arrays),
            metadata=ocp.args.JsonSave(content),
        )
        try:
            written = self._manager.save(step, args=items)
        except Exception as error:
            _ABANDONED[str(self._directory)] = step
            leftovers.settle(self._directory)
            raise StoreNotWritableError(
                f"{failed}: {type(error).__name__}: {error}. The tasks saved before are "
                "unharmed. Mend what failed (is the disk full?) and save it again"
            ) from error
        # Orbax writes nothing and returns False where it finds a newer step.
        self._manager.reload()
        if not written or step not in self._steps():
            raise StoreNotWritableError(
                f"{failed}: Orbax skipped step {step}. Is another program writing there? End "
                "it, and save again"
            )
        if store_files.is_remote(self._directory):
            return
        try:
            store_files.flush(pathlib.Path(self._where(step)))
        except OSError as error:
            raise StoreNotWritableError(
                f"task {content['task']!r} is listed in {self._directory} but may not survive a "
                f"power cut: {error}. Delete it, and save it again"
            ) from error

    def delete(self, step: int) -> None:
        """Remove one entry, for good when this returns."""
        self._manager.delete(step)
        if not store_files.is_remote(self._directory):
            store_files.flush_one(pathlib.Path(self._directory))

    def _steps(self, newest_first: bool = False) -> Iterable[int]:
        """The folders' numbers."""
        steps = self._manager.all_steps()
        return reversed(steps) if newest_first else steps

    def _where(self, step: int) -> str:
        """The folder of one step."""
        return os.fspath(self._directory / str(step))

    def _manifests(self) -> dict[int, Manifest | MasJaxError]:
        """The manifest of each step, or why it cannot be read."""
        found = {}
        for step in self._steps():
            with contextlib.suppress(TaskNotFoundError):
                try:
                    found[step] = self.manifest(step)
                except (CheckpointCorruptError, StoreFormatError) as error:
                    found[step] = error
        return found

    def _arrays(self, step: int, task: str, group: list[StoredArray]) -> ByNumber:
        """Some of the arrays of one step."""
        if not group:
            return {}
        template: ByNumber = {}
        for array in group:
            like = jax.ShapeDtypeStruct(array.shape, array.dtype)
            template.setdefault(array.tree, {})[str(array.number)] = like
        # NumPy arrays come as they are on disk. Asked for a dtype, Orbax would cast to it.
        restore_args = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), template)
        args = ocp.args.PyTreeRestore(template, restore_args=restore_args, partial_restore=True)
        names = " and ".join(dict.fromkeys(array.name for array in group))
        try:
            return self._read(step, "anchor", f"{names} of task {task!r}", args)
        except CheckpointCorruptError:
            # Which of them it is, they tell one by one.
            for array in group if len(group) > 1 else ():
                self._arrays(step, task, [array])
            raise

    def _read(self, step: int, item: str, what: str, args: Any) -> Any:
        """`what` is in one item of one step, as Orbax restores it."""
        folder = self._directory / str(step)
        if not store_files.is_remote(folder):
            store_files.check_no_links(pathlib.Path(folder), item)
        try:
            return self._manager.restore(step, args=ocp.args.Composite(**{item: args}))[item]
        except (MemoryError, OSError) as error:
            # The disk, the network or the machine failed, which says nothing of the entry.
            if not isinstance(error, FileNotFoundError):
                raise
            raise _unreadable(folder, what, error) from error
        # Damaged files make Orbax and TensorStore raise nearly anything.
        except Exception as error:
            raise _unreadable(folder, what, error) from error


def _unreadable(folder: epath.Path, what: str, error: Exception) -> MasJaxError:
    """The error for an entry that does not read as it was written."""
    if not folder.exists():
        return TaskNotFoundError(f"{folder} has been deleted meanwhile; tasks() lists what is left")
    return CheckpointCorruptError(
        f"cannot read {what} in {folder}: {type(error).__name__}: {error}. If it stays so, "
        "put a copy of that folder back, or remove it to give its task up"
    )


@contextlib.contextmanager
def opened(directory: epath.Path, *, alone: bool = False) -> Iterator[Entries]:
    """The entries that are on disk now; creates nothing. Only a writer is `alone`."""
    if not store_files.is_remote(directory):
        store_files.check_directory(pathlib.Path(directory))
    # Each process is on its own: the store's arrays are whole, on the host.
    process = jax.process_index()
    options = ocp.CheckpointManagerOptions(
        create=False,
        enable_async_checkpointing=False,
        todelete_subdir=leftovers.DELETED,
        # Object storage has no names that come before their content.
        temporary_path_class=None if store_files.is_remote(directory) else _Flushed,
        # Or it looks into every entry, and fails where a writer has just deleted one.
        lightweight_initialize=not alone,
        multiprocessing_options=ocp.options.MultiprocessingOptions(
            primary_host=process, active_processes={process}
        ),
    )
    with (
        store_files.naming(directory),
        ocp.CheckpointManager(directory, options=options, handler_registry=_handlers()) as manager,
    ):
        yield Entries(directory, manager)


def _handlers() -> ocp.handlers.CheckpointHandlerRegistry:
    """How Orbax reads and writes the two items of an entry, whatever its own files say."""
    types = ocp.type_handlers
    # Orbax copies what it writes, for the sake of writers that go on; here nobody does.
    arrays = types.create_type_handler_registry(
        (np.ndarray, types.NumpyHandler(deepcopy_host_arrays=False)),
        (jax.Array, types.ArrayHandler()),  # without which it says that there is none
    )
    return ocp.handlers.create_default_handler_registry(
        # Compression takes 8 % off the size of trained weights, and three times as long.
        anchor=ocp.PyTreeCheckpointHandler(use_compression=False, type_handler_registry=arrays),
        metadata=ocp.JsonCheckpointHandler(),
    )
