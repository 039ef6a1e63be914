"""Objectives: outputs of one sample -> a scalar whose gradient is measured."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import mas_jax
from tests import oracle

pytestmark = pytest.mark.usefixtures("strict_dtypes")

OBJECTIVES = {
    "squared_l2": mas_jax.squared_l2_norm,
    "l2": mas_jax.l2_norm,
    "l1": mas_jax.l1_norm,
}
FINITE = st.floats(-1e3, 1e3, width=32, allow_subnormal=False)

each_objective = pytest.mark.parametrize("name", OBJECTIVES)


@each_objective
@given(values=st.lists(FINITE, min_size=4, max_size=4))
def test_value_agrees_with_the_oracle(name, values):
    outputs = {"a": jnp.asarray(values[:3], jnp.float32), "b": jnp.asarray(values[3], jnp.float32)}
    expected = oracle.objective_value(name, np.asarray(values))
    # XLA flushes to 0 what is smaller, and squares of small numbers are.
    tiny = np.finfo(np.float32).tiny
    np.testing.assert_allclose(OBJECTIVES[name](outputs), expected, rtol=1e-6, atol=tiny)
    assert OBJECTIVES[name](outputs) >= 0


@each_objective
@given(values=st.lists(FINITE.filter(lambda x: abs(x) > 1e-3 or x == 0), min_size=4, max_size=4))
def test_gradient_agrees_with_the_oracle(name, values):
    gradient = jax.grad(OBJECTIVES[name])(jnp.asarray(values, jnp.float32))
    # At an exact 0 the derivative of |F| is 0 in both.
    expected = oracle.objective_gradient(name, np.asarray(values))
    np.testing.assert_allclose(gradient, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "value", "gradient"),
    # F = (3, −4): ‖F‖² = 25 with gradient 2F; ‖F‖ = 5 with F/5; |3| + |−4| = 7 with sign F.
    [("squared_l2", 25.0, [6.0, -8.0]), ("l2", 5.0, [0.6, -0.8]), ("l1", 7.0, [1.0, -1.0])],
)
def test_three_four_five(name, value, gradient):
    got, got_gradient = jax.value_and_grad(OBJECTIVES[name])(jnp.array([3.0, -4.0]))
    assert got == value
    np.testing.assert_allclose(got_gradient, gradient, rtol=1e-6)


@each_objective
def test_gradient_at_zero_outputs_is_zero_and_not_nan(name):
    np.testing.assert_array_equal(jax.grad(OBJECTIVES[name])(jnp.zeros(3)), np.zeros(3))


@each_objective
def test_integer_and_boolean_outputs_are_left_out(name):
    floats = jnp.array([3.0, 4.0])
    outputs = {"logits": floats, "class": jnp.array(7), "sure": jnp.array([True])}
    assert OBJECTIVES[name](outputs) == OBJECTIVES[name](floats)


@each_objective
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float32])
def test_is_computed_in_float32_whatever_the_outputs(name, dtype):
    # 300² = 90 000 is beyond float16; the 256 ones beside it are lost in a bfloat16 sum, which
    # has 8 bits. All the entries themselves are exact in both types.
    outputs = jnp.concatenate([jnp.full(1, 300.0), jnp.ones(256)]).astype(dtype)
    value = OBJECTIVES[name](outputs)
    assert value.dtype == jnp.float32
    assert value.shape == ()
    expected = {"squared_l2": 90256.0, "l2": np.sqrt(90256.0), "l1": 556.0}[name]
    np.testing.assert_allclose(value, expected, rtol=1e-7)


@each_objective
def test_keeps_float64(name):
    with jax.enable_x64(True):
        value = OBJECTIVES[name](jnp.array([1.0, 1e-12], jnp.float64))
        assert value.dtype == jnp.float64
        assert jax.grad(OBJECTIVES[name])(jnp.ones(2, jnp.float64)).dtype == jnp.float64


@each_objective
def test_complex_outputs_count_by_modulus(name):
    # |3 + 4i| = 5.
    value = OBJECTIVES[name](jnp.array([3.0 + 4.0j]))
    assert value.dtype == jnp.float32
    np.testing.assert_allclose(value, {"squared_l2": 25.0, "l2": 5.0, "l1": 5.0}[name], rtol=1e-6)


@each_objective
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_non_finite_outputs_give_a_non_finite_value(name, bad):
    assert not jnp.isfinite(OBJECTIVES[name](jnp.array([1.0, bad])))


@each_objective
def test_jit_changes_nothing_and_compiles_once(name):
    objective = jax.jit(lambda outputs: OBJECTIVES[name](outputs))
    for seed in range(3):
        outputs = jnp.asarray(np.random.default_rng(seed).normal(size=5), jnp.float32)
        np.testing.assert_allclose(objective(outputs), OBJECTIVES[name](outputs), rtol=1e-6)
    assert objective._cache_size() == 1


@each_objective
@pytest.mark.parametrize("outputs", [{}, {"class": jnp.array(3)}])
def test_outputs_without_floating_leaf_are_refused(name, outputs):
    with pytest.raises(TypeError, match="outputs have no floating-point leaf"):
        OBJECTIVES[name](outputs)
