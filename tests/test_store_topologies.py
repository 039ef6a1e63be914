"""Saved by one of two processes, restored on one device and on four; and one of the two killed."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

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
    def die(*_, **__):
        print(f"killed at {time.time()}", flush=True)
        os.kill(os.getpid(), signal.SIGKILL)

    os.rename = os.replace = die
if rank == 0:
    store.save(task, anchor, objective="x", num_samples=1)
multihost_utils.sync_global_devices("saved")
assert task in store.tasks()
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


def _two_processes(directory: os.PathLike[str], task: str) -> list[tuple[int, str, float]]:
    """How and when the two processes end, each with what it printed."""
    with socket.create_server(("localhost", 0)) as server:
        port = str(server.getsockname()[1])
    command = [sys.executable, "-c", WORKER, str(directory), port]
    running = [
        subprocess.Popen(
            [*command, str(rank), task], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        for rank in range(2)
    ]

    def end_of(process: subprocess.Popen[str]) -> tuple[int, str, float]:
        output = process.communicate(timeout=120)[0]
        return process.returncode, output, time.time()

    try:
        # At the same time, or the second one's end is seen when the first has ended.
        with ThreadPoolExecutor() as threads:
            return list(threads.map(end_of, running))
    finally:
        for process in running:
            process.kill()
            process.wait()


def test_two_processes_one_device_four_devices_and_a_kill_in_between(tmp_path):
    ends = _two_processes(tmp_path, "first")
    assert [code for code, _, _ in ends] == [0, 0], ends

    params = {"w": jnp.arange(64.0).reshape(8, 8), "b": jnp.ones(())}
    store = AnchorStore(directory)
    assert store.tasks() == ["first"]
    jax.tree.map(
        np.testing.assert_array_equal, store.restore("first", like=params), Anchor(params, params)
    )
    four = {"XLA_FLAGS": "--xla_force_host_platform_device_count=4"}
    subprocess.run(
        [sys.executable, "-c", ON_FOUR, str(tmp_path)], env={**os.environ, **four}, check=True
    )

    (killed, told, _), (other, output, ended) = _two_processes(tmp_path, "killed")
    assert killed == -signal.SIGKILL
    (moment,) = re.findall(r"killed at ([\d.]+)", told)
    assert ended - float(moment) < HEARTBEAT
    assert other not in (0, None)
    assert "heartbeat" in output or "unavailable" in output.lower() or "closed" in output, output
    assert store.tasks() == ["first"]
    jax.tree.map(
        np.testing.assert_array_equal, store.restore("first", like=params), Anchor(params, params)
    )
    store.save("killed", Anchor(params, params), objective="x", num_samples=1)
    assert {path.name for path in directory.iterdir()} == {".lock", "0", "1"}
