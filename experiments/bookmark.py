"""Where a run stands within a task, in a file that its next start goes on from."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from experiments import checkpoint, devices, preemption

FILE = "within_task.msgpack"
"""What a seed's folder holds while a task is learned, beside the state before it."""

FORMAT = 1
"""Of what is in there; what another version has kept is no use."""

SECONDS = 60.0
"""How long at least from one writing to the next, unless told otherwise or asked to stop."""

Phase = Literal["training", "importance"]


class Kept(NamedTuple):
    """How far a phase has come."""

    tree: Any
    told: dict[str, Any]  # plain numbers, beside the arrays


class Place(NamedTuple):
    """Where within a task a file says that a run is."""

    task: int  # from 0
    epochs: int
    chunks: int  # of importance; 0 where it is not begun


def place(path: Path) -> Place:
    """Where `path` says that its run is. Raises ValueError where it is not what was written."""
    told = json.loads(checkpoint.load_tree(path)["told"])
    phases = told["phases"]
    return Place(
        task=int(told["origin"].split()[0]),
        epochs=len(phases.get("training", {}).get("losses", ())),
        chunks=phases.get("importance", {}).get("chunks", 0),
    )


class Bookmark:
    """A task's boundaries: where a run keeps how far it has come, and stops if it was asked to.

    Without a path it keeps nothing, and stops all the same. Of several processes each has one,
    and passes the same boundaries as the others; they stop at the same one.
    """

    def __init__(
        self,
        path: Path | None = None,
        origin: str = "",
        seconds: float = SECONDS,
        mesh: Mesh | None = None,
    ) -> None:
        """Read what an earlier start has kept in `path`.

        Args:
          path: the file; None to keep nothing.
          origin: what the task goes on from; what was kept on the way from elsewhere is no use.
          seconds: how long at least from one writing to the next; 0 writes at every boundary.
          mesh: where arrays are put.
        """
        self._path, self._origin, self._seconds, self._mesh = path, origin, seconds, mesh
        self._kept: dict[str, Kept] = {}
        self._found, times = {}, {}
        if path is not None:
            self._found, times = devices.from_first(lambda: _read(path, origin))
        self._times: dict[str, float] = times
        self._phase: Phase = "training"
        self._began = time.monotonic()
        self._written = self._began

    def found(self, phase: Phase, like: Callable[[], Any]) -> Kept | None:
        """What an earlier start kept of a phase, as a tree like the one that `like` makes."""
        if phase not in self._found:
            return None
        arrays, told = self._found[phase]
        leaves, structure = jax.tree.flatten(like())
        if [_kind(array) for array in arrays] != [_kind(leaf) for leaf in leaves]:
            # Kept by another version of this program. Nothing of it fits then.
            self._found = {}
            return None
        tree = jax.tree.unflatten(structure, devices.replicated(self._mesh, arrays))
        self._kept[phase] = Kept(tree, told)
        return self._kept[phase]

    def keep(self, phase: Phase, tree: Any, **told: Any) -> None:
        """Pass a boundary: `phase` has come so far, as is written if it is time to, or to stop.

        Raises:
          Preempted: a signal has asked this process, or another one, to stop.
        """
        if self._path is not None:
            self._kept[phase] = Kept(tree, told)
        self._pass(self._path)

    def pass_by(self) -> None:
        """Pass a boundary at which there is nothing to keep; raises Preempted likewise."""
        self._pass(None)

    def turn_to(self, phase: Phase) -> None:
        """From here on time is that of `phase`."""
        self._times[self._phase] = self.elapsed()
        self._phase, self._began = phase, time.monotonic()

    def elapsed(self) -> float:
        """The seconds that the phase has taken, in earlier starts too."""
        return self._times.get(self._phase, 0.0) + time.monotonic() - self._began

    def remove(self) -> None:
        """The task is finished, and kept elsewhere."""
        if (path := self._path) is not None:
            devices.from_first(lambda: path.unlink(missing_ok=True))

    def _pass(self, path: Path | None) -> None:
        """Write to `path`, if there is one and it is time to; stop where that was asked for."""
        is_due = time.monotonic() - self._written >= self._seconds
        # Clocks and signals are each process's own: all do what one of them has to.
        stops, is_due = devices.any_of(preemption.is_asked(), is_due)
        if path is not None and (stops or is_due):
            devices.from_first(lambda: self._write(path))
            self._written = time.monotonic()
        if stops:
            raise preemption.Preempted

    def _write(self, path: Path) -> None:
        """Replace the file."""
        told = {
            "format": FORMAT,
            "origin": self._origin,
            "seconds": {**self._times, self._phase: self.elapsed()},
            "phases": {phase: kept.told for phase, kept in self._kept.items()},
        }
        arrays = {phase: jax.tree.leaves(kept.tree) for phase, kept in self._kept.items()}
        checkpoint.save_tree(path, {"told": json.dumps(told), "arrays": jax.device_get(arrays)})


def _read(path: Path, origin: str) -> tuple[dict[str, tuple[list[Any], Any]], dict[str, float]]:
    """Arrays and plain numbers of each phase, and its seconds; nothing where nothing is of use.

    What is damaged, or was kept on the way to another task, is removed: learning the task from
    its start ends in the same, and a loop that starts a run again and again is not held up.
    """
    try:
        stored = checkpoint.load_tree(path)
        told = json.loads(stored["told"])
        if (told["format"], told["origin"]) != (FORMAT, origin):
            raise ValueError("it was kept by another version, or on the way to another task")
    except FileNotFoundError:
        return {}, {}
    except (ValueError, KeyError):
        path.unlink()
        return {}, {}
    found = {}
    for phase, numbers in told["phases"].items():
        arrays = stored["arrays"][phase]
        found[phase] = ([arrays[str(number)] for number in range(len(arrays))], numbers)
    return found, told["seconds"]


def _kind(leaf: Any) -> tuple[tuple[int, ...], Any]:
    """The shape and dtype of an array."""
    return np.shape(leaf), jnp.result_type(leaf)
