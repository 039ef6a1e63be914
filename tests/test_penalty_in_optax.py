"""The penalty inside what people use: optax's chains and wrappers, flax's TrainState and nnx."""

import flax.serialization
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from flax.training.train_state import TrainState

import mas_jax
from mas_jax import Anchor, anchor_penalty, anchor_proximal, consolidate, with_anchor

STRENGTH = 0.7
PARAMS = {"w": jnp.array([1.0, -2.0, 0.5]), "v": jnp.array([0.3, 3.0])}
ANCHOR = Anchor(
    {"w": jnp.array([0.5, -1.0, 0.0]), "v": jnp.array([0.0, 1.0])},
    {"w": jnp.array([1.0, 0.0, 3.0]), "v": jnp.array([0.5, 2.0])},
)
OTHER_ANCHOR = jax.tree.map(lambda leaf: leaf + 1.0, ANCHOR)


def loss(params):
    return jnp.sum(jnp.cos(params["w"])) + jnp.sum(jnp.square(params["v"] - 1.0))


def regularised(params):
    return loss(params) + mas_jax.penalty(params, ANCHOR, STRENGTH)


def pull(params):
    """λ Ω (θ − θ*)."""
    return jax.grad(mas_jax.penalty)(params, ANCHOR, STRENGTH)


def path(tx, objective=loss, anchor=None, steps=8):
    """The parameters along `steps` compiled steps, all of one compilation."""
    state = tx.init(PARAMS) if anchor is None else with_anchor(tx.init(PARAMS), anchor)

    @jax.jit
    def step(params, state):
        updates, state = tx.update(jax.grad(objective)(params), state, params)
        return optax.apply_updates(params, updates), state

    params, params_along = PARAMS, []
    for _ in range(steps):
        params, state = step(params, state)
        params_along.append(params)
    assert step._cache_size() == 1
    return params_along


def assert_close(got, wanted, rtol=1e-5, atol=1e-6):
    assert jax.tree.structure(got) == jax.tree.structure(wanted)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=atol), got, wanted)


# Chains.


@pytest.mark.parametrize(
    "optimizer",
    [
        optax.sgd(0.1),
        optax.sgd(0.1, momentum=0.9),
        optax.chain(optax.trace(0.9, nesterov=True), optax.scale(-0.1)),
        optax.adam(0.1),
        optax.chain(optax.clip_by_global_norm(0.5), optax.sgd(0.1)),
    ],
    ids=["sgd", "momentum", "nesterov", "adam", "clipped"],
)
def test_before_an_optimizer_it_is_the_loss_term(optimizer):
    chained = path(optax.chain(anchor_penalty(STRENGTH), optimizer), anchor=ANCHOR)
    assert_close(chained, path(optimizer, regularised))
    assert abs(chained[-1]["w"] - path(optimizer)[-1]["w"]).max() > 0.05


@pytest.mark.parametrize(
    "preconditioner", [optax.trace(0.9), optax.scale_by_adam()], ids=["momentum", "adam"]
)
def test_after_an_optimizer_it_is_decoupled_from_it(preconditioner):
    tx = optax.chain(preconditioner, anchor_penalty(STRENGTH), optax.scale(-0.1))
    expected, params, state = [], PARAMS, preconditioner.init(PARAMS)
    for _ in range(8):
        direction, state = preconditioner.update(jax.grad(loss)(params), state, params)
        params = jax.tree.map(lambda t, d, p: t - 0.1 * (d + p), params, direction, pull(params))
        expected.append(params)
    assert_close(path(tx, anchor=ANCHOR), expected)


def test_after_clipping_the_pull_is_not_clipped():
    grads = {"w": jnp.array([30.0, 0.0, 40.0]), "v": jnp.zeros(2)}
    tx = optax.chain(optax.clip_by_global_norm(1.0), anchor_penalty(STRENGTH))
    updates, _ = tx.update(grads, with_anchor(tx.init(PARAMS), ANCHOR), PARAMS)
    # The norm of (30, 0, 40) is 50, so it arrives as (0.6, 0, 0.8).
    expected = {"w": jnp.array([0.6, 0.0, 0.8]), "v": jnp.zeros(2)}
    assert_close(updates, jax.tree.map(jnp.add, expected, pull(PARAMS)))


@pytest.mark.parametrize("momentum", [None, 0.9])
def test_the_proximal_step_at_the_end_of_a_chain(momentum):
    # θ ← (θ⁺ + ηλΩθ*)/(1 + ηλΩ), where θ⁺ is what SGD alone would do from θ.
    sgd = optax.sgd(0.1, momentum=momentum)
    expected, params, state = [], PARAMS, sgd.init(PARAMS)
    for _ in range(8):
        updates, state = sgd.update(jax.grad(loss)(params), state, params)
        params = jax.tree.map(
            lambda t, u, a, o: (t + u + 0.1 * STRENGTH * o * a) / (1 + 0.1 * STRENGTH * o),
            params, updates, *ANCHOR,
        )  # fmt: skip
        expected.append(params)
    assert_close(path(optax.chain(sgd, anchor_proximal(STRENGTH, 0.1)), anchor=ANCHOR), expected)


def test_a_schedule_of_optax_is_a_strength():
    schedule = optax.linear_schedule(0.0, 1.0, 4)
    tx = optax.chain(anchor_penalty(schedule), optax.sgd(0.1))
    expected, params = [], PARAMS
    for strength in [0.0, 0.25, 0.5, 0.75, 1.0, 1.0, 1.0, 1.0]:
        grads = jax.grad(loss)(params)
        more = jax.grad(mas_jax.penalty)(params, ANCHOR, strength)
        params = jax.tree.map(lambda t, g, p: t - 0.1 * (g + p), params, grads, more)
        expected.append(params)
    assert_close(path(tx, anchor=ANCHOR), expected)


# Wrappers.


@pytest.mark.parametrize("as_transformation", [True, False])
def test_multi_steps_adds_the_penalty_once_for_each_real_step(as_transformation):
    multi = optax.MultiSteps(optax.chain(anchor_penalty(STRENGTH), optax.sgd(0.1)), 2)
    tx = multi.gradient_transformation() if as_transformation else multi
    state = with_anchor(tx.init(PARAMS), ANCHOR)
    grads = jax.grad(loss)(PARAMS)
    update = jax.jit(lambda grads, state, params: tx.update(grads, state, params))
    # Two mini-steps whose mean is `grads`.
    first, state = update(jax.tree.map(lambda g: 1.5 * g, grads), state, PARAMS)
    second, state = update(jax.tree.map(lambda g: 0.5 * g, grads), state, PARAMS)
    assert_close(first, jax.tree.map(jnp.zeros_like, grads))
    expected = jax.tree.map(lambda g, p: -0.1 * (g + p), grads, pull(PARAMS))
    assert_close(second, expected)
    update(grads, with_anchor(state, OTHER_ANCHOR), PARAMS)
    assert update._cache_size() == 1


def test_masked_pulls_what_the_mask_lets_through():
    tx = optax.masked(anchor_penalty(STRENGTH), {"w": True, "v": False})
    updates, _ = tx.update(PARAMS, with_anchor(tx.init(PARAMS), ANCHOR), PARAMS)
    np.testing.assert_allclose(updates["w"], PARAMS["w"] + pull(PARAMS)["w"], rtol=1e-6)
    np.testing.assert_array_equal(updates["v"], PARAMS["v"])


def test_partition_gives_each_group_its_own_strength():
    def group(strength):
        return optax.chain(anchor_penalty(strength), optax.sgd(0.1))

    tx = optax.partition(
        {"soft": group(STRENGTH), "hard": group(10 * STRENGTH), "free": optax.adam(0.1)},
        {"w": "soft", "v": {"a": "hard", "b": "free"}},
    )
    params = {"w": PARAMS["w"], "v": {"a": PARAMS["v"], "b": PARAMS["v"]}}
    anchor = Anchor(*({"w": t["w"], "v": {"a": t["v"], "b": t["v"]}} for t in ANCHOR))
    zeros = jax.tree.map(jnp.zeros_like, params)
    updates, _ = tx.update(zeros, with_anchor(tx.init(params), anchor), params)
    alone = pull(PARAMS)
    np.testing.assert_allclose(updates["w"], -0.1 * alone["w"], rtol=1e-6)
    np.testing.assert_allclose(updates["v"]["a"], -1.0 * alone["v"], rtol=1e-6)
    np.testing.assert_array_equal(updates["v"]["b"], np.zeros(2))


@pytest.mark.parametrize(
    ("name", "injected", "plain"),
    [
        ("strength", optax.inject_hyperparams(anchor_penalty)(1.0), anchor_penalty),
        (
            "strength",
            optax.inject_hyperparams(anchor_proximal)(1.0, 0.1),
            lambda value: anchor_proximal(value, 0.1),
        ),
        (
            "learning_rate",
            optax.inject_hyperparams(anchor_proximal)(1.0, 0.1),
            lambda value: anchor_proximal(1.0, value),
        ),
    ],
)
def test_injected_numbers_change_between_steps_without_compiling_again(name, injected, plain):
    update = jax.jit(lambda grads, state, params: injected.update(grads, state, params))
    state = with_anchor(injected.init(PARAMS), ANCHOR)
    zeros = jax.tree.map(jnp.zeros_like, PARAMS)
    for value in [0.7, 0.0, 1.4]:
        state.hyperparams[name] = jnp.asarray(value)
        updates, state = update(zeros, state, PARAMS)
        fixed = plain(value)
        expected = fixed.update(zeros, with_anchor(fixed.init(PARAMS), ANCHOR), PARAMS)[0]
        assert_close(updates, expected)
        assert bool(abs(updates["w"]).max() > 0.01) == (value > 0)
    assert update._cache_size() == 1


def test_inject_hyperparams_takes_schedules_and_masks():
    tx = optax.inject_hyperparams(anchor_penalty, static_args=("mask",))(
        strength=optax.piecewise_constant_schedule(STRENGTH, {2: 0.0}),
        mask=lambda params: {name: name == "w" for name in params},
    )
    state = with_anchor(tx.init(PARAMS), ANCHOR)
    zeros = jax.tree.map(jnp.zeros_like, PARAMS)
    for expected in [pull(PARAMS)["w"], pull(PARAMS)["w"], np.zeros(3)]:
        updates, state = tx.update(zeros, state, PARAMS)
        np.testing.assert_allclose(updates["w"], expected, rtol=1e-6)
        np.testing.assert_array_equal(updates["v"], np.zeros(2))


def test_apply_if_finite_leaves_the_anchor_alone():
    tx = optax.apply_if_finite(optax.chain(anchor_penalty(STRENGTH), optax.sgd(0.1)), 3)
    update = jax.jit(lambda grads, state, params: tx.update(grads, state, params))
    state = with_anchor(tx.init(PARAMS), ANCHOR)
    zeros = jax.tree.map(jnp.zeros_like, PARAMS)
    skipped, state = update(jax.tree.map(lambda g: g * jnp.nan, PARAMS), state, PARAMS)
    assert_close(skipped, zeros)
    updates, state = update(zeros, state, PARAMS)
    assert_close(updates, jax.tree.map(lambda p: -0.1 * p, pull(PARAMS)))
    update(zeros, with_anchor(state, OTHER_ANCHOR), PARAMS)
    assert update._cache_size() == 1


def test_every_anchor_state_is_filled_however_deep():
    inner = optax.chain(optax.masked(anchor_penalty(1.0), {"w": True, "v": False}), optax.adam(0.1))
    tx = optax.chain(
        optax.apply_if_finite(optax.MultiSteps(inner, 2).gradient_transformation(), 2),
        anchor_proximal(1.0, 0.1),
    )
    state = with_anchor(tx.init(PARAMS), ANCHOR)
    found = [
        node.anchor
        for node in jax.tree.leaves(state, is_leaf=lambda x: isinstance(x, mas_jax.AnchorState))
        if isinstance(node, mas_jax.AnchorState)
    ]
    assert len(found) == 2
    for anchor in found:
        np.testing.assert_array_equal(anchor.params["w"], ANCHOR.params["w"])
        np.testing.assert_array_equal(anchor.importance["w"], ANCHOR.importance["w"])
    assert jax.tree.structure(state) == jax.tree.structure(tx.init(PARAMS))


# Anchors that cover something else than the state does.


def test_an_anchor_of_a_trunk_leaves_a_new_head_free():
    trunk = Anchor(*({**tree, "head": optax.MaskedNode()} for tree in ANCHOR))
    params = {**PARAMS, "head": {"kernel": jnp.ones((2, 2))}}
    tx = optax.chain(anchor_penalty(STRENGTH), optax.sgd(0.1))
    zeros = jax.tree.map(jnp.zeros_like, params)
    updates, _ = tx.update(zeros, with_anchor(tx.init(params), trunk), params)
    np.testing.assert_array_equal(updates["head"]["kernel"], np.zeros((2, 2)))
    np.testing.assert_allclose(updates["w"], -0.1 * pull(PARAMS)["w"], rtol=1e-6)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda tx: optax.chain(tx, optax.adam(0.1)),
        lambda tx: optax.MultiSteps(tx, 2),
        lambda tx: optax.apply_if_finite(tx, 2),
        lambda tx: optax.masked(tx, {"w": True, "v": True}),
        lambda tx: optax.partition({"all": tx}, {"w": "all", "v": "all"}),
    ],
)
def test_another_models_anchor_is_refused_by_the_name_of_its_leaf(wrap):
    state = wrap(anchor_penalty(STRENGTH)).init(PARAMS)
    more = Anchor(*({**tree, "x": jnp.ones(1)} for tree in ANCHOR))
    less = Anchor(*({"w": tree["w"]} for tree in ANCHOR))
    with pytest.raises(mas_jax.TreeMismatchError, match=r"state has no leaf \['x'\], which anchor"):
        with_anchor(state, more)
    with pytest.raises(mas_jax.TreeMismatchError, match=r"anchor has no leaf \['v'\], which the"):
        with_anchor(state, less)


# Training loops.


def train_state():
    tx = optax.chain(anchor_penalty(STRENGTH), optax.adam(0.1))
    return TrainState.create(apply_fn=None, params=jax.tree.map(jnp.array, PARAMS), tx=tx)


def test_a_flax_train_state_learns_tasks_in_sequence_with_one_compilation():
    traces = []

    @jax.jit
    def step(state):
        traces.append(state.step)
        return state.apply_gradients(grads=jax.grad(loss)(state.params))

    state, anchor = train_state(), None
    for _ in range(3):
        for _ in range(3):
            state = step(state)
        omega = jax.tree.map(jnp.ones_like, state.params)
        anchor = consolidate(anchor, state.params, omega)
        state = with_anchor(state, anchor)
        assert isinstance(state, TrainState)
    assert len(traces) == 1
    assert_close(state.opt_state[0].anchor, anchor)
    assert state.opt_state[0].step == 9


def test_donating_a_train_state_does_not_reach_the_anchor():
    step = jax.jit(lambda state: state.apply_gradients(grads=jax.grad(loss)(state.params)),
                   donate_argnums=0)  # fmt: skip
    state = step(train_state())
    anchor = consolidate(None, state.params, jax.tree.map(jnp.ones_like, state.params))
    kept = jax.tree.map(np.array, anchor)
    for _ in range(2):
        before = with_anchor(state, anchor)
        state = step(before)
        assert before.params["w"].is_deleted()
        assert before.opt_state[0].anchor.importance["w"].is_deleted()
    jax.tree.map(np.testing.assert_array_equal, anchor, kept)


def test_a_train_state_read_back_from_bytes_takes_an_anchor():
    state = with_anchor(train_state(), ANCHOR)
    read = flax.serialization.from_bytes(train_state(), flax.serialization.to_bytes(state))
    assert_close(read.opt_state, state.opt_state)
    assert_close(with_anchor(read, OTHER_ANCHOR).opt_state[0].anchor, OTHER_ANCHOR)


class Linear(nnx.Module):
    """y = x W + b."""

    def __init__(self):
        self.layer = nnx.Linear(3, 2, rngs=nnx.Rngs(0))

    def __call__(self, x):
        return self.layer(x)


def test_an_nnx_optimizer_takes_an_anchor_of_nnx_state():
    model, traces = Linear(), []
    tx = optax.chain(anchor_penalty(STRENGTH), optax.sgd(0.1))
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)

    @nnx.jit
    def step(model, optimizer, x):
        traces.append(x.shape)
        optimizer.update(model, nnx.grad(lambda model: jnp.sum(model(x)))(model))

    x = jnp.ones((4, 3))
    step(model, optimizer, x)
    params = nnx.state(model, nnx.Param)
    anchor = consolidate(
        None,
        jax.tree.map(lambda leaf: leaf - 0.5, params),
        jax.tree.map(lambda leaf: jnp.full_like(leaf, 2.0), params),
    )
    before = np.array(model.layer.kernel[...])
    for _ in range(2):
        optimizer.opt_state = with_anchor(optimizer.opt_state, anchor)
    step(model, optimizer, x)
    # The gradient of the sum is Σ x = 4; the pull is λ · 2 · 0.5.
    expected = before - 0.1 * (4.0 + STRENGTH)
    np.testing.assert_allclose(model.layer.kernel[...], expected, rtol=1e-5)
    assert len(traces) == 1


def test_importance_of_an_nnx_state_anchors_an_nnx_optimizer():
    model = Linear()
    graph, params = nnx.split(model, nnx.Param)
    omega = mas_jax.estimate_importance(
        lambda params, x: nnx.merge(graph, params)(x), params, [np.ones((2, 3), np.float32)]
    )
    anchor = consolidate(None, params, omega)
    optimizer = nnx.Optimizer(
        model, optax.chain(anchor_penalty(1.0), optax.sgd(0.1)), wrt=nnx.Param
    )
    optimizer.opt_state = with_anchor(optimizer.opt_state, anchor)
    held = optimizer.opt_state[0].anchor.importance
    got, wanted = jax.tree.leaves(held), jax.tree.leaves(omega)
    for one, other in zip(got, wanted, strict=True):
        np.testing.assert_array_equal(one, other)
    # ∂‖F‖²/∂b = 2F, for each of the two equal samples.
    outputs = np.abs(2 * model(jnp.ones((1, 3)))[0])
    np.testing.assert_allclose(wanted[0], outputs, rtol=1e-5)


def test_a_head_that_came_later_is_excluded_with_the_mask():
    trunk_only = {"trunk": True, "heads": False}
    old = {"trunk": jnp.ones(2), "heads": {"a": jnp.ones(1)}}
    anchor = mas_jax.Anchor(
        {"trunk": jnp.zeros(2), "heads": optax.MaskedNode()},
        {"trunk": jnp.ones(2), "heads": optax.MaskedNode()},
    )
    grown = {**old, "heads": {**old["heads"], "b": jnp.ones(1)}}
    tx = optax.chain(mas_jax.anchor_penalty(1.0, mask=trunk_only), optax.sgd(1.0))
    state = mas_jax.with_anchor(tx.init(grown), anchor)
    updates, _ = tx.update(jax.tree.map(jnp.zeros_like, grown), state, grown)
    np.testing.assert_array_equal(updates["trunk"], [-1.0, -1.0])
    np.testing.assert_array_equal(updates["heads"]["b"], [0.0])

    measured = mas_jax.Anchor(
        {"trunk": jnp.zeros(2), "heads": {"a": optax.MaskedNode()}},
        {"trunk": jnp.ones(2), "heads": {"a": optax.MaskedNode()}},
    )
    unmasked = optax.chain(mas_jax.anchor_penalty(1.0), optax.sgd(1.0))
    with pytest.raises(
        mas_jax.TreeMismatchError, match=r"no leaf \['heads'\]\['b'\].*anchor_penalty\(mask=…\)"
    ):
        mas_jax.with_anchor(unmasked.init(grown), measured)
    # With the mask, the same anchor fits.
    mas_jax.with_anchor(tx.init(grown), measured)


@pytest.mark.parametrize("strength", [lambda _: jnp.ones(2), jnp.ones(2)])
def test_a_strength_that_is_no_scalar_is_refused_under_jit_too(strength):
    params = {"w": jnp.ones(2)}
    if callable(strength):
        tx = mas_jax.anchor_penalty(strength)
        with pytest.raises(ValueError, match=r"strength must be a number.*shape \(2,\)"):
            jax.jit(tx.update)(params, tx.init(params), params)
    else:
        anchor = mas_jax.Anchor(params, params)
        with pytest.raises(ValueError, match=r"strength must be a number.*shape \(2,\)"):
            jax.jit(mas_jax.penalty)(params, anchor, strength)


def test_an_anchor_closed_over_by_a_compiled_function_is_still_checked():
    params = {"w": jnp.ones(2)}
    good, bad = mas_jax.Anchor(params, params), mas_jax.Anchor(params, {"w": -jnp.ones(2)})
    tx = mas_jax.anchor_penalty(1.0)
    jax.jit(lambda p: mas_jax.penalty(p, good, 1.0))(params)
    jax.jit(lambda p: mas_jax.with_anchor(tx.init(p), good))(params)
    with pytest.raises(ValueError, match="negative entries"):
        jax.jit(lambda p: mas_jax.penalty(p, bad, 1.0))(params)
    with pytest.raises(ValueError, match="negative entries"):
        jax.jit(lambda p: mas_jax.with_anchor(tx.init(p), bad))(params)
