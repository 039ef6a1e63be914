"""Uniform importance: the L2 baseline's Ω."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import mas_jax
from mas_jax import consolidate, uniform_importance

pytestmark = pytest.mark.usefixtures("strict_dtypes")

PARAMS = {
    "trunk": {"w": jnp.full((2, 3), 5.0, jnp.bfloat16), "b": np.zeros(3, np.float32)},
    "head": jnp.ones(2),
    "steps": jnp.arange(2),
    "key": jax.random.key(0),
}


@pytest.mark.parametrize(
    "mask", [{"trunk": True, "head": False, "steps": True, "key": True}, lambda _: {
        "trunk": True, "head": False, "steps": False, "key": False}]
)  # fmt: skip
def test_it_is_one_where_the_mask_and_the_dtype_let_it(mask):
    omega = uniform_importance(PARAMS, mask)
    assert all(isinstance(omega[name], optax.MaskedNode) for name in ("head", "steps", "key"))
    np.testing.assert_array_equal(omega["trunk"]["w"], np.ones((2, 3)))
    np.testing.assert_array_equal(omega["trunk"]["b"], np.ones(3))
    assert {leaf.dtype for leaf in jax.tree.leaves(omega)} == {jnp.dtype(jnp.float32)}
    np.testing.assert_array_equal(uniform_importance(PARAMS)["head"], np.ones(2))


def test_its_penalty_is_the_squared_distance():
    # (λ/2) ‖θ − θ*‖² = 0.25 · (3² + 4²) = 6.25.
    start = {"w": jnp.zeros(2)}
    anchor = consolidate(None, start, uniform_importance(start))
    assert mas_jax.penalty({"w": jnp.array([3.0, 4.0])}, anchor, 0.5) == 6.25


def test_float64_is_kept():
    with jax.enable_x64(True):
        assert uniform_importance({"w": jnp.ones(1)})["w"].dtype == jnp.float64


def test_under_jit():
    omega = jax.jit(lambda params: uniform_importance({"w": params}))(jnp.zeros(2))
    np.testing.assert_array_equal(omega["w"], [1.0, 1.0])


@pytest.mark.parametrize(
    ("params", "mask", "error", "message"),
    [
        ({"w": jnp.ones(1)}, {"w": False}, ValueError, "no leaf of params can carry importance: "),
        ({"n": jnp.arange(1)}, None, ValueError, "wanted at least one floating-point leaf.*1 leav"),
        ({}, None, ValueError, "got none among 0 leaves"),
        ({"w": jnp.ones(1, jnp.complex64)}, None, TypeError, r"params\['w'\] is complex64"),
        ({"w": jnp.ones(1)}, {"v": True}, mas_jax.TreeMismatchError, r"mask has \['v'\]"),
    ],
)
def test_errors(params, mask, error, message):
    with pytest.raises(error, match=message):
        uniform_importance(params, mask)
