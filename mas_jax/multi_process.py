"""Several processes, each with its own share of the samples, as one stream of global batches.

Every step begins with one small all-gather, in which each process says how many samples it has;
what one of them alone would run into (its share is empty, or reading it failed) is thus raised by
all of them, and none waits for another that has stopped.
"""

import zlib
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from mas_jax import checks, trees
from mas_jax.options import Options
from mas_jax.placement import filled_up, mesh_of, round_up
from mas_jax.types import Batch

FAILED = -1
"""What a process says instead of a number of samples when it could not read its next batch."""


class Step(NamedTuple):
    """One global batch, of equally many rows per process, not all of them real."""

    batch: Batch
    weights: jax.Array  # (rows,) float32: 1, and 0 where a row only fills up
    sizes: np.ndarray  # (processes,) real rows of each
    seen: np.ndarray  # (processes,) samples of each before this step
    owners: np.ndarray  # (axis size,) the process that holds each part of the rows

    @property
    def size(self) -> int:
        """The number of real rows."""
        return int(self.sizes.sum())

    def sample_name(self, index: int) -> str:
        """How an error names a sample: `index` counts those before this step, and its rows."""
        rows = len(self.weights) // len(self.owners)
        position, row = divmod(index - int(self.seen.sum()), rows)
        process = self.owners[position]
        before = np.flatnonzero(self.owners == process).tolist().index(position)
        return f"{self.seen[process] + before * rows + row} of process {process}'s share"


def global_steps(options: Options, batches: Iterable[Batch]) -> Iterator[Step]:
    """The shares of all processes side by side, until the last of them is at its end."""
    mesh = mesh_of(options)
    owners = _owners(mesh, options.mesh_axis)
    sharding = NamedSharding(mesh, PartitionSpec(options.mesh_axis))
    parts = len(owners) // jax.process_count()  # in which the rows of one process are divided
    share, batch = iter(batches), None
    seen = np.zeros(jax.process_count(), np.int64)
    while True:
        following, error = _next(share)
        sizes = _agreed_sizes(following, error)
        if not sizes.any():
            return
        rows = round_up(int(sizes.max()), parts)
        _check_sizes(options, sizes, seen, rows)
        # A process at its end goes on with copies of a sample from its last batch.
        batch = batch if following is None else following
        real = (np.arange(rows) < sizes[jax.process_index()]).astype(np.float32)
        arrays = jax.make_array_from_process_local_data(sharding, (filled_up(batch, rows), real))
        yield Step(arrays[0], arrays[1], sizes, seen, owners)
        seen = seen + sizes


def _owners(mesh: Mesh, axis: str) -> np.ndarray:
    """The process at each position along the axis; raise unless these divide it equally."""
    devices = np.moveaxis(mesh.devices, mesh.axis_names.index(axis), 0)
    processes = np.vectorize(lambda device: device.process_index)(devices)
    processes = processes.reshape(mesh.shape[axis], -1)
    if (processes != processes[:, :1]).any():
        raise ValueError(
            f"mesh has devices of several processes at one position along {axis!r}, and they would "
            "need the same samples, while each process has its own: order the devices so that "
            "the other axes stay within a process"
        )
    owners = processes[:, 0]
    counts = np.bincount(owners, minlength=jax.process_count())
    if (counts != counts[0]).any():
        raise ValueError(
            f"mesh must give each process equally many positions along {axis!r}, got "
            f"{counts.tolist()} for processes 0 to {len(counts) - 1}"
        )
    return owners


def _next(share: Iterator[Batch]) -> tuple[Batch | None, Exception | None]:
    """The next batch, None at the end; or the error that came in its place."""
    try:
        batch = next(share)
        checks.batch_size(batch)
        for path, leaf in trees.leaves_by_path(batch).items():
            if not _is_local(leaf):
                raise ValueError(
                    f"batch{trees.path_name(path)} is a global array already, wanted this "
                    "process's own samples: yield those, or loop over importance_estimator's "
                    "update, which takes global arrays"
                )
    except StopIteration:
        return None, None
    except Exception as error:
        return None, error
    return batch, None


def _agreed_sizes(batch: Batch | None, error: Exception | None) -> np.ndarray:
    """How many samples each process has now; raise where one has failed or has another kind."""
    size = 0 if batch is None else checks.batch_size(batch)
    kind = [
        (trees.path_name(path), jnp.shape(leaf)[1:], str(leaf.dtype))
        for path, leaf in trees.leaves_by_path(batch).items()
    ]
    sizes, checksums = _gathered(FAILED if error else size, zlib.crc32(repr(kind).encode()))
    if error is not None:
        raise error
    if (sizes == FAILED).any():
        raise RuntimeError(
            f"process {np.argmax(sizes == FAILED)} failed to read its next batch (its own error "
            f"says why), so that process {jax.process_index()} cannot go on"
        )
    if len(set(checksums[sizes > 0])) > 1:
        raise ValueError(
            "the processes' batches differ in their structure, their dtypes or their shapes past "
            f"the leading axis; process {jax.process_index()} has {kind or 'none left'}"
        )
    return sizes


def _check_sizes(options: Options, sizes: np.ndarray, seen: np.ndarray, rows: int) -> None:
    """Raise where a process has no sample at all, or rows would be filled up and must not be."""
    empty = np.flatnonzero(seen + sizes == 0)
    if empty.size:
        raise ValueError(
            f"process {empty[0]} yielded no sample: with a mesh over several processes each needs "
            "a share of at least one"
        )
    if not options.pad_batch and (sizes != rows).any():
        raise ValueError(
            f"the processes have {sizes.tolist()} samples at one step, wanted {rows} of each: give "
            "them equal shares, or leave pad_batch=True, which fills batches up with copies of a "
            "sample at weight 0"
        )


def shared(mesh: Mesh, name: str, tree: Any) -> Any:
    """`tree`, which every process has, as global arrays: whole on each device, checked equal.

    What is a global array already stays as it is.
    """
    sharding = NamedSharding(mesh, PartitionSpec())
    checksum = 0
    for leaf in jax.tree.leaves(tree):
        if _is_local(leaf):
            checksum = zlib.crc32(_bytes(leaf), checksum)
    (checksums,) = _gathered(checksum)
    differing = np.flatnonzero(checksums != checksums[0])
    if differing.size:
        raise ValueError(
            f"{name} of processes 0 and {differing[0]} are not the same numbers: start all "
            "processes from one checkpoint or seed, or pass what "
            "jax.experimental.multihost_utils.broadcast_one_to_all returns"
        )

    def place(leaf: Any) -> Any:
        leaf = leaf if isinstance(leaf, jax.Array) else np.asarray(leaf)
        return jax.make_array_from_process_local_data(sharding, leaf, leaf.shape)

    return jax.tree.map(lambda leaf: place(leaf) if _is_local(leaf) else leaf, tree)


def _is_local(leaf: Any) -> bool:
    """Whether `leaf` belongs to this process alone."""
    return getattr(leaf, "is_fully_addressable", True)


def _bytes(leaf: Any) -> bytes:
    """The numbers in `leaf`."""
    is_key = hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    return np.asarray(jax.random.key_data(leaf) if is_key else leaf).tobytes()


def _gathered(*numbers: int) -> np.ndarray:
    """Each of `numbers` of every process: (numbers, processes) int32, in the processes' order."""
    message = np.array([jax.process_index(), *numbers], np.int64).astype(np.int32)
    table = multihost_utils.process_allgather(message)
    return table[np.argsort(table[:, 0]), 1:].T
