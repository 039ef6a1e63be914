"""The penalty: a loss term, a gradient transformation, and a proximal step, all of one formula."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st

import mas_jax
from mas_jax import Anchor, anchor_penalty, anchor_proximal, with_anchor
from tests import oracle

pytestmark = pytest.mark.usefixtures("strict_dtypes")

SEEDS = st.integers(0, 2**16)
STRENGTHS = st.floats(0, 100, width=32, allow_subnormal=False)
TRANSFORMATIONS = {
    "penalty": lambda strength, mask=None: anchor_penalty(strength, mask),
    "proximal": lambda strength, mask=None: anchor_proximal(strength, 0.1, mask),
}

each_transformation = pytest.mark.parametrize("name", TRANSFORMATIONS)


def random_tree(seed, dtype=np.float32):
    rng = np.random.default_rng(seed)
    shapes = {"kernel": (3, 2), "bias": (2,)}
    return {"layer0": {name: rng.normal(size=s).astype(dtype) for name, s in shapes.items()}}


def random_problem(seed):
    """Params, gradients and an anchor, as jax arrays."""
    trees = [jax.tree.map(jnp.asarray, random_tree(4 * seed + i)) for i in range(4)]
    params, grads, star, omega = trees
    return params, grads, Anchor(star, jax.tree.map(jnp.abs, omega))


def scalar_problem(theta=3.0, star=1.0, omega=2.0):
    return {"w": jnp.array(theta)}, Anchor({"w": jnp.array(star)}, {"w": jnp.array(omega)})


def assert_close(got, wanted, rtol=1e-6, atol=1e-6):
    assert jax.tree.structure(got) == jax.tree.structure(wanted)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=atol), got, wanted)


def assert_equal(got, wanted):
    assert jax.tree.structure(got) == jax.tree.structure(wanted)
    jax.tree.map(np.testing.assert_array_equal, got, wanted)


def add_to(tx, params, grads, anchor):
    """The updates that `tx` makes of `grads`."""
    return tx.update(grads, with_anchor(tx.init(params), anchor), params)[0]


# The loss term.


@given(seed=SEEDS, strength=STRENGTHS)
def test_penalty_and_its_gradient_agree_with_the_oracle(seed, strength):
    params, _, anchor = random_problem(seed)
    value, grads = jax.value_and_grad(mas_jax.penalty)(params, anchor, strength)
    np.testing.assert_allclose(value, oracle.penalty(params, *anchor, strength), rtol=1e-5)
    assert_close(grads, oracle.penalty_gradient(params, *anchor, strength), rtol=1e-5, atol=1e-5)
    assert value >= 0


def test_penalty_closed_form():
    # (λ/2) Ω (θ − θ*)² = ½ · 0.5 · 2 · (3 − 1)² = 2, its gradient λ Ω (θ − θ*) = 0.5 · 2 · 2 = 2.
    value, grads = jax.value_and_grad(mas_jax.penalty)(*scalar_problem(), 0.5)
    assert value == 2.0
    assert grads["w"] == 2.0


@given(seed=SEEDS)
def test_penalty_is_zero_at_the_anchor_and_at_strength_zero(seed):
    params, _, anchor = random_problem(seed)
    assert mas_jax.penalty(anchor.params, anchor, 3.0) == 0.0
    assert mas_jax.penalty(params, anchor, 0.0) == 0.0
    assert mas_jax.penalty(params, anchor, 1.0) > 0.0


def test_penalty_of_low_precision_params_is_float32():
    # 1 and 1 + 2⁻⁷ are neighbours in bfloat16: (2⁻⁷)² = 2⁻¹⁴, halved 2⁻¹⁵. 1000 of them would
    # not add up in bfloat16.
    theta = jnp.full(1000, 1 + 2.0**-7, jnp.bfloat16)
    anchor = Anchor({"w": jnp.ones(1000, jnp.bfloat16)}, {"w": jnp.ones(1000)})
    value = mas_jax.penalty({"w": theta}, anchor, 1.0)
    assert value.dtype == jnp.float32
    assert value == 1000 * 2.0**-15


@pytest.mark.parametrize("strength", [0.5, np.float32(0.5), jnp.float32(0.5)])
def test_penalty_of_float64_params_is_float64(strength):
    with jax.enable_x64(True):
        params = {"w": jnp.ones(2, jnp.float64), "v": jnp.ones(2, jnp.float32)}
        omega = {"w": jnp.full(2, 1e-12, jnp.float64), "v": jnp.zeros(2, jnp.float32)}
        anchor = Anchor(jax.tree.map(jnp.zeros_like, params), omega)
        value = mas_jax.penalty(params, anchor, strength)
        assert value.dtype == jnp.float64
        np.testing.assert_allclose(value, 5e-13, rtol=1e-12)
        anchor32 = Anchor({"v": jnp.zeros(2, jnp.float32)}, {"v": jnp.ones(2, jnp.float32)})
        assert mas_jax.penalty({"v": params["v"]}, anchor32, strength).dtype == jnp.float32


def test_penalty_leaves_out_what_the_anchor_masks():
    params, anchor = scalar_problem()
    masked = Anchor(*({**tree, "head": optax.MaskedNode()} for tree in anchor))
    with_head = {**params, "head": jnp.full(2, 9.0), "steps": jnp.arange(2)}
    assert mas_jax.penalty(with_head, masked, 0.5) == mas_jax.penalty(params, anchor, 0.5)


def test_an_anchor_that_covers_nothing_costs_nothing():
    nothing = Anchor({"w": optax.MaskedNode()}, {"w": optax.MaskedNode()})
    assert mas_jax.penalty({"w": jnp.ones(2)}, nothing, 1.0) == 0.0


def test_penalty_compiles_once_for_all_anchors_and_strengths():
    penalty = jax.jit(lambda *arguments: mas_jax.penalty(*arguments))
    for seed in range(3):
        params, _, anchor = random_problem(seed)
        plain = mas_jax.penalty(params, anchor, 0.1 * seed)
        np.testing.assert_allclose(penalty(params, anchor, 0.1 * seed), plain, rtol=1e-6)
    assert penalty._cache_size() == 1


# The gradient transformation.


@given(seed=SEEDS, strength=STRENGTHS)
def test_transformation_adds_the_gradient_of_the_penalty(seed, strength):
    params, grads, anchor = random_problem(seed)
    updates = add_to(anchor_penalty(strength), params, grads, anchor)
    pull = jax.grad(mas_jax.penalty)(params, anchor, strength)
    assert_close(updates, jax.tree.map(jnp.add, grads, pull), atol=1e-5)
    zeros = jax.tree.map(jnp.zeros_like, grads)
    alone = add_to(anchor_penalty(strength), params, zeros, anchor)
    expected = oracle.penalty_gradient(params, *anchor, strength)
    assert_close(alone, expected, rtol=1e-5, atol=1e-5)


def test_transformation_closed_form():
    # g + λ Ω (θ − θ*) = 1 + 0.5 · 2 · (3 − 1) = 3.
    params, anchor = scalar_problem()
    assert add_to(anchor_penalty(0.5), params, {"w": jnp.ones(())}, anchor)["w"] == 3.0


def test_sgd_with_the_transformation_follows_sgd_with_the_loss_term():
    params, target, anchor = random_problem(0)

    def loss(params):
        return sum(
            jnp.sum(jnp.cos(a - b))
            for a, b in zip(jax.tree.leaves(params), jax.tree.leaves(target), strict=True)
        )

    def regularised(params, anchor):
        return loss(params) + mas_jax.penalty(params, anchor, 0.7)

    def trajectory(tx, state, gradient):
        @jax.jit
        def step(theta, state):
            updates, state = tx.update(gradient(theta), state, theta)
            return optax.apply_updates(theta, updates), state

        theta, path = params, []
        for _ in range(20):
            theta, state = step(theta, state)
            path.append(theta)
        return path

    sgd = optax.sgd(0.1)
    chained = optax.chain(anchor_penalty(0.7), sgd)
    by_state = trajectory(chained, with_anchor(chained.init(params), anchor), jax.grad(loss))
    by_loss = trajectory(sgd, sgd.init(params), lambda theta: jax.grad(regularised)(theta, anchor))
    free = trajectory(sgd, sgd.init(params), jax.grad(loss))
    for one, other in zip(by_state, by_loss, strict=True):
        assert_close(one, other, rtol=1e-5, atol=1e-6)
    assert abs(by_state[-1]["layer0"]["kernel"] - free[-1]["layer0"]["kernel"]).max() > 0.1


# The proximal step.


@given(seed=SEEDS, strength=STRENGTHS, rate=st.floats(0, 1, width=32, allow_subnormal=False))
def test_proximal_step_agrees_with_the_oracle(seed, strength, rate):
    params, updates, anchor = random_problem(seed)
    moved = add_to(anchor_proximal(strength, rate), params, updates, anchor)
    got = optax.apply_updates(params, moved)
    free = jax.tree.map(lambda theta, u: np.float64(theta) + np.float64(u), params, updates)
    expected = oracle.proximal_step(free, *anchor, strength, rate)
    assert_close(got, expected, rtol=1e-5, atol=1e-5)


def test_proximal_step_closed_form():
    # θ⁺ = 3 + 1 = 4, ηλΩ = 0.5 · 3 · 2 = 3, θ* = 1: (4 + 3 · 1)/(1 + 3) = 1.75, a step of −1.25.
    params, anchor = scalar_problem()
    tx = anchor_proximal(3.0, learning_rate=0.5)
    assert add_to(tx, params, {"w": jnp.ones(())}, anchor)["w"] == -1.25


@pytest.mark.parametrize("stiffness", [0.0, 0.1, 1.9, 2.1, 1e6, 1e30, 3e38])
def test_proximal_step_never_goes_beyond_the_anchor(stiffness):
    # θ⁺ = 31, θ* = 1: wherever the step ends, it is between the two, nearer to 1 as ηλΩ grows,
    # also where 30 ηλΩ is beyond float32.
    params, anchor = scalar_problem(theta=31.0, omega=1.0)
    tx = anchor_proximal(stiffness, learning_rate=1.0)
    end = params["w"] + add_to(tx, params, {"w": jnp.zeros(())}, anchor)["w"]
    np.testing.assert_allclose(end, (31.0 + stiffness) / (1.0 + stiffness), rtol=1e-5)


def test_proximal_steps_converge_where_explicit_ones_diverge():
    # Loss ½(w − 5)² with θ* = 1, Ω = 1, η = 0.1, λ = 1e7, so ηλΩ = 1e6. The regularised optimum
    # is (5 + λ)/(1 + λ) = 1 + 4e-7; an explicit step multiplies the distance by about −1e6.
    params, anchor = scalar_problem(theta=3.0, omega=1.0)
    ends = {}
    for name, tx in {
        "explicit": optax.chain(anchor_penalty(1e7), optax.sgd(0.1)),
        "proximal": optax.chain(optax.sgd(0.1), anchor_proximal(1e7, 0.1)),
        "momentum": optax.chain(optax.sgd(0.1, momentum=0.9), anchor_proximal(1e7, 0.1)),
    }.items():
        theta, state = params, with_anchor(tx.init(params), anchor)
        for _ in range(30):
            updates, state = tx.update({"w": theta["w"] - 5.0}, state, theta)
            theta = optax.apply_updates(theta, updates)
        ends[name] = float(theta["w"])
    assert not np.isfinite(ends["explicit"])
    assert ends["proximal"] == pytest.approx(1 + 4e-7, abs=1e-6)
    assert ends["momentum"] == pytest.approx(1.0, abs=1e-4)


def test_proximal_fixed_point_is_the_regularised_optimum():
    # Loss ½(w − 5)², θ* = 1, λΩ = 3: w − 5 + 3(w − 1) = 0 gives w = 2.
    params, anchor = scalar_problem(omega=1.5)
    tx = optax.chain(optax.sgd(0.1), anchor_proximal(2.0, 0.1))
    theta, state = params, with_anchor(tx.init(params), anchor)
    for _ in range(200):
        updates, state = tx.update({"w": theta["w"] - 5.0}, state, theta)
        theta = optax.apply_updates(theta, updates)
    assert float(theta["w"]) == pytest.approx(2.0, abs=1e-5)


# Both transformations.


@each_transformation
@given(seed=SEEDS)
def test_strength_zero_no_importance_and_no_anchor_are_the_identity(name, seed):
    params, grads, anchor = random_problem(seed)
    make = TRANSFORMATIONS[name]
    assert_equal(add_to(make(0.0), params, grads, anchor), grads)
    unimportant = anchor._replace(importance=jax.tree.map(jnp.zeros_like, anchor.importance))
    assert_equal(add_to(make(5.0), params, grads, unimportant), grads)
    assert_equal(make(5.0).update(grads, make(5.0).init(params), params)[0], grads)


@each_transformation
@pytest.mark.parametrize("strength", [2.0, np.float32(2.0), jnp.float32(2.0), lambda _: 2.0])
def test_a_strength_is_a_number_an_array_or_a_schedule(name, strength):
    params, grads, anchor = random_problem(1)
    make = TRANSFORMATIONS[name]
    expected = add_to(make(2.0), params, grads, anchor)
    assert_close(add_to(make(strength), params, grads, anchor), expected)


@each_transformation
def test_a_schedule_counts_steps_from_init_and_goes_on_over_anchors(name):
    params, anchor = scalar_problem()
    zero = {"w": jnp.zeros(())}
    tx = TRANSFORMATIONS[name](lambda count: jnp.where(count < 2, 0.0, 1.0))
    state = with_anchor(tx.init(params), anchor)
    moved = []
    for step in range(4):
        if step == 1:
            state = with_anchor(state, anchor)
        updates, state = tx.update(zero, state, params)
        moved.append(bool(updates["w"] != 0))
    assert moved == [False, False, True, True]


@each_transformation
@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_low_precision_params_and_updates_keep_their_dtype(name, dtype):
    # θ − θ* = 2⁻⁷·8 is kept by both dtypes; Ω = 1/8, λ = 8 and η = 0.1.
    params = {"w": jnp.full(2, 1.0625, dtype)}
    anchor = Anchor({"w": jnp.ones(2, dtype)}, {"w": jnp.full(2, 0.125)})
    tx = TRANSFORMATIONS[name](8.0)
    state = with_anchor(tx.init(params), anchor)
    assert state.anchor.params["w"].dtype == dtype
    assert state.anchor.importance["w"].dtype == jnp.float32
    updates, after = tx.update({"w": jnp.zeros(2, dtype)}, state, params)
    assert updates["w"].dtype == dtype
    expected = {"penalty": 0.0625, "proximal": -0.1 * 0.0625 / 1.1}[name]
    np.testing.assert_allclose(np.float32(updates["w"]), expected, rtol=2.0**-8)
    assert jax.eval_shape(lambda: after) == jax.eval_shape(lambda: state)


@each_transformation
@pytest.mark.parametrize("strength", [1.0, jnp.float32(1.0), lambda _: jnp.float32(1.0)])
def test_float64_params_are_pulled_in_float64(name, strength):
    with jax.enable_x64(True):
        params = {"w": jnp.full(2, 1 + 1e-12, jnp.float64)}
        omega = {"w": jnp.full(2, 1.0, jnp.float64)}
        tx = TRANSFORMATIONS[name](strength)
        state = with_anchor(tx.init(params), Anchor({"w": jnp.ones(2, jnp.float64)}, omega))
        updates = tx.update({"w": jnp.zeros(2, jnp.float64)}, state, params)[0]["w"]
        assert updates.dtype == jnp.float64
        expected = {"penalty": 1e-12, "proximal": -1e-12 * 0.1 / 1.1}[name]
        np.testing.assert_allclose(updates, expected, rtol=1e-3)


@each_transformation
def test_masked_integer_boolean_and_key_leaves_pass_through(name):
    params = {
        "w": jnp.full(2, 3.0),
        "head": {"kernel": jnp.full(2, 3.0)},
        "steps": jnp.arange(2),
        "flag": jnp.array(True),
        "key": jax.random.key(0),
    }
    tx = TRANSFORMATIONS[name](1.0, {name: name == "w" for name in params})
    state = tx.init(params)
    free = dict.fromkeys(["head", "steps", "flag", "key"], optax.MaskedNode())
    assert len(jax.tree.leaves(state.anchor.params)) == 1
    state = with_anchor(state, Anchor({"w": jnp.zeros(2), **free}, {"w": jnp.ones(2), **free}))
    updates = tx.update(params, state, params)[0]
    assert all(updates[key] is params[key] for key in free if key != "head")
    assert updates["head"]["kernel"] is params["head"]["kernel"]
    assert (updates["w"] != params["w"]).all()


@each_transformation
def test_the_state_starts_neutral_in_the_structure_of_params(name):
    params, _, _ = random_problem(0)
    state = TRANSFORMATIONS[name](1.0).init(params)
    assert isinstance(state, mas_jax.AnchorState)
    for tree in state.anchor:
        assert_equal(tree, jax.tree.map(np.zeros_like, params))
    assert state.step == 0


@each_transformation
def test_jit_changes_nothing_and_no_anchor_compiles_again(name):
    params, grads, anchor = random_problem(2)
    tx = TRANSFORMATIONS[name](0.5)
    update = jax.jit(lambda grads, state, params: tx.update(grads, state, params))
    state = tx.init(params)
    update(grads, state, params)
    committed = jax.device_put(anchor, jax.devices()[0])
    for new in [anchor, jax.tree.map(np.asarray, anchor), committed, random_problem(3)[2]]:
        state = with_anchor(state, new)
        assert_close(update(grads, state, params)[0], tx.update(grads, state, params)[0])
        state = update(grads, state, params)[1]
    assert update._cache_size() == 1


def test_with_anchor_keeps_a_committed_state_committed():
    params, grads, anchor = random_problem(2)
    params, grads = jax.device_put((params, grads), jax.devices()[0])
    tx = anchor_penalty(0.5)
    update = jax.jit(tx.update)
    state = jax.device_put(tx.init(params), jax.devices()[0])
    update(grads, state, params)
    less = Anchor(*({"layer0": {**t["layer0"], "bias": optax.MaskedNode()}} for t in anchor))
    for new in [anchor, jax.tree.map(np.asarray, anchor), less]:
        state = with_anchor(state, new)
        update(grads, state, params)
    assert all(leaf.committed for leaf in jax.tree.leaves(state))
    assert update._cache_size() == 1


@each_transformation
def test_donating_the_state_does_not_reach_the_anchor(name):
    params, grads, anchor = random_problem(2)
    tx = TRANSFORMATIONS[name](0.5)
    update = jax.jit(tx.update, donate_argnums=(0, 1))
    for new in [anchor, jax.device_put(anchor, jax.devices()[0])]:
        state = with_anchor(tx.init(params), new)
        update(jax.tree.map(jnp.array, grads), state, params)
        assert all(leaf.is_deleted() for leaf in jax.tree.leaves(state))
        assert not any(leaf.is_deleted() for leaf in jax.tree.leaves((new, params)))


def test_donating_a_committed_state_does_not_reach_the_anchor():
    params, grads, anchor = jax.device_put(random_problem(2), jax.devices()[0])
    tx = anchor_penalty(0.5)
    state = with_anchor(jax.device_put(tx.init(params), jax.devices()[0]), anchor)
    jax.jit(tx.update, donate_argnums=1)(grads, state, params)
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(anchor))


def test_changing_a_numpy_anchor_does_not_reach_the_state():
    params, _, anchor = random_problem(2)
    anchor = jax.tree.map(np.array, anchor)
    state = with_anchor(anchor_penalty(0.5).init(params), anchor)
    before = jax.tree.map(np.array, state.anchor)
    for leaf in jax.tree.leaves(anchor):
        leaf[:] = 7.0
    assert_equal(state.anchor, before)


def test_with_anchor_takes_a_state_of_numpy_arrays():
    # What flax.serialization gives back.
    params, grads, anchor = random_problem(2)
    tx = anchor_penalty(0.5)
    state = with_anchor(jax.tree.map(np.asarray, tx.init(params)), anchor)
    expected = tx.update(grads, with_anchor(tx.init(params), anchor), params)[0]
    assert_equal(tx.update(grads, state, params)[0], expected)


def test_with_anchor_works_under_jit():
    params, _, anchor = random_problem(2)
    state = anchor_penalty(0.5).init(params)
    assert_equal(jax.jit(with_anchor)(state, anchor), with_anchor(state, anchor))


def test_a_leaf_that_the_anchor_masks_becomes_free():
    params, grads, anchor = random_problem(2)
    less = Anchor(*({"layer0": {**t["layer0"], "bias": optax.MaskedNode()}} for t in anchor))
    tx = anchor_penalty(0.5)
    # Set once with both, so that an old value would show.
    state = with_anchor(with_anchor(tx.init(params), anchor), less)
    updates = tx.update(grads, state, params)[0]["layer0"]
    np.testing.assert_array_equal(updates["bias"], grads["layer0"]["bias"])
    both = tx.update(grads, with_anchor(tx.init(params), anchor), params)[0]["layer0"]
    np.testing.assert_array_equal(updates["kernel"], both["kernel"])


def test_a_leaf_that_the_state_masks_stays_free():
    params, grads, anchor = random_problem(2)
    tx = anchor_penalty(0.5, mask={"layer0": {"kernel": True, "bias": False}})
    updates = add_to(tx, params, grads, anchor)["layer0"]
    np.testing.assert_array_equal(updates["bias"], grads["layer0"]["bias"])
    both = add_to(anchor_penalty(0.5), params, grads, anchor)["layer0"]
    np.testing.assert_array_equal(updates["kernel"], both["kernel"])


# Errors.


@pytest.mark.parametrize(
    ("strength", "message"),
    [
        (-1.0, "strength must be a finite number of at least 0, got -1.0"),
        (float("nan"), "strength must be a finite number of at least 0, got nan"),
        (float("inf"), "strength must be a finite number of at least 0, got inf"),
        (jnp.float32(-1.0), "strength must be a finite number of at least 0, got -1.0"),
        (
            np.ones(2),
            r"strength must be a number, a scalar array or a schedule, got .* shape \(2,\)",
        ),
    ],
)
def test_strength_errors(strength, message):
    with pytest.raises(ValueError, match=message):
        mas_jax.penalty(*scalar_problem(), strength)
    with pytest.raises(ValueError, match=message):
        anchor_penalty(strength)
    with pytest.raises(ValueError, match=message):
        anchor_proximal(strength, 0.1)
    with pytest.raises(ValueError, match=message.replace("strength", "learning_rate")):
        anchor_proximal(1.0, strength)


@each_transformation
def test_update_needs_the_params(name):
    params, anchor = scalar_problem()
    tx = TRANSFORMATIONS[name](1.0)
    with pytest.raises(ValueError, match=r"call tx.update\(grads, state, params\)"):
        tx.update(params, with_anchor(tx.init(params), anchor))


@each_transformation
@pytest.mark.parametrize(
    ("updates", "params", "message"),
    [
        (
            {"v": np.ones(2)},
            {"v": np.ones(2)},
            r"params has no leaf \['w'\], which the optimizer's anchor has; was it made",
        ),
        (
            {"w": np.ones(3)},
            {"w": np.ones(3)},
            r"params\['w'\] has shape \(3,\), but the optimizer's anchor has \(2,\) there",
        ),
        ({"v": np.ones(2)}, {"w": np.ones(2)}, r"updates has no leaf \['w'\], which the opt"),
        (
            {"w": np.ones(1)},
            {"w": np.ones(2)},
            r"updates\['w'\] has shape \(1,\), but the optimizer's anchor has \(2,\) there",
        ),
    ],
)
def test_trees_of_another_model_at_update(name, updates, params, message):
    tx = TRANSFORMATIONS[name](1.0)
    state = tx.init({"w": np.ones(2, np.float32)})
    with pytest.raises(mas_jax.TreeMismatchError, match=message):
        tx.update(updates, state, params)


@pytest.mark.parametrize(
    ("anchor", "message"),
    [
        (
            Anchor({"v": np.ones(2)}, {"v": np.ones(2)}),
            r"params has no leaf \['v'\], which anchor has; was it made for another model",
        ),
        (
            Anchor({"w": np.ones(3)}, {"w": np.ones(3)}),
            r"params\['w'\] has shape \(2,\), but anchor has \(3,\) there",
        ),
        (
            Anchor({"w": np.ones(2)}, {"v": np.ones(2)}),
            r"importance has no leaf \['w'\], which anchor.params has",
        ),
        (
            Anchor({"w": np.ones(2)}, {"w": np.ones(())}),
            r"importance\['w'\] has shape \(\), but anchor.params has \(2,\) there",
        ),
    ],
)
def test_an_anchor_of_another_model_in_the_loss_term(anchor, message):
    with pytest.raises(mas_jax.TreeMismatchError, match=message):
        mas_jax.penalty({"w": np.ones(2)}, anchor, 1.0)


def single(params, omega):
    return Anchor({"w": jnp.asarray(params)}, {"w": jnp.asarray(omega)})


@pytest.mark.parametrize(
    ("anchor", "error", "message"),
    [
        (
            Anchor({"v": jnp.ones(2)}, {"v": jnp.ones(2)}),
            mas_jax.TreeMismatchError,
            r"the optimizer's state has no leaf \['v'\], which anchor has; .*another model",
        ),
        (
            Anchor({}, {}),
            mas_jax.TreeMismatchError,
            r"anchor has no leaf \['w'\], which the optimizer's state has; .*another model",
        ),
        (
            single(np.ones(3, np.float32), np.ones(3)),
            mas_jax.TreeMismatchError,
            r"anchor\['w'\] has shape \(3,\), but the optimizer's state has \(2,\) there",
        ),
        (
            single(np.ones(2, np.float16), np.ones(2)),
            mas_jax.TreeMismatchError,
            r"anchor\['w'\] is float16, but the optimizer's state is float32 there; .*silently",
        ),
        (
            Anchor({"w": jnp.ones(2)}, {"v": jnp.ones(2)}),
            mas_jax.TreeMismatchError,
            r"importance has no leaf \['w'\], which anchor.params has",
        ),
        (
            single([1.0, 1.0], [1.0, -1.0]),
            ValueError,
            r"importance\['w'\] has negative entries",
        ),
        (
            single([1.0, 1.0], [1.0, np.nan]),
            mas_jax.NonFiniteError,
            r"importance\['w'\] has NaN or infinite entries",
        ),
        (
            single([1.0, np.inf], [1.0, 1.0]),
            mas_jax.NonFiniteError,
            r"anchor.params\['w'\] has NaN or infinite entries",
        ),
        (
            single([1.0, 1.0], np.ones(2, np.int32)),
            TypeError,
            r"importance\['w'\] is int32, wanted floating point",
        ),
    ],
)
def test_anchors_that_do_not_fit_the_state(anchor, error, message):
    tx = optax.chain(optax.clip_by_global_norm(1.0), anchor_penalty(1.0))
    with pytest.raises(error, match=message):
        with_anchor(tx.init({"w": jnp.ones(2)}), anchor)


def test_a_state_without_an_anchor_transformation():
    with pytest.raises(ValueError, match=r"holds no anchor: put mas_jax.anchor_penalty or"):
        with_anchor(optax.adam(1e-3).init({"w": jnp.ones(2)}), single([1.0, 1.0], [1.0, 1.0]))


@each_transformation
def test_complex_params_and_bad_masks_are_refused_at_init(name):
    make = TRANSFORMATIONS[name]
    params = {"w": jnp.ones(2, jnp.complex64), "v": jnp.ones(2)}
    with pytest.raises(TypeError, match=r"params\['w'\] is complex64"):
        make(1.0).init(params)
    state = make(1.0, {"w": False, "v": True}).init(params)
    assert isinstance(state.anchor.params["w"], optax.MaskedNode)
    with pytest.raises(mas_jax.TreeMismatchError, match=r"mask has .*which params has not"):
        make(1.0, {"x": True}).init(params)
