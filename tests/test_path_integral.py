"""SI: importance along the path of training, whatever the optimizer."""

import math

import flax.serialization
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from flax.training.train_state import TrainState
from hypothesis import given
from hypothesis import strategies as st

import mas_jax
from mas_jax import (
    Anchor,
    PathState,
    anchor_penalty,
    consolidate,
    path_importance,
    path_integral,
    restart_path,
    with_anchor,
)
from tests import oracle_anchors

START = [1.5, -2.0, 0.3, 3.0]
OPTIMIZERS = {
    "sgd": (lambda: optax.sgd(0.1), lambda: oracle_anchors.sgd(0.1)),
    "momentum": (
        lambda: optax.sgd(0.1, momentum=0.9),
        lambda: oracle_anchors.sgd(0.1, momentum=0.9),
    ),
    "adam": (lambda: optax.adam(0.1), lambda: oracle_anchors.adam(0.1)),
}

each_optimizer = pytest.mark.parametrize("name", OPTIMIZERS)


def params_of(values=START, dtype=None):
    values = jnp.asarray(values, dtype or jnp.float32)
    return {"a": values[:1], "b": values[1:]}


def flat(tree):
    return np.concatenate([np.asarray(tree[name], np.float64) for name in ("a", "b")])


def loss(params):
    """Each parameter on its own: cos θ + ½ (θ − 1)²."""
    return sum(jnp.sum(jnp.cos(p) + 0.5 * jnp.square(p - 1.0)) for p in params.values())


def slope(theta):
    return -math.sin(theta) + theta - 1.0


def train(tx, params, state, steps, objective=loss):
    """(params, state) after compiled steps, all of one compilation."""

    @jax.jit
    def step(params, state):
        updates, state = tx.update(jax.grad(objective)(params), state, params)
        return optax.apply_updates(params, updates), state

    for _ in range(steps):
        params, state = step(params, state)
    assert step._cache_size() <= 1
    return params, state


def omega_of(state):
    """ω itself."""
    (found,) = (
        node
        for node in jax.tree.leaves(state, is_leaf=lambda node: isinstance(node, PathState))
        if isinstance(node, PathState)
    )
    return jax.tree.map(jnp.add, found.path.value, found.path.residue)


# The integral.


@each_optimizer
@pytest.mark.parametrize("damping", [0.1, 1e-3])
def test_importance_agrees_with_the_oracle(name, damping):
    make, oracle_of = OPTIMIZERS[name]
    omega, end = oracle_anchors.path(slope, oracle_of, START, steps=12)
    with jax.enable_x64(True):
        start = params_of(dtype=jnp.float64)
        tx = path_integral(make())
        params, state = train(tx, start, tx.init(start), 12)
        np.testing.assert_allclose(flat(params), end, rtol=1e-10)
        np.testing.assert_allclose(flat(omega_of(state)), omega, rtol=1e-9)
        expected = oracle_anchors.damped(omega, end, START, damping)
        got = path_importance(state, params, damping)
        assert got["a"].dtype == jnp.float64
        np.testing.assert_allclose(flat(got), expected, rtol=1e-9)


@each_optimizer
def test_importance_in_float32_agrees_with_the_oracle(name):
    make, oracle_of = OPTIMIZERS[name]
    omega, end = oracle_anchors.path(slope, oracle_of, START, steps=12)
    tx = path_integral(make())
    params, state = train(tx, params_of(), tx.init(params_of()), 12)
    got = path_importance(state, params)
    assert got["a"].dtype == jnp.float32
    expected = oracle_anchors.damped(omega, end, START, 0.1)
    np.testing.assert_allclose(flat(got), expected, rtol=1e-4)


@given(rate=st.floats(1e-3, 1.5), curvature=st.floats(0.1, 1.0), steps=st.integers(1, 50))
def test_quadratic_closed_form(rate, curvature, steps):
    # Loss ½aθ², so g = aθ, Δθ = −ηaθ and θ_k = r^k θ₀ with r = 1 − ηa. Then
    # ω = Σ_k η a² θ_k² = η a² θ₀² (1 − r^2n) / (1 − r²), and since 1 − r² = ηa (2 − ηa),
    # ω = a θ₀² (1 − r^2n) / (2 − ηa): the decrease of the loss, ½ a θ₀² (1 − r^2n), times
    # 2/(2 − ηa), which is 1 for small rates.
    with jax.enable_x64(True):
        params = {"w": jnp.array(2.0)}
        tx = path_integral(optax.sgd(rate))
        state = tx.init(params)
        params, state = jax.lax.fori_loop(
            0, steps, lambda _, carry: sgd_step(tx, curvature, *carry), (params, state)
        )
        r = 1 - rate * curvature
        decrease = 0.5 * curvature * 4.0 * (1 - r ** (2 * steps))
        omega = decrease * 2 / (2 - rate * curvature)
        np.testing.assert_allclose(omega_of(state)["w"], omega, rtol=1e-9)
        moved = 2.0 * (r**steps - 1)
        expected = omega / (moved**2 + 0.1)
        np.testing.assert_allclose(path_importance(state, params)["w"], expected, rtol=1e-8)


def sgd_step(tx, curvature, params, state):
    updates, state = tx.update({"w": curvature * params["w"]}, state, params)
    return optax.apply_updates(params, updates), state


def test_at_small_rates_the_integral_is_the_decrease_of_the_loss():
    tx = path_integral(optax.sgd(1e-3))
    params, state = train(tx, params_of(), tx.init(params_of()), 2000)
    decrease = float(loss(params_of()) - loss(params))
    assert flat(omega_of(state)).sum() == pytest.approx(decrease, rel=2e-3)


def test_late_small_terms_are_not_lost():
    # A term of 1 first, then 2¹² of 2⁻¹³ · 2⁻¹³ = 2⁻²⁶: each below half the last digit of 1
    # (2⁻²⁴), yet 2⁻¹⁴ in all.
    params = {"w": jnp.zeros(1)}
    tx = path_integral(optax.identity())
    _, state = tx.update({"w": -jnp.ones(1)}, tx.init(params), params)

    def small(_, state):
        return tx.update({"w": jnp.full(1, 2.0**-13)}, state, params)[1]

    state = jax.lax.fori_loop(0, 2**12, small, state)
    # The identity's step is +g, so that ω = −Σ g².
    assert omega_of(state)["w"] == -(1 + 2.0**-14)


def test_parameters_that_led_the_loss_up_get_no_importance():
    params = params_of()
    tx = path_integral(optax.scale(0.1))  # uphill
    params, state = train(tx, params, tx.init(params), 3)
    assert (flat(omega_of(state)) < 0).all()
    np.testing.assert_array_equal(flat(path_importance(state, params)), np.zeros(4))


# The optimizer inside.


@pytest.mark.parametrize(
    "inner",
    [
        optax.sgd(0.1),
        optax.adamw(0.1),
        optax.chain(anchor_penalty(0.5), optax.clip_by_global_norm(0.1), optax.adam(0.1)),
        optax.MultiSteps(optax.adam(0.1), 2).gradient_transformation(),
        optax.lbfgs(linesearch=None),
    ],
)
def test_the_updates_are_the_optimizers_own_to_the_bit(inner):
    wrapped, params = path_integral(inner), params_of()
    state, plain = wrapped.init(params), inner.init(params)
    for _ in range(4):
        grads = jax.grad(loss)(params)
        wanted, plain = inner.update(grads, plain, params)
        got, state = wrapped.update(grads, state, params)
        jax.tree.map(np.testing.assert_array_equal, got, wanted)
        jax.tree.map(np.testing.assert_array_equal, state.inner, plain)
        params = optax.apply_updates(params, got)


def test_extra_arguments_reach_the_optimizer():
    params = params_of()
    tx = path_integral(optax.scale_by_backtracking_linesearch(5))
    grads = jax.tree.map(lambda g: -g, jax.grad(loss)(params))
    updates, _ = tx.update(
        grads, tx.init(params), params, value=loss(params), grad=grads, value_fn=loss
    )
    assert jax.tree.structure(updates) == jax.tree.structure(params)


def test_with_the_penalty_inside_the_path_is_of_the_loss_alone():
    # From θ = 1 where the loss has gradient 2 and the penalty λ Ω (θ − θ*) = 3: the step is
    # −0.1 (2 + 3), ω = 2 · 0.5 and not (2 + 3) · 0.5.
    params = {"w": jnp.ones(1)}
    tx = path_integral(optax.chain(anchor_penalty(1.0), optax.sgd(0.1)))
    anchor = Anchor({"w": jnp.zeros(1)}, {"w": jnp.full(1, 3.0)})
    state = with_anchor(tx.init(params), anchor)
    updates, state = tx.update({"w": jnp.full(1, 2.0)}, state, params)
    np.testing.assert_allclose(updates["w"], [-0.5], rtol=1e-6)
    np.testing.assert_allclose(omega_of(state)["w"], [1.0], rtol=1e-6)


def test_clipping_inside_clips_the_step_and_not_the_gradient():
    params = {"w": jnp.zeros(2)}
    tx = path_integral(optax.chain(optax.clip_by_global_norm(1.0), optax.scale(-1.0)))
    _, state = tx.update({"w": jnp.array([30.0, 40.0])}, tx.init(params), params)
    # The step is −(0.6, 0.8).
    np.testing.assert_allclose(omega_of(state)["w"], [18.0, 32.0], rtol=1e-6)


def test_multi_steps_outside_sums_mean_gradient_times_step_and_inside_the_last_alone():
    params = {"w": jnp.zeros(1)}
    sgd = optax.sgd(0.1)
    omegas = {}
    for name, tx in {
        "outside": optax.MultiSteps(path_integral(sgd), 2),
        "inside": path_integral(optax.MultiSteps(sgd, 2).gradient_transformation()),
    }.items():
        theta, state = params, tx.init(params)
        for gradient in (1.0, 3.0):
            updates, state = tx.update({"w": jnp.full(1, gradient)}, state, theta)
            theta = optax.apply_updates(theta, updates)
        np.testing.assert_allclose(theta["w"], [-0.2], rtol=1e-6)
        omegas[name] = omega_of(state)["w"]
        np.testing.assert_allclose(path_importance(state, theta)["w"], omegas[name] / 0.14, 1e-5)
    # The mean gradient is 2, the step −0.2; the last gradient is 3.
    np.testing.assert_allclose(omegas["outside"], [0.4], rtol=1e-6)
    np.testing.assert_allclose(omegas["inside"], [0.6], rtol=1e-6)


@pytest.mark.parametrize("outside", [True, False])
def test_a_step_refused_adds_nothing(outside):
    sgd, params = optax.sgd(0.1), {"w": jnp.zeros(2)}
    if outside:
        tx = optax.apply_if_finite(path_integral(sgd), 3)
    else:
        tx = path_integral(optax.apply_if_finite(sgd, 3))
    state = tx.init(params)
    for bad in (jnp.nan, jnp.inf):
        updates, state = tx.update({"w": jnp.array([1.0, bad])}, state, params)
        np.testing.assert_array_equal(updates["w"], [0.0, 0.0])
    _, state = tx.update({"w": jnp.ones(2)}, state, params)
    np.testing.assert_allclose(omega_of(state)["w"], [0.1, 0.1], rtol=1e-6)


def test_injected_hyperparameters_inside_and_outside():
    params = {"w": jnp.zeros(1)}
    inside = path_integral(optax.inject_hyperparams(optax.sgd)(0.1))
    outside = optax.inject_hyperparams(lambda rate: path_integral(optax.sgd(rate)))(0.1)
    for tx, key in ((inside, "learning_rate"), (outside, "rate")):
        update, state = jax.jit(tx.update), tx.init(params)
        for rate in (0.1, 0.5):
            injected = state.inner if isinstance(state, PathState) else state
            injected.hyperparams[key] = jnp.asarray(rate)
            _, state = update({"w": jnp.ones(1)}, state, params)
        np.testing.assert_allclose(omega_of(state)["w"], [0.6], rtol=1e-6)
        assert update._cache_size() == 1


# Which parameters.


@pytest.mark.parametrize(
    "tx",
    [
        path_integral(optax.sgd(0.1), mask={"a": True, "b": False}),
        path_integral(optax.sgd(0.1), mask=lambda params: {name: name == "a" for name in params}),
        optax.masked(path_integral(optax.sgd(0.1)), {"a": True, "b": False}),
        optax.partition(
            {"si": path_integral(optax.sgd(0.1)), "plain": optax.sgd(0.1)},
            {"a": "si", "b": "plain"},
        ),
    ],
    ids=["tree", "function", "masked", "partition"],
)
def test_parameters_left_out_are_masked_in_importance(tx):
    params = params_of()
    params, state = train(tx, params, tx.init(params), 2)
    omega = path_importance(state, params)
    assert isinstance(omega["b"], optax.MaskedNode)
    whole = path_integral(optax.sgd(0.1))
    end, everything = train(whole, params_of(), whole.init(params_of()), 2)
    np.testing.assert_allclose(omega["a"], path_importance(everything, end)["a"], rtol=1e-6)
    assert isinstance(consolidate(None, params, omega).params["b"], optax.MaskedNode)
    assert jax.tree.structure(restart_path(state, params)) == jax.tree.structure(state)


def test_two_groups_with_paths_of_their_own_give_one_importance():
    def si(rate):
        return path_integral(optax.sgd(rate))

    tx = optax.partition({"slow": si(0.1), "fast": si(0.2)}, {"a": "slow", "b": "fast"})
    params = {"a": jnp.zeros(1), "b": jnp.zeros(3)}
    _, state = tx.update({"a": jnp.ones(1), "b": jnp.ones(3)}, tx.init(params), params)
    omega = path_importance(state, params)
    np.testing.assert_allclose(omega["a"], [1.0], rtol=1e-6)  # 0.1 / ξ
    np.testing.assert_allclose(omega["b"], [2.0, 2.0, 2.0], rtol=1e-6)


def test_integers_and_keys_have_no_path():
    params = {"w": jnp.ones(1), "steps": jnp.arange(2), "key": jax.random.key(0)}
    tx = path_integral(optax.identity())
    state = tx.init(params)
    updates, state = tx.update(params, state, params)
    assert updates["key"] is params["key"]
    omega = path_importance(restart_path(state, params), params)
    assert isinstance(omega["steps"], optax.MaskedNode)
    assert isinstance(omega["key"], optax.MaskedNode)
    np.testing.assert_array_equal(omega["w"], [0.0])


# Low precision.


@pytest.mark.parametrize("jit", [False, True])
def test_bfloat16_parameters_count_the_steps_that_they_took(jit):
    # Near 1 bfloat16 has steps of 2⁻⁸ downwards, and 1 is all it sees of 1 − 2⁻¹⁰; the second
    # parameter moves by 2⁻⁶. g = 2⁻¹⁰/η and 2⁻⁶/η with η = 2⁻², in float32 sums.
    params = {"w": jnp.ones(2, jnp.bfloat16)}
    tx = path_integral(optax.sgd(0.25))

    def step(params, state):
        grads = {"w": jnp.array([2.0**-8, 2.0**-4], jnp.bfloat16)}
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    params, state = (jax.jit(step) if jit else step)(params, tx.init(params))
    assert params["w"].dtype == jnp.bfloat16
    assert omega_of(state)["w"].dtype == jnp.float32
    np.testing.assert_array_equal(omega_of(state)["w"], [0.0, 2.0**-10])
    omega = path_importance(state, params)
    assert omega["w"].dtype == jnp.float32
    np.testing.assert_allclose(omega["w"], [0.0, 2.0**-10 / (2.0**-12 + 0.1)], rtol=1e-6)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float32])
@pytest.mark.parametrize("jit", [False, True])
def test_the_steps_counted_add_up_to_the_way_gone(dtype, jit):
    # A gradient that is constant, and a power of two: ω = −Σ g Δθ is −g (θ − θ_start).
    params = start = {"w": jnp.array([0.1, 1.7, -30.0, 600.0], dtype)}
    tx = path_integral(optax.sgd(0.0731))
    state = tx.init(params)

    def step(params, state):
        updates, state = tx.update({"w": jnp.full(4, 2.0, dtype)}, state, params)
        return optax.apply_updates(params, updates), state

    step = jax.jit(step) if jit else step
    for _ in range(20):
        params, state = step(params, state)
    way = np.float64(params["w"]) - np.float64(start["w"])
    # Compiled, θ + u may be rounded once and u twice (a fused multiply-add): a digit in a step.
    slack = 20 * float(jnp.finfo(dtype).eps) * np.abs(np.float64(start["w"]))
    assert (abs(np.float64(omega_of(state)["w"]) + 2 * way) <= (2 * slack if jit else 1e-6)).all()


# Tasks in sequence.


def test_tasks_in_sequence_with_one_compilation_and_donation():
    tx = path_integral(optax.chain(anchor_penalty(2.0), optax.adam(0.1)))
    traces = []

    def step(params, state):
        traces.append(params)
        updates, state = tx.update(jax.grad(loss)(params), state, params)
        return optax.apply_updates(params, updates), state

    step = jax.jit(step, donate_argnums=(0, 1))
    params = params_of()
    state, anchor, kept = tx.init(params), None, []
    for _ in range(3):
        for _ in range(3):
            before = params, state
            params, state = step(params, state)
            assert all(leaf.is_deleted() for leaf in jax.tree.leaves(before))
        omega = path_importance(state, params)
        anchor = consolidate(anchor, params, omega)
        state = restart_path(with_anchor(state, anchor), params)
        np.testing.assert_array_equal(flat(omega_of(state)), np.zeros(4))
        np.testing.assert_array_equal(flat(state.start), flat(params))
        kept.append((omega, jax.tree.map(np.array, omega)))
    assert len(traces) == 1
    for omega, copy in kept:
        jax.tree.map(np.testing.assert_array_equal, omega, copy)


def test_a_restarted_path_is_that_of_the_next_task_alone():
    make, oracle_of = OPTIMIZERS["sgd"]
    tx = path_integral(make())
    params, state = train(tx, params_of(), tx.init(params_of()), 5)
    middle, state = params, restart_path(state, params)
    params, state = train(tx, params, state, 5)
    omega, end = oracle_anchors.path(slope, oracle_of, flat(middle), steps=5)
    expected = oracle_anchors.damped(omega, end, flat(middle), 0.1)
    np.testing.assert_allclose(flat(path_importance(state, params)), expected, rtol=1e-4)


def test_restarting_keeps_the_optimizers_own_state():
    tx = optax.chain(path_integral(optax.adam(0.1)))
    params, state = train(tx, params_of(), tx.init(params_of()), 3)
    restarted = restart_path(state, params)
    jax.tree.map(np.testing.assert_array_equal, restarted[0].inner, state[0].inner)


@pytest.mark.parametrize("committed", [True, False])
def test_restarting_keeps_dtype_and_commitment(committed):
    device = jax.devices()[0]
    params = params_of(dtype=jnp.bfloat16)
    tx = path_integral(optax.sgd(0.1))
    state = tx.init(params)
    state = jax.device_put(state, device) if committed else state
    step = jax.jit(lambda params, state: tx.update(params, state, params)[1])
    step(params, state)
    for now in (params, jax.device_put(params, device)):
        again = restart_path(state, now)
        for old, new in zip(jax.tree.leaves(state), jax.tree.leaves(again), strict=True):
            assert (old.dtype, old.committed) == (new.dtype, new.committed)
        step(params, again)
    assert step._cache_size() == 1


def test_weakly_typed_parameters_do_not_recompile():
    params = {"w": jnp.asarray(1.0)}
    tx = path_integral(optax.sgd(0.1))
    step = jax.jit(lambda params, state: tx.update(params, state, params)[1])
    state = step(params, tx.init(params))
    step(params, restart_path(state, params))
    assert step._cache_size() == 1


def test_all_of_it_under_jit_and_vmap():
    tx = path_integral(optax.sgd(0.1))

    def run(values):
        params = {"w": values}
        state = tx.init(params)
        updates, state = tx.update(params, state, params)
        params = optax.apply_updates(params, updates)
        return path_importance(state, params), omega_of(restart_path(state, params))

    values = jnp.array([[1.0, 2.0], [3.0, 4.0]])
    omega, zeros = jax.jit(jax.vmap(run))(values)
    # g = θ, Δθ = −θ/10: (θ²/10) / (θ²/100 + 0.1).
    squares = np.square(values)
    np.testing.assert_allclose(omega["w"], squares / 10 / (squares / 100 + 0.1), rtol=1e-5)
    np.testing.assert_array_equal(zeros["w"], np.zeros((2, 2)))


def test_a_flax_train_state():
    tx = path_integral(optax.chain(anchor_penalty(1.0), optax.adam(0.1)))
    state = TrainState.create(apply_fn=None, params=params_of(), tx=tx)
    step = jax.jit(lambda state: state.apply_gradients(grads=jax.grad(loss)(state.params)),
                   donate_argnums=0)  # fmt: skip
    # Its counter starts as a Python number, of which the first step makes an array.
    state = step(state)
    compiled = step._cache_size()
    for _ in range(2):
        state = step(state)
        omega = path_importance(state, state.params)
        assert flat(omega).min() > 0
        anchor = consolidate(None, state.params, omega)
        state = restart_path(with_anchor(state, anchor), state.params)
        assert isinstance(state, TrainState)
    assert step._cache_size() <= compiled + 1
    read = flax.serialization.from_bytes(state, flax.serialization.to_bytes(state))
    jax.tree.map(np.testing.assert_array_equal, read.opt_state, state.opt_state)


class Linear(nnx.Module):
    """y = x W + b."""

    def __init__(self):
        self.layer = nnx.Linear(3, 2, rngs=nnx.Rngs(0))

    def __call__(self, x):
        return self.layer(x)


def test_an_nnx_optimizer():
    model, traces = Linear(), []
    tx = path_integral(optax.chain(anchor_penalty(1.0), optax.sgd(0.1)))
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)

    @nnx.jit
    def step(model, optimizer, x):
        traces.append(x.shape)
        optimizer.update(model, nnx.grad(lambda model: jnp.sum(model(x)))(model))

    x = jnp.ones((4, 3))
    for _ in range(2):
        step(model, optimizer, x)
        params = nnx.state(model, nnx.Param)
        omega = path_importance(optimizer.opt_state, params)
        # The gradient of the sum is Σ x = 4 and Δθ = −0.4 (the anchor is where θ is).
        for leaf in jax.tree.leaves(omega):
            np.testing.assert_allclose(leaf, 1.6 / (0.16 + 0.1), rtol=1e-4)
        anchor = consolidate(None, params, omega)
        state = with_anchor(optimizer.opt_state, anchor)
        optimizer.opt_state = restart_path(state, params)
    assert len(traces) == 1


# Errors.


@pytest.mark.parametrize("damping", [0.0, -1.0, math.nan, math.inf])
def test_damping_that_bounds_nothing_is_an_error(damping):
    params = params_of()
    state = path_integral(optax.sgd(0.1)).init(params)
    with pytest.raises(ValueError, match="damping must be a finite number above 0, got"):
        path_importance(state, params, damping)


@pytest.mark.parametrize("use", [path_importance, restart_path])
def test_a_state_without_a_path_is_an_error(use):
    params = params_of()
    with pytest.raises(ValueError, match=r"no path integral: wrap the optimizer in mas_jax.path_"):
        use(optax.adam(0.1).init(params), params)


@pytest.mark.parametrize("use", [path_importance, restart_path])
@pytest.mark.parametrize(
    ("params", "error", "message"),
    [
        (
            {"a": jnp.ones(1)},
            mas_jax.TreeMismatchError,
            r"params has no leaf \['b'\], which the path integral has; was it made for another",
        ),
        (
            {"a": jnp.ones(1), "b": jnp.ones(2)},
            mas_jax.TreeMismatchError,
            r"params\['b'\] has shape \(2,\), but the path integral has \(3,\) there",
        ),
        (
            {"a": jnp.ones(1), "b": jnp.ones(3, jnp.bfloat16)},
            mas_jax.TreeMismatchError,
            r"params\['b'\] is bfloat16, but the path integral is float32 there",
        ),
        (
            {"a": jnp.ones(1), "b": jnp.array([1.0, np.nan, 1.0])},
            mas_jax.NonFiniteError,
            r"params\['b'\] has NaN or infinite entries; did training diverge",
        ),
    ],
)
def test_params_of_another_model_are_an_error(use, params, error, message):
    state = path_integral(optax.sgd(0.1)).init(params_of())
    with pytest.raises(error, match=message):
        use(state, params)


def test_a_parameter_that_came_later_is_an_error():
    state = path_integral(optax.sgd(0.1)).init(params_of())
    grown = {**params_of(), "c": jnp.ones(1)}
    with pytest.raises(
        mas_jax.TreeMismatchError, match=r"path integral has no leaf \['c'\], which"
    ):
        path_importance(state, grown)


def test_a_path_through_nan_is_an_error():
    params = {"w": jnp.ones(1)}
    tx = path_integral(optax.sgd(0.1))
    _, state = tx.update({"w": jnp.full(1, jnp.nan)}, tx.init(params), params)
    with pytest.raises(mas_jax.NonFiniteError, match=r"path integral\['w'\] has NaN or infinite"):
        path_importance(state, params)


def test_two_paths_of_one_parameter_are_an_error():
    params = params_of()
    tx = optax.chain(path_integral(optax.sgd(0.1)), path_integral(optax.identity()))
    with pytest.raises(ValueError, match=r"two path integrals in .* hold \['a'\]: wrap the optim"):
        path_importance(tx.init(params), params)


def test_update_needs_params_of_the_same_model():
    params = params_of()
    tx = path_integral(optax.sgd(0.1))
    state = tx.init(params)
    with pytest.raises(ValueError, match=r"path integral needs the parameters: call tx.update\(gr"):
        tx.update(params, state)
    fewer = {"a": params["a"]}
    with pytest.raises(mas_jax.TreeMismatchError, match=r"params has no leaf \['b'\]"):
        tx.update(params, state, fewer)
    with pytest.raises(mas_jax.TreeMismatchError, match=r"updates has no leaf \['b'\]"):
        tx.update(fewer, state, params)
