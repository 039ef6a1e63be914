"""Saved by one of two processes, restored on one device and on four; and one of the two killed."""

import os
import pathlib
import signal
import socket
import subprocess
import sys
import time
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mas_jax.anchor import Anchor
from mas_jax.store import AnchorStore

HEARTBEAT = 10
"""Seconds after which a process that says nothing counts as dead."""

SLACK = 10
"""Seconds more for noticing and ending, on a machine that is busy.

A process sends a heartbeat every HEARTBEAT / 2 seconds and waits so long for the answer
(`StartSendingHeartbeats` in XLA's coordination_service_agent.cc): it knows of a dead process 0
after HEARTBEAT seconds at the latest, and mostly at once, by the broken connection. What
process 0 would know of another one's death it looks for every second (`CheckStaleness`).
"""

WORKER = """
import os, signal, sys
import jax

directory, port, rank = sys.argv[1], sys.argv[2], int(sys.argv[3])
jax.distributed.initialize(
    f"localhost:{port}", num_processes=2, process_id=rank, heartbeat_timeout_seconds=HEARTBEAT
)
import jax.numpy as jnp
from jax.experimental import multihost_utils
from mas_jax.anchor import Anchor
from mas_jax.errors import StoreNotWritableError
from mas_jax.store import AnchorStore

store = AnchorStore(directory)
params = {"w": jnp.arange(64.0).reshape(8, 8), "b": jnp.ones(())}
anchor = Anchor(params, params)
if rank == 1:
    try:
        store.save("mine", anchor, objective="x", num_samples=1)
    except StoreNotWritableError as error:
        assert "this is process 1" in str(error), error
    else:
        raise AssertionError("a save that Orbax leaves out was acknowledged")
if rank == 0:
    store.save("first", anchor, objective="x", num_samples=1)
multihost_utils.sync_global_devices("first")
assert store.tasks() == ["first"]
print("first is there", flush=True)
if rank == 0:
    # Everything is written, and the entry not yet in its place.
    os.rename = os.replace = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
    store.save("killed", anchor, objective="x", num_samples=1)
multihost_utils.sync_global_devices("killed")
""".replace("HEARTBEAT", str(HEARTBEAT))

ON_FOUR = """
import sys
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P
from mas_jax.store import AnchorStore

assert len(jax.devices()) == 4
mesh = Mesh(np.array(jax.devices()), ("x",))
like = {
    "w": jax.ShapeDtypeStruct((8, 8), jnp.float32, sharding=NamedSharding(mesh, P("x"))),
    "b": jax.ShapeDtypeStruct((), jnp.float32, sharding=NamedSharding(mesh, P())),
}
for tree in AnchorStore(sys.argv[1]).restore("first", like=like):
    assert {shard.data.shape for shard in tree["w"].addressable_shards} == {(2, 8)}
    assert len(tree["b"].sharding.device_set) == 4
    assert (np.asarray(tree["w"]) == np.arange(64.0).reshape(8, 8)).all()
"""


class Ends(NamedTuple):
    """How the two processes ended."""

    codes: list[int]
    outputs: list[str]
    seconds: float  # from the death of process 0 to the end of process 1


def _two_processes(directory: pathlib.Path, logs: pathlib.Path) -> Ends:
    """Let two processes save to `directory`."""
    with socket.create_server(("localhost", 0)) as server:
        port = str(server.getsockname()[1])
    command = [sys.executable, "-c", WORKER, str(directory), port]
    files = [logs / f"process {rank}" for rank in range(2)]
    running = []
    try:
        for rank, file in enumerate(files):
            with file.open("w") as log:
                running.append(
                    subprocess.Popen([*command, str(rank)], stdout=log, stderr=subprocess.STDOUT)
                )
        first, second = running
        first.wait(timeout=120)
        death = time.monotonic()
        second.wait(timeout=120)
        seconds = time.monotonic() - death
        return Ends([first.returncode, second.returncode], [f.read_text() for f in files], seconds)
    finally:
        for process in running:
            process.kill()
            process.wait()


def test_the_one_of_two_processes_that_saves_is_killed_and_the_other_hears_of_it(tmp_path):
    directory = tmp_path / "store"
    (killed, other), outputs, seconds = _two_processes(directory, tmp_path)
    assert killed == -signal.SIGKILL, outputs
    assert all("first is there" in output for output in outputs), outputs
    assert other != 0
    says = outputs[1].lower()
    assert "heartbeat" in says or "unavailable" in says or "closed" in says, outputs
    assert seconds < HEARTBEAT + SLACK, outputs

    params = {"w": jnp.arange(64.0).reshape(8, 8), "b": jnp.ones(())}
    store = AnchorStore(directory)
    assert store.tasks() == ["first"]
    jax.tree.map(
        np.testing.assert_array_equal, store.restore("first", like=params), Anchor(params, params)
    )
    four = {"XLA_FLAGS": "--xla_force_host_platform_device_count=4"}
    subprocess.run(
        [sys.executable, "-c", ON_FOUR, str(directory)], env={**os.environ, **four}, check=True
    )
    store.save("killed", Anchor(params, params), objective="x", num_samples=1)
    assert {path.name for path in directory.iterdir()} == {".lock", "0", "1"}
