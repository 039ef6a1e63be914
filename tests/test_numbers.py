"""Numbers at their edges: a billion samples, narrow and wide types, NaN, infinity, −0, nothing.

What is narrow is compared with the same formula in float64 NumPy, which imports nothing of ours.
"""

import math

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import optax
import pytest

import mas_jax

ENGINES = ["fused", "vmap"]


def linear(params, x):
    return x @ params["w"]


def omega_of_linear(w, x, weights=None):
    """Ω of ‖x W‖² in float64: the mean over samples of |2 xᵀ (x W)|, sample by sample."""
    w, x = np.asarray(w, np.float64), np.asarray(x, np.float64)
    weights = np.ones(len(x)) if weights is None else np.asarray(weights, np.float64)
    total = sum(
        weight * np.abs(2 * np.outer(row, row @ w)) for row, weight in zip(x, weights, strict=True)
    )
    return total / weights.sum()


# A billion samples.


def test_a_billion_samples_agree_with_float64():
    # 10⁶ updates, each of four different samples that count 250 times: Σw = 10⁹. The samples
    # differ from update to update, by factors from a table that float64 sums exactly. As the
    # rounding of a compensated sum does not grow with its length (test_compensated), nothing but
    # the weights tells this from 10⁹ samples one by one, which no test has the time for.
    updates, table = 10**6, np.random.default_rng(0).uniform(0.5, 2, 1000).astype(np.float32)
    x = np.random.default_rng(1).normal(size=(4, 3)).astype(np.float32)
    w = np.array([[0.1, 0.3], [-0.7, 0.2], [0.01, 0.9]], np.float32)
    estimator = mas_jax.importance_estimator(linear)

    @jax.jit
    def stream(state, params, batch, factors):
        def body(number, state):
            rows = batch * factors[number % len(factors)]
            return estimator.update(state, params, rows, jnp.full(4, 250.0))

        return jax.lax.fori_loop(0, updates, body, state)

    params = {"w": jnp.asarray(w)}
    state = stream(estimator.init(params), params, x, table)
    # g is quadratic in x, so that a factor c multiplies it by c²; c x is rounded to float32.
    scaled = (x[None] * table[:, None, None]).reshape(-1, 3)
    np.testing.assert_allclose(
        estimator.finalize(state)["w"], omega_of_linear(w, scaled), rtol=1e-6
    )
    (sums, weight), (residue, residual_weight) = state.sums
    assert float(weight) + float(residual_weight) == 1e9
    wanted = 1e9 * omega_of_linear(w, scaled)
    np.testing.assert_allclose(np.float64(sums["w"]) + np.float64(residue["w"]), wanted, rtol=1e-6)


@pytest.mark.parametrize("term", [1 / 3, 0.1])
def test_a_billion_terms_one_by_one_leave_the_last_digit_alone(term):
    # From where 10⁹ − 10⁶ terms have brought the sum, as float64 knows it, the last million are
    # added one by one: each is a 10⁻⁹ of the sum, below half a digit of float32.
    term = np.float32(term)
    before = (10**9 - 10**6) * np.float64(term)
    value = np.float32(before)
    start = jnp.asarray(value), jnp.asarray(np.float32(before - np.float64(value)))
    params = {"w": jnp.ones(1)}
    estimator = mas_jax.importance_estimator(lambda p, x: jnp.sqrt(x * p["w"].reshape(1, 1)))
    state = estimator.init(params)

    # ‖√(x w)‖² = x w, so that g = x: the terms are the samples themselves.
    @jax.jit
    def stream(state):
        def body(_, state):
            return estimator.update(state, params, jnp.full((1, 1), term))

        return jax.lax.fori_loop(0, 10**6, body, state)

    sums = state.sums._replace(
        value=({"w": start[0].reshape(1)}, jnp.float32(10**9 - 10**6)),
        residue=({"w": start[1].reshape(1)}, jnp.float32(0)),
    )
    end = stream(state._replace(sums=sums))
    (total, weight), (residue, residual_weight) = end.sums
    assert float(weight) + float(residual_weight) == 1e9
    got = float(total["w"][0]) + float(residue["w"][0])
    # √ and its square round: each term to within 2⁻²², which is not the sum's doing.
    assert got == pytest.approx(1e9 * np.float64(term), rel=1e-9)


# Narrow types.


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_narrow_models_agree_with_float64_to_their_own_digits(engine, dtype):
    rng = np.random.default_rng(2)
    w, x = jnp.asarray(rng.normal(size=(5, 3)), dtype), jnp.asarray(rng.normal(size=(9, 5)), dtype)
    omega = mas_jax.estimate_importance(linear, {"w": w}, [x], engine=engine)["w"]
    assert omega.dtype == jnp.float32
    # A gradient is a product of three rounded numbers, each off by half a digit.
    digit = float(jnp.finfo(dtype).eps)
    np.testing.assert_allclose(omega, omega_of_linear(w, x), rtol=4 * digit, atol=4 * digit)


@pytest.mark.parametrize("engine", ENGINES)
def test_float16_outputs_whose_square_overflows_float16_are_measured_in_float32(engine):
    # F = 300 and F² = 90,000, beyond the largest float16, 65,504. g = 2 F x = 600.
    params = {"w": jnp.full((1, 1), 300, jnp.float16)}
    omega = mas_jax.estimate_importance(
        linear, params, [jnp.ones((2, 1), jnp.float16)], engine=engine
    )
    np.testing.assert_array_equal(omega["w"], [[600]])


@pytest.mark.parametrize("engine", ENGINES)
def test_float16_outputs_that_overflow_are_an_error_that_names_the_sample(engine):
    params = {"w": jnp.full((1, 1), 60_000, jnp.float16)}
    x = jnp.array([[1], [2]], jnp.float16)  # F = 120,000 = ∞ in float16
    with pytest.raises(mas_jax.NonFiniteError, match="sample 1"):
        mas_jax.estimate_importance(linear, params, [x], engine=engine)


def test_float16_gradients_that_overflow_are_summed_in_float32_or_name_their_leaf():
    # F = 2 · 300 = 600 is a float16; g = 2 F x = 360,000 is none. The fused engine multiplies in
    # float32; the reference has a gradient per sample, in the parameter's own type.
    params = {"w": jnp.full((1, 1), 2, jnp.float16)}
    x = jnp.full((1, 1), 300, jnp.float16)
    omega = mas_jax.estimate_importance(linear, params, [x], engine="fused")
    np.testing.assert_array_equal(omega["w"], [[360_000]])
    with pytest.raises(mas_jax.NonFiniteError, match=r"importance\['w'\].* or overflowed although"):
        mas_jax.estimate_importance(linear, params, [x], engine="vmap")


# Wide types.


@pytest.mark.parametrize("engine", ENGINES)
def test_in_float64_mode_a_sum_beyond_float32_is_exact(engine):
    # Beside 2⁵³ · 0.5 a float32 sum, compensated or not, would not keep the 1.
    with jax.enable_x64(True):
        params = {"w": jnp.ones((1, 1), jnp.float64)}
        big = math.sqrt(2.0**50)
        x = np.array([[big], [1.0]])
        omega = mas_jax.estimate_importance(linear, params, [x], engine=engine)["w"]
        assert omega.dtype == jnp.float64
        np.testing.assert_array_equal(omega, [[(2 * 2.0**50 + 2) / 2]])
        anchor = mas_jax.consolidate(None, params, {"w": omega})
        assert anchor.importance["w"].dtype == jnp.float64
        np.testing.assert_array_equal(
            mas_jax.penalty({"w": params["w"] + 1}, anchor, 2.0), 2.0**50 + 1
        )


# Frozen parameters of types that carry no importance, or hardly any digits.


@pytest.mark.parametrize("engine", ENGINES)
def test_int8_frozen_parameters_carry_none_and_are_computed_with(engine):
    # The usual quantised layer: W ≈ scale · q. Only the head behind it carries importance.
    q = np.array([[3, -2], [1, 127]], np.int8)
    head = np.array([[0.5], [-0.25]], np.float32)
    x = np.random.default_rng(3).normal(size=(5, 2)).astype(np.float32)
    params = {"q": jnp.asarray(q), "scale": jnp.float32(0.01), "head": jnp.asarray(head)}

    def apply_fn(p, x):
        return x @ (p["scale"] * p["q"].astype(jnp.float32)) @ p["head"]

    mask = {"q": True, "scale": False, "head": True}
    omega = mas_jax.estimate_importance(apply_fn, params, [x], mask=mask, engine=engine)
    assert omega["q"] == omega["scale"] == optax.MaskedNode()
    features = x.astype(np.float64) @ (np.float64(np.float32(0.01)) * q)
    np.testing.assert_allclose(omega["head"], omega_of_linear(head, features), rtol=1e-5)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("dtype", [jnp.float8_e4m3fn, jnp.float8_e5m2])
def test_fp8_parameters_give_float32_importance_frozen_or_not(engine, dtype):
    w = jnp.array([[1.5, -0.5], [0.25, 2.0]], dtype)  # all of them exact in both types
    head = np.array([[0.5], [-0.25]], np.float32)
    x = np.array([[1.0, 2.0], [-0.5, 1.0], [0.25, -1.0]], np.float32)
    params = {"w": w, "head": jnp.asarray(head)}

    def apply_fn(p, x):
        return x @ p["w"].astype(jnp.float32) @ p["head"]

    frozen = mas_jax.estimate_importance(
        apply_fn, params, [x], mask={"w": False, "head": True}, engine=engine
    )
    assert frozen["w"] == optax.MaskedNode()
    features = x.astype(np.float64) @ np.asarray(w, np.float64)
    np.testing.assert_allclose(frozen["head"], omega_of_linear(head, features), rtol=1e-6)
    omega = mas_jax.estimate_importance(apply_fn, params, [x], engine=engine)
    assert omega["w"].dtype == jnp.float32
    # ∂/∂W of (x W h)² is 2 F x hᵀ.
    outputs = features @ np.float64(head)
    wanted = np.mean(
        [np.abs(2 * f * np.outer(row, head)) for f, row in zip(outputs, x, strict=True)], axis=0
    )
    # The cast's backward rounds a sample's gradient to fp8, which has two or three bits.
    np.testing.assert_allclose(omega["w"], wanted, rtol=2 * float(jnp.finfo(dtype).eps))


# NaN and infinity.


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("engine", ENGINES)
def test_a_parameter_that_is_no_number_is_an_error_and_never_skipped_to_a_wrong_mean(engine, bad):
    params = {"w": jnp.array([[1.0], [bad]])}
    x = np.array([[1.0, 1.0], [1.0, 0.5]], np.float32)
    with pytest.raises(mas_jax.NonFiniteError, match="sample 0"):
        mas_jax.estimate_importance(linear, params, [x], engine=engine)
    with pytest.raises(ValueError, match="at least one sample that counts, got 2 samples with a"):
        mas_jax.estimate_importance(linear, params, [x], engine=engine, on_nonfinite="skip")


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_importance_that_is_no_number_stops_before_it_is_an_anchor_or_a_file(tmp_path, bad):
    params = {"w": jnp.ones(2)}
    omega = {"w": jnp.array([1.0, bad])}
    with pytest.raises(mas_jax.NonFiniteError, match=r"importance\['w'\] has NaN or infinite"):
        mas_jax.consolidate(None, params, omega)
    anchor, store = mas_jax.Anchor(params, omega), mas_jax.AnchorStore(tmp_path / "store")
    with pytest.raises(mas_jax.NonFiniteError, match=r"importance\['w'\] has NaN or infinite"):
        store.save("birds", anchor, objective="l2_norm", num_samples=1)
    with pytest.raises(mas_jax.NonFiniteError, match=r"importance\['w'\] has NaN or infinite"):
        mas_jax.with_anchor(mas_jax.anchor_penalty(1.0).init(params), anchor)
    assert not store.directory.exists()


# Zeros, scalars, nothing.


@pytest.mark.parametrize("engine", ENGINES)
def test_minus_zero_counts_as_zero(engine):
    params = {"w": jnp.array([[-0.0], [-0.0]])}
    x = np.array([[1.0, -0.0], [-2.0, -0.0]], np.float32)
    omega = mas_jax.estimate_importance(linear, params, [x], engine=engine)["w"]
    np.testing.assert_array_equal(omega, np.zeros((2, 1)))
    assert not np.signbit(omega).any()
    anchor = mas_jax.consolidate(None, params, {"w": jnp.full((2, 1), -0.0)})
    np.testing.assert_array_equal(mas_jax.penalty({"w": jnp.ones((2, 1))}, anchor, 1.0), 0)


@pytest.mark.parametrize("engine", ENGINES)
def test_scalar_and_zero_size_leaves_beside_others_change_nothing(engine):
    # F = s (x W) + x b: a scalar leaf, and two without entries, which an output of none adds.
    params = {
        "w": jnp.array([[0.5], [-1.5]]),
        "s": jnp.float32(2.0),
        "none": jnp.zeros((2, 0)),
        "empty": jnp.zeros((0,)),
    }
    x = np.array([[1.0, 2.0], [3.0, -1.0], [0.5, 0.25]], np.float32)

    def apply_fn(p, x):
        none = jnp.sum(x @ p["none"], axis=-1, keepdims=True) + jnp.sum(p["empty"])
        return p["s"] * (x @ p["w"]) + none

    omega = mas_jax.estimate_importance(apply_fn, params, [x], engine=engine)
    assert omega["none"].shape == (2, 0)
    assert omega["empty"].shape == (0,)
    z = np.float64(x) @ np.float64(params["w"])
    np.testing.assert_allclose(omega["s"], np.mean(np.abs(2 * 2 * z * z)), rtol=1e-6)
    np.testing.assert_allclose(omega["w"], 4 * omega_of_linear(params["w"], x), rtol=1e-6)
    anchor = mas_jax.consolidate(None, params, omega)
    assert float(mas_jax.penalty(params, anchor, 1.0)) == 0
    moved = jax.tree.map(lambda leaf: leaf + 1, params)
    wanted = 0.5 * (np.float64(omega["w"]).sum() + float(omega["s"]))
    np.testing.assert_allclose(mas_jax.penalty(moved, anchor, 1.0), wanted, rtol=1e-6)


@pytest.mark.parametrize("params", [{}, (), {"a": {}}, {"key": 1}])
def test_trees_that_cover_nothing_are_refused_where_something_is_to_be_measured(params):
    with pytest.raises(ValueError, match="no leaf of params can carry importance"):
        mas_jax.estimate_importance(lambda _, x: x, params, [np.ones((2, 1), np.float32)])


@pytest.mark.parametrize("params", [{}, (), {"a": {}}])
def test_trees_without_leaves_cost_nothing_and_move_nothing(params):
    anchor = mas_jax.Anchor(params, params)
    assert float(mas_jax.penalty(params, anchor, 1.0)) == 0
    tx = mas_jax.anchor_penalty(1.0)
    state = mas_jax.with_anchor(tx.init(params), anchor)
    assert tx.update(params, state, params)[0] == params


# Few samples, and numbers of them that nothing divides.


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("samples", [1, 7])
@pytest.mark.parametrize("microbatch_size", [None, 5])
def test_any_number_of_samples_agrees_with_float64(engine, samples, microbatch_size):
    rng = np.random.default_rng(samples)
    w = rng.normal(size=(3, 2)).astype(np.float32)
    x = rng.normal(size=(samples, 3)).astype(np.float32)
    weights = rng.uniform(0.5, 3, samples).astype(np.float32)
    estimator = mas_jax.importance_estimator(linear, engine=engine, microbatch_size=microbatch_size)
    params = {"w": jnp.asarray(w)}
    for weighing in (None, weights):
        state = estimator.update(estimator.init(params), params, x, weighing)
        wanted = omega_of_linear(w, x, weighing)
        np.testing.assert_allclose(estimator.finalize(state)["w"], wanted, rtol=1e-5)


def test_narrow_types_and_edges_come_back_from_a_store_bit_for_bit(tmp_path):
    values = np.array([-0.0, 1.5, -2.0])
    kinds = ("float8_e4m3fn", "float8_e5m2", "bfloat16", "float16", "float32")
    params = {kind: jnp.asarray(values, getattr(ml_dtypes, kind, kind)) for kind in kinds}
    importance = {kind: jnp.array([-0.0, 1e-45, 3e38], jnp.float32) for kind in kinds}
    store = mas_jax.AnchorStore(tmp_path)
    store.save("edges", mas_jax.Anchor(params, importance), objective="l2_norm", num_samples=1)
    restored = store.restore("edges", like=params)
    for got, wanted in ((restored.params, params), (restored.importance, importance)):
        for kind in kinds:
            assert got[kind].dtype == wanted[kind].dtype
            assert np.asarray(got[kind]).tobytes() == np.asarray(wanted[kind]).tobytes()
