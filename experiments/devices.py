"""The devices that a run uses, one or all, and the processes that these belong to.

Where a program has several processes, each runs the same command. All of them compute; process 0
alone reads and writes the run's folder, and tells the others what it read.
"""

import os
import pickle
import zlib
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

T = TypeVar("T")

AXIS = "data"
"""The mesh's axis, along which the rows of a batch are divided."""

VARIABLES = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
"""What tells each process of the others where no launcher that JAX knows has started it."""

PROCESS_COUNTS = {"Slurm": "SLURM_STEP_NUM_TASKS", "Open MPI": "OMPI_COMM_WORLD_SIZE"}
"""Where launchers say how many processes they started. In a Slurm allocation, outside of `srun`,
the number is 1 or missing, while SLURM_NTASKS is that of the allocation."""

MARKS = {"Kubernetes": "JOB_COMPLETION_INDEX", "the TPU": "TPU_ML_PLATFORM"}
"""What an indexed Job sets, and what `import jax` does where it finds a TPU."""

SHUTDOWN_SECONDS = 30
"""How long a process that has ended waits for the others, before JAX ends them too."""


class OtherProcessError(RuntimeError):
    """Another process failed; it says itself why."""


def initialise() -> None:
    """Join the other processes of this program, where the environment says that there are any.

    To be called before anything else is asked of JAX. On a machine of its own it does nothing.

    Raises:
      ValueError: some of VARIABLES are set and others not, or one of them makes no sense.
      ConnectionError: this is one of several processes, and JAX cannot tell where the others are.
    """
    given = {name: os.environ[name] for name in VARIABLES if os.environ.get(name)}
    launcher = launcher_of(os.environ)
    if not given and launcher is None:
        return
    # JAX would catch SIGTERM, in C++ and for good, and `experiments.preemption` never see it.
    jax.config.update("jax_enable_preemption_service", False)
    options = _from_variables(given) if given else {}
    try:
        jax.distributed.initialize(**options, shutdown_timeout_seconds=SHUTDOWN_SECONDS)
    except (ValueError, RuntimeError) as error:
        raise ConnectionError(
            f"{' '.join(given) or launcher} may have made this one of several processes, and JAX "
            f"could not join the others ({error}). Set {', '.join(VARIABLES)} in each process; "
            "for one alone, 127.0.0.1:1234, 1 and 0"
        ) from error


def launcher_of(environment: Mapping[str, str]) -> str | None:
    """What may have started this process as one of several."""
    for launcher, name in PROCESS_COUNTS.items():
        count = environment.get(name, "")
        if count.isdecimal() and int(count) > 1:
            return launcher
    return next((launcher for launcher, name in MARKS.items() if name in environment), None)


def _from_variables(given: Mapping[str, str]) -> dict[str, Any]:
    """The arguments of `jax.distributed.initialize` that VARIABLES stand for."""
    missing = [name for name in VARIABLES if name not in given]
    if missing:
        raise ValueError(
            f"{' and '.join(given)} without {' and '.join(missing)}: wanted all three (host:port "
            "of process 0; how many processes there are; which this is, from 0), or none"
        )
    address_name, count_name, index_name = VARIABLES
    host, _, port = given[address_name].rpartition(":")
    if not host or not port.isdecimal():
        raise ValueError(f"{address_name} must be host:port, got {given[address_name]!r}")
    count = _number(count_name, given[count_name], range(1, 1_000_001))
    return {
        "coordinator_address": given[address_name],
        "num_processes": count,
        "process_id": _number(index_name, given[index_name], range(count)),
        "cluster_detection_method": "deactivate",
    }


def _number(name: str, text: str, allowed: range) -> int:
    """The number that `text` is."""
    if not text.isdecimal() or int(text) not in allowed:
        raise ValueError(f"{name} must be from {allowed[0]} to {allowed[-1]}, got {text!r}")
    return int(text)


def all_devices() -> Mesh:
    """A mesh of all devices of all processes, with the one axis AXIS."""
    return jax.make_mesh((jax.device_count(),), (AXIS,), axis_types=(AxisType.Auto,))


def counts(mesh: Mesh | None) -> dict[str, int]:
    """How many devices and processes a run on `mesh` has; None is one device."""
    if mesh is None:
        return {"devices": 1, "processes": 1}
    return {"devices": mesh.size, "processes": jax.process_count()}


def whole_on(mesh: Mesh) -> NamedSharding:
    """The sharding of what each device of `mesh` has a copy of."""
    return NamedSharding(mesh, PartitionSpec())


def replicated(mesh: Mesh | None, tree: Any) -> Any:
    """`tree`, which every process has, on the one device, or whole on each device of `mesh`."""
    if mesh is None:
        return jax.tree.map(jnp.asarray, tree)
    sharding = whole_on(mesh)
    return jax.tree.map(lambda leaf: _replicated_leaf(sharding, np.asarray(leaf)), tree)


def _replicated_leaf(sharding: NamedSharding, leaf: np.ndarray) -> jax.Array:
    """`leaf` whole on each device; unlike `jax.device_put` it moves nothing between processes."""
    return jax.make_array_from_callback(leaf.shape, sharding, lambda index: leaf[index])


def divided(mesh: Mesh | None, tree: Any) -> Any:
    """`tree`, in a compiled function, with its rows divided among the devices of `mesh`.

    Where these cannot share equally, XLA fills up with rows of its own that never count.
    """
    if mesh is None:
        return tree
    return jax.lax.with_sharding_constraint(tree, NamedSharding(mesh, PartitionSpec(AXIS)))


def is_first() -> bool:
    """Whether this process is the one that writes, prints and shows progress."""
    return not several_processes() or jax.process_index() == 0


def which_process() -> str:
    """The words for this process in an error; none for the first."""
    return "" if is_first() else f" in process {jax.process_index()}"


def several_processes() -> bool:
    """Whether this process is one of several of one program."""
    return jax.distributed.is_initialized() and jax.process_count() > 1


def from_first(fn: Callable[[], T]) -> T:
    """What `fn` returns in process 0, in every process; the others do not call it.

    Arrays come as NumPy arrays. An error in process 0 is one in all of them, so that none waits
    for what never comes.

    Raises:
      OtherProcessError: in the others, where `fn` raised in process 0.
    """
    if not several_processes():
        return fn()
    content, error = b"", None
    if is_first():
        try:
            content = pickle.dumps(jax.device_get(fn()))
        except BaseException as raised:  # a stop, too: the others must not wait for ever
            error = raised
    size = int.from_bytes(_bytes_from_first(len(content).to_bytes(8, "big")), "big")
    if error is not None:
        raise error
    if size == 0:  # even None is some bytes long
        raise OtherProcessError("process 0 failed, and says why itself")
    return pickle.loads(_bytes_from_first(content if is_first() else bytes(size)))


def _bytes_from_first(content: bytes) -> bytes:
    """The `content` of process 0; those of the others are as long."""
    return multihost_utils.broadcast_one_to_all(np.frombuffer(content, np.uint8)).tobytes()


def any_of(*flags: bool) -> tuple[bool, ...]:
    """Each flag, true in all processes if it is in one of them."""
    if not several_processes():
        return flags
    gathered = multihost_utils.process_allgather(np.array(flags))
    return tuple(gathered.any(axis=0).tolist())


def same_everywhere(what: str, fn: Callable[[], T]) -> T:
    """What `fn` returns in this process, once every process has it and it is the same in all.

    Args:
      what: its name in an error.
      fn: returns a pytree of arrays and of anything that prints alike in all processes.

    Raises:
      ValueError: in all processes, where they differ.
      OtherProcessError: where `fn` raised in another one.
    """
    if not several_processes():
        return fn()
    value, error = None, None
    try:
        value = fn()
    except Exception as raised:
        error = raised
    told = np.array([error is not None, _checksum(value)], np.uint32)
    failed, checksums = multihost_utils.process_allgather(told).T
    if error is not None:
        raise error
    if failed.any():
        raise OtherProcessError(f"another process failed to get its {what}, and says why itself")
    if (checksums != checksums[0]).any():
        raise ValueError(f"the processes differ in their {what}: wanted the same of all of them")
    return value  # pyright: ignore[reportReturnType] (without an error it is what fn returned)


def _checksum(tree: Any) -> int:
    """A number that trees with other contents rarely have."""
    checksum = 0
    for leaf in jax.tree.leaves(tree):
        is_array = isinstance(leaf, np.ndarray)
        checksum = zlib.crc32(leaf.tobytes() if is_array else repr(leaf).encode(), checksum)
    return checksum
