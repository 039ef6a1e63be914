"""Anchors on disk: one entry per task, written whole or not at all, verified when read."""

import contextlib
import os
import pathlib
import warnings
from collections.abc import Iterator
from typing import Any, Literal, get_args

import jax
from etils import epath

from mas_jax import (
    checks,
    descriptions,
    entries,
    host_arrays,
    leftovers,
    manifest,
    store_files,
    trees,
)
from mas_jax.anchor import Anchor
from mas_jax.condition import StoreCondition
from mas_jax.entries import Entries
from mas_jax.errors import (
    CheckpointCorruptError,
    OlderAnchorWarning,
    StoreNotWritableError,
    TaskExistsError,
)
from mas_jax.importance_codes import Code
from mas_jax.lock import LOCK_FILE, writer_lock, writer_of
from mas_jax.manifest import Manifest
from mas_jax.types import Params


class AnchorStore:
    """A directory of anchors, one entry per task, in the order in which they were saved.

    Each entry is a step of an Orbax `CheckpointManager`: the leaves of θ* and Ω, and JSON
    metadata with a SHA-256 per leaf and one of the metadata itself.

    Guarantees:
      - `save` returns when everything is written and listed; an entry is there whole or not at
        all, whatever kills the process. What a killed save left is cleared by the next one.
      - `restore` returns bit for bit what was saved, or raises: nothing is cast, no damage passes.
      - Damage to one task does not keep the others from being restored.
      - Local directories have one writer at a time; readers need no lock and create nothing.

    On object storage (gs://…, which needs gcsfs) there is no lock: let one process write. In a
    multi-process JAX program process 0 saves, of arrays it holds whole; any of them restores.

    Args:
      directory: a local path, or a URL that `etils.epath` knows. Created by the first save.

    Raises:
      ValueError: `directory` is empty, or a local one given as a URL.

    Example:
      >>> import jax.numpy as jnp, tempfile
      >>> folder = tempfile.TemporaryDirectory()
      >>> params = {"w": jnp.array([1.0, 2.0])}
      >>> anchor = Anchor(params, {"w": jnp.array([0.5, 0.0])})
      >>> store = AnchorStore(folder.name)
      >>> store.save("birds", anchor, objective="squared_l2_norm", num_samples=5994)
      >>> store.tasks()
      ['birds']
      >>> store.restore("birds", like=params).importance["w"]
      Array([0.5, 0. ], dtype=float32)
      >>> folder.cleanup()
    """

    def __init__(self, directory: str | os.PathLike[str]):
        self._directory = epath.Path(store_files.named(directory))

    @property
    def directory(self) -> epath.Path:
        """Where the store is."""
        return self._directory

    def save(
        self,
        task: str,
        anchor: Anchor,
        *,
        objective: str,
        num_samples: int,
        extra: dict[str, Any] | None = None,
        importance_as: Code = "exact",
    ) -> None:
        """Write `anchor` as the entry of `task`; complete and on disk when this returns.

        Args:
          task: the task's name, 1 to 200 printable characters.
          anchor: θ* and Ω, with any masked leaves.
          objective: what Ω measures, e.g. "squared_l2_norm".
          num_samples: how many samples it was measured on; 0 where none were needed.
          extra: anything else to keep with it, plain JSON.
          importance_as: how Ω is stored. "exact", bit for bit, 4 bytes for each parameter in
            float32; "bfloat16", 2 bytes, each entry within 0.4 %; "log8", 1.03 bytes, each entry
            within 3.4 %, or for entries below 2⁻²⁴ (6e-8) of the largest of the 128 around them,
            raised to that. Under each of them zeros stay zeros, and `restore` gives float32.
            θ* is always exact.

        Raises:
          TaskExistsError: the store holds `task` already. Nothing is overwritten.
          StoreLockedError: another process is writing to the store; names it.
          StoreNotWritableError: the directory cannot be created or written to, or the write
            failed, or this is not process 0; what was there before is unharmed.
          CheckpointCorruptError: the metadata of an older task is damaged, so that it is not
            known whether `task` exists.
          TreeMismatchError, NonFiniteError, TypeError, ValueError: the anchor, the name or what
            describes it is not valid; names the leaf.
        """
        descriptions.check_task_name(task)
        descriptions.check_description(objective, num_samples, extra)
        checks.check_choice("importance_as", importance_as, get_args(Code))
        host_arrays.check_anchor(anchor, importance_as)
        if process := jax.process_index():
            # In the others Orbax leaves NumPy arrays and JSON out, and says nothing.
            raise StoreNotWritableError(
                f"task {task!r} was not saved to {self._directory}: this is process {process}, and "
                "of a program's processes only 0 writes. Save there, if jax.process_index() == 0"
            )
        with self._writing() as store:
            if task in (tasks := [*store.names()]):
                raise TaskExistsError(
                    f"the store {self._directory} holds task {task!r} already (the latest is "
                    f"{tasks[-1]!r}); nothing was overwritten. Delete it first with "
                    f"delete({task!r}), or save under another name"
                )
            held = host_arrays.from_anchor(anchor, importance_as)
            masked = [path for tree in anchor for path in trees.masked_paths(tree)]
            content = manifest.describe(task, held.leaves, masked, objective, num_samples, extra)
            store.write(held.arrays, content)

    def restore(
        self, task: str, *, like: Params, fallback: Literal["previous"] | None = None
    ) -> Anchor:
        """Read the anchor of `task` into the structure of `like`, and onto its devices.

        Args:
          task: the task's name.
          like: the parameters, or `jax.ShapeDtypeStruct`s of them, in any containers. Leaves that
            were masked when the anchor was saved become `optax.MaskedNode()`; a parameter that
            came later is that in `like` already. Each leaf's sharding is also its importance's;
            where `like` has none, JAX's default device is used.
          fallback: what to do where the entry of `task` is damaged. None: raise. "previous":
            return the newest anchor saved before it that is whole and fits `like`, and warn
            with `OlderAnchorWarning`, whose `restored` is the name of that task. Where
            metadata is damaged, and no readable entry is that of `task`, it is one saved before
            all such entries, whether or not there ever was such a task; `is_known` is False.

        Returns:
          The anchor, bit for bit as it was saved.

        Raises:
          TaskNotFoundError: no such task; lists those there are.
          TreeMismatchError: `like` has other leaves, shapes or dtypes than were saved; names the
            leaf, before anything is read.
          CheckpointCorruptError: what is on disk is not what was saved; names the leaf. With
            fallback="previous": and there is no older entry that would do.
          StoreFormatError: a newer version of this library wrote the entry.
        """
        if fallback is not None:
            checks.check_choice("fallback", fallback, ("previous",))
        with entries.opened(self._directory) as store:
            try:
                return store.anchor(*store.find(task), like)
            except CheckpointCorruptError as damage:
                older = store.newest_before(task, like) if fallback else None
                if older is None:
                    raise
                warning = OlderAnchorWarning(task, older.task, damage, is_known=older.is_known)
                warnings.warn(warning, stacklevel=2)
                return older.anchor

    def tasks(self) -> list[str]:
        """The names of the tasks in the store, in the order in which they were saved.

        Raises:
          CheckpointCorruptError: an entry's metadata is damaged; names its folder.
          StoreFormatError: a newer version of this library wrote an entry.
          NotADirectoryError: the store's path is a file, or lies below one.
        """
        with entries.opened(self._directory) as store:
            return list(store.names())

    def latest(self) -> str | None:
        """The name of the task saved last, None in an empty store. Raises as `tasks` does."""
        with entries.opened(self._directory) as store:
            return next(store.names(newest_first=True), None)

    def metadata(self, task: str) -> Manifest:
        """What was saved beside the anchor of `task`, as plain JSON; see `Manifest`.

        Raises: TaskNotFoundError, CheckpointCorruptError, StoreFormatError, as `restore` does.
        """
        with entries.opened(self._directory) as store:
            return store.find(task)[1]

    def delete(self, task: str) -> None:
        """Remove the entry of `task`.

        Raises: TaskNotFoundError, CheckpointCorruptError and StoreFormatError as `restore` does;
          StoreLockedError and StoreNotWritableError as `save` does.
        """
        with store_files.for_writing(self._directory), entries.opened(self._directory) as store:
            store.find(task)
        with self._writing() as store:
            store.delete(store.find(task)[0])

    def examine(self) -> StoreCondition:
        """Read everything and change nothing: what is there, what is damaged, what was left.

        Raises:
          NotADirectoryError: the store's path is a file, or lies below one.
        """
        # Twice, since another process may be writing: what comes or goes meanwhile is left out.
        before = self._names()
        with entries.opened(self._directory) as store:
            examined = tuple(store.examined())
        left = tuple(path.name for path in leftovers.found(self._directory))
        own = {LOCK_FILE, *left, *(entry.folder for entry in examined)}
        others = tuple(sorted((before & self._names()) - own))
        is_remote = store_files.is_remote(self._directory)
        writer = None if is_remote else writer_of(pathlib.Path(self._directory))
        return StoreCondition(examined, left, others, writer)

    def _names(self) -> set[str]:
        """The names in the store's directory."""
        return {path.name for path in self._directory.glob("*")}

    @contextlib.contextmanager
    def _writing(self) -> Iterator[Entries]:
        """The entries for the only writer, who finds and leaves no half-written ones."""
        with contextlib.ExitStack() as stack:
            stack.enter_context(store_files.for_writing(self._directory))
            if store_files.is_remote(self._directory):
                self._directory.mkdir(parents=True, exist_ok=True)
            else:
                stack.enter_context(writer_lock(pathlib.Path(self._directory)))
            leftovers.remove(self._directory)
            stack.callback(self._tidy)
            yield stack.enter_context(entries.opened(self._directory, alone=True))

    def _tidy(self) -> None:
        """Remove what this writer leaves, as far as it goes: the next writer removes the rest.

        An error here would say of what was saved or deleted that it was not.
        """
        with contextlib.suppress(OSError):
            leftovers.remove(self._directory)
