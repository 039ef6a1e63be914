"""Restored onto other devices, precisions and processes than those that saved."""

import os
import pathlib
import socket
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mas_jax.anchor import Anchor
from mas_jax.errors import TreeMismatchError
from mas_jax.store import AnchorStore

EIGHT_DEVICES = {"XLA_FLAGS": "--xla_force_host_platform_device_count=8"}


def _run(code: str, *arguments: str | os.PathLike[str], **environment: str) -> None:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(
        command, env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


ON_A_MESH = """
import sys
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P
from mas_jax.anchor import Anchor
from mas_jax.store import AnchorStore

store = AnchorStore(sys.argv[1])
assert len(jax.devices()) == 8
mesh = Mesh(np.array(jax.devices()).reshape(4, 2), ("x", "y"))
kernel, bias = NamedSharding(mesh, P("x", "y")), NamedSharding(mesh, P())
abstract = {
    "kernel": jax.ShapeDtypeStruct((8, 4), jnp.bfloat16, sharding=kernel),
    "bias": jax.ShapeDtypeStruct((4,), jnp.float32, sharding=bias),
}
arrays = {
    name: jnp.zeros(leaf.shape, leaf.dtype, device=leaf.sharding)
    for name, leaf in abstract.items()
}
for like in (abstract, arrays):
    restored = store.restore("one device", like=like)
    for tree in restored:
        assert tree["kernel"].sharding == kernel and tree["bias"].sharding == bias
    assert restored.importance["kernel"].dtype == jnp.float32
    assert {shard.data.shape for shard in restored.params["kernel"].addressable_shards} == {(2, 2)}
    assert (restored.params["kernel"] == np.arange(32).reshape(8, 4)).all()
    assert (restored.importance["kernel"] == np.arange(32).reshape(8, 4) / 3).all()
store.save("mesh", Anchor(restored.params, restored.importance), objective="x", num_samples=1)
alone = store.restore("mesh", like=jax.tree.map(lambda leaf: np.asarray(leaf), arrays))
assert alone.params["kernel"].sharding.device_set == {jax.devices()[0]}
"""


def test_shardings_are_those_of_like_on_a_mesh_and_back(tmp_path):
    kernel = jnp.arange(32.0).reshape(8, 4)
    params = {"kernel": kernel.astype(jnp.bfloat16), "bias": jnp.ones(4)}
    anchor = Anchor(params, {"kernel": np.asarray(kernel) / np.float32(3), "bias": jnp.ones(4)})
    store = AnchorStore(tmp_path)
    store.save("one device", anchor, objective="x", num_samples=1)
    _run(ON_A_MESH, tmp_path, **EIGHT_DEVICES)
    restored = store.restore("mesh", like=params)
    jax.tree.map(np.testing.assert_array_equal, restored, anchor)


IN_FLOAT64 = """
import sys
import jax, jax.numpy as jnp, numpy as np
from mas_jax.anchor import Anchor, consolidate
from mas_jax.store import AnchorStore

store = AnchorStore(sys.argv[1])
params = {"w": jnp.array([-0.0, 5e-324, 1 / 3, -1.7e308]), "narrow": jnp.ones(2, jnp.float32)}
anchor = consolidate(None, params, jax.tree.map(jnp.abs, params))
assert anchor.importance["w"].dtype == jnp.float64
store.save("wide", anchor, objective="x", num_samples=1)
restored = store.restore("wide", like=params)
for one, other in zip(jax.tree.leaves(restored), jax.tree.leaves(anchor), strict=True):
    assert one.dtype == other.dtype and np.asarray(one).tobytes() == np.asarray(other).tobytes()
"""


def test_float64_is_bitwise_and_never_cast_where_jax_cannot_hold_it(tmp_path):
    _run(IN_FLOAT64, tmp_path, JAX_ENABLE_X64="1")
    narrow = jnp.ones(2)
    for wide, message in (
        (jnp.ones(4), r"like\['w'\] is float32, but the anchor .* is float64 there"),
        (np.ones(4), r"is float64 at \['w'\].*turn on jax_enable_x64"),
    ):
        with pytest.raises(TreeMismatchError, match=message):
            AnchorStore(tmp_path).restore("wide", like={"w": wide, "narrow": narrow})


TWO_PROCESSES = """
import pathlib, sys, time
import jax

directory, port, rank = sys.argv[1], sys.argv[2], int(sys.argv[3])
jax.config.update("jax_num_cpu_devices", 2)
jax.distributed.initialize(f"localhost:{port}", num_processes=2, process_id=rank)
import jax.numpy as jnp, numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P
from mas_jax.anchor import Anchor
from mas_jax.store import AnchorStore

store = AnchorStore(directory)
local = {"w": jnp.arange(16.0).reshape(4, 4)}
if rank == 0:
    store.save("birds", Anchor(local, local), objective="x", num_samples=1)
while store.tasks() != ["birds"]:
    time.sleep(0.01)
sharding = NamedSharding(Mesh(np.array(jax.devices()), ("x",)), P("x"))
like = {"w": jax.ShapeDtypeStruct((4, 4), jnp.float32, sharding=sharding)}
restored = store.restore("birds", like=like)
rows = [shard.data.tolist()[0][0] for shard in restored.params["w"].addressable_shards]
assert rows == [8.0 * rank, 8.0 * rank + 4.0], rows
try:
    store.save("scenes", restored, objective="x", num_samples=1)
except ValueError as error:
    assert "spread over several processes" in str(error), error
else:
    raise AssertionError("half an anchor was saved")
"""


def test_one_process_of_a_program_saves_and_each_restores_its_part(tmp_path):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = str(free.getsockname()[1])
    command = [sys.executable, "-c", TWO_PROCESSES, str(tmp_path), port]
    processes = [
        subprocess.Popen([*command, str(rank)], stderr=subprocess.PIPE, text=True)
        for rank in range(2)
    ]
    for process in processes:
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
    assert not list(pathlib.Path(tmp_path).glob("*tmp*"))
