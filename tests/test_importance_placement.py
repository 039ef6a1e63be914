"""The estimator where the data and the parameters lie on devices of the user's choice."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np

import mas_jax
from mas_jax import accumulation

MESH = """
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
import mas_jax

def apply_fn(params, x):
    return jnp.tanh(x @ params["in"]) @ params["out"]

rng = np.random.default_rng(0)
params = {"in": rng.normal(size=(8, 16)), "out": rng.normal(size=(16, 2))}
params = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), params)
x = jnp.asarray(rng.normal(size=(64, 8)), jnp.float32)
expected = mas_jax.estimate_importance(apply_fn, params, [x])

for axis_type in (AxisType.Auto, AxisType.Explicit):
    mesh = jax.make_mesh((8,), ("data",), axis_types=(axis_type,))
    spread = jax.device_put(x, NamedSharding(mesh, P("data")))
    replicated = jax.device_put(params, NamedSharding(mesh, P()))
    for microbatch_size in (None, 16, 24, 64):
        with jax.set_mesh(mesh):
            omega = mas_jax.estimate_importance(
                apply_fn, replicated, [spread, spread], microbatch_size=microbatch_size
            )
        for name in params:
            np.testing.assert_allclose(omega[name], expected[name], rtol=1e-5)
            assert omega[name].sharding.is_fully_replicated

# Parameters sharded over another axis than the batch: the state is sharded like them.
mesh = jax.make_mesh((4, 2), ("data", "model"), axis_types=(AxisType.Auto,) * 2)
spread = jax.device_put(x, NamedSharding(mesh, P("data")))
split = {
    "in": jax.device_put(params["in"], NamedSharding(mesh, P(None, "model"))),
    "out": jax.device_put(params["out"], NamedSharding(mesh, P("model", None))),
}
state = mas_jax.importance_estimator(apply_fn).init(split)
assert state.sums.value[0]["in"].sharding == split["in"].sharding
omega = mas_jax.estimate_importance(apply_fn, split, [spread])
for name in params:
    np.testing.assert_allclose(omega[name], expected[name], rtol=1e-5)
print("agree on", jax.device_count(), "devices")
"""


def test_sharded_batches_and_parameters_give_the_same_importance() -> None:
    flags = "--xla_force_host_platform_device_count=8"
    done = subprocess.run(
        [sys.executable, "-c", MESH],
        env={**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
        capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip() == "agree on 8 devices"


def apply_fn(params, x):
    return x @ params["w"]


def test_committed_parameters_compile_once() -> None:
    # Restored by Orbax, say: an array that has been put on a device by name.
    params = jax.device_put({"w": jnp.ones((4, 2))}, jax.devices()[0])
    estimator = mas_jax.importance_estimator(apply_fn)
    update = jax.jit(estimator.update)
    state = estimator.init(params)
    for _ in range(3):
        state = update(state, params, np.ones((5, 4), np.float32))
    assert update._cache_size() == 1


def test_eager_updates_compile_once() -> None:
    estimator = mas_jax.importance_estimator(apply_fn, microbatch_size=2)
    params, state = {"w": jnp.ones((4, 2))}, None
    for _ in range(3):
        state = estimator.update(
            state or estimator.init(params), params, np.ones((5, 4), np.float32)
        )
        compiled = accumulation.add_batch._cache_size()
    estimator.update(state, params, np.ones((5, 4), np.float32))
    assert accumulation.add_batch._cache_size() == compiled
