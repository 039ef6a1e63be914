"""Strict numerics, no network, and the small networks that several test files share."""

import itertools
import os
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest

# A silent broadcast is a bug everywhere. A silent promotion of dtypes is one in the library: its
# tests ask for `strict_dtypes`, which optax's Adam and schedules would not survive.
jax.config.update("jax_numpy_rank_promotion", "raise")

# Tests compile the same programs again and again, which took more than half of their time. Each
# pytest process has a cache of its own, since jax does not write its files atomically.
PROGRAMS = tempfile.mkdtemp(prefix="mas_jax_tests_")
jax.config.update("jax_compilation_cache_dir", PROGRAMS)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)

# Compilation makes a first example slow, and a failure must come back in the next run.
hypothesis.settings.register_profile(
    "mas_jax", deadline=None, derandomize=True, database=None, max_examples=15
)
hypothesis.settings.load_profile("mas_jax")
# `--hypothesis-profile few`, where the same tests pass on other versions with more.
hypothesis.settings.register_profile(
    "few", hypothesis.settings.get_profile("mas_jax"), max_examples=2
)


def pytest_unconfigure() -> None:
    """Remove the cache of programs."""
    shutil.rmtree(PROGRAMS, ignore_errors=True)


class Mlp(NamedTuple):
    """A two-layer tanh network, seven samples for it, and the same parameters in float64."""

    apply_fn: Callable[[Any, Any], jax.Array]
    params: Any
    inputs: np.ndarray  # (7, 4) float32
    params64: Any


@pytest.fixture(scope="session", autouse=True)
def no_network() -> Iterator[None]:
    """Refuse every connection that would leave this machine."""
    connect = socket.socket.connect

    def connect_locally(self: socket.socket, address: Any) -> None:
        if self.family != socket.AF_UNIX and address[0] not in ("127.0.0.1", "::1", "localhost"):
            raise OSError(f"tests use no network, but one connects to {address}")
        connect(self, address)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", connect_locally)
        yield


@pytest.fixture(scope="module")
def strict_dtypes() -> Iterator[None]:
    """Refuse every implicit promotion of dtypes."""
    with jax.numpy_dtype_promotion("strict"):
        yield


@pytest.fixture(scope="session")
def mlp() -> Mlp:
    """A 4-5-3 network with biases."""
    rng = np.random.default_rng(0)
    sizes = [4, 5, 3]
    params64 = {
        f"layer{i}": {
            "kernel": rng.normal(size=(rows, columns)) / np.sqrt(rows),
            "bias": 0.1 * rng.normal(size=columns),
        }
        for i, (rows, columns) in enumerate(itertools.pairwise(sizes))
    }
    # The float64 copy holds the float32 numbers, so that only the arithmetic differs.
    params = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), params64)
    params64 = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
    inputs = rng.normal(size=(7, 4)).astype(np.float32)
    return Mlp(mlp_apply, params, inputs, params64)


def mlp_apply(params: Any, x: Any) -> jax.Array:
    """Dense layers with tanh between them, as oracle.forward computes them."""
    names = sorted(params)
    for name in names:
        x = x @ params[name]["kernel"]
        # reshape, since rank promotion is an error here.
        x = x + params[name]["bias"].reshape(1, -1)
        x = jnp.tanh(x) if name != names[-1] else x
    return x
