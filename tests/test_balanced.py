"""The order-balanced rule: every task weighs the same, in one anchor."""

import itertools
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st

import mas_jax
from mas_jax import Anchor, AnchorStore, BalancedAnchor, balance, consolidate
from tests import oracle_anchors

pytestmark = pytest.mark.usefixtures("strict_dtypes")

TOTALS = ("importance", "one", "tasks")
VALUE = st.floats(-8, 8, width=32, allow_subnormal=False)
WEIGHT = st.one_of(st.just(0.0), st.floats(2.0**-10, 2.0**10, width=32))
TASKS = st.lists(
    st.tuples(
        st.lists(VALUE, min_size=3, max_size=3),
        st.lists(WEIGHT, min_size=3, max_size=3).filter(any),
    ).map(lambda task: oracle_anchors.Task(*map(np.float32, task))),
    min_size=1,
    max_size=5,
)

each_total = pytest.mark.parametrize("total", TOTALS)


def arrays(task):
    """A task's parameters and importance, in two leaves and a masked head."""
    theta, omega = map(jnp.asarray, task)
    return (
        {"a": theta[:1], "b": theta[1:], "head": jnp.ones(2)},
        {"a": omega[:1], "b": omega[1:], "head": optax.MaskedNode()},
    )


def joined(tasks, total="importance"):
    balanced = None
    for task in tasks:
        balanced = balance(balanced, *arrays(task), total=total)
    return balanced


def flat(tree):
    return np.concatenate([np.asarray(tree[name]) for name in ("a", "b")])


def make(theta=1.0, omega=1.0):
    return {"w": jnp.full(2, theta, jnp.float32)}, {"w": jnp.full(2, omega, jnp.float32)}


@each_total
@given(tasks=TASKS, theta=st.lists(VALUE, min_size=3, max_size=3))
def test_its_penalty_is_the_weighted_sum_of_all_tasks_own(total, tasks, theta):
    anchor = joined(tasks, total).anchor
    weights = oracle_anchors.balanced_weights(tasks, total)
    size = oracle_anchors.gradient_size(theta, tasks, weights)
    params, _ = arrays(oracle_anchors.Task(np.float32(theta), np.zeros(3, np.float32)))
    grads = flat(jax.grad(mas_jax.penalty)(params, anchor, 1.0))
    expected = oracle_anchors.separate_gradient(theta, tasks, weights)
    assert (abs(grads - expected) <= 5e-6 * size).all()


@each_total
@given(tasks=TASKS)
def test_every_task_weighs_the_same_and_all_together_what_total_says(total, tasks):
    balanced = joined(tasks, total)
    weights = oracle_anchors.balanced_weights(tasks, total)
    sizes = [float(np.sum(np.float64(task.omega))) for task in tasks]
    for weight, size in zip(weights, sizes, strict=True):
        np.testing.assert_allclose(balanced.scale, weight * size, rtol=1e-5)
    if total != "importance":
        np.testing.assert_allclose(sum(weights), {"one": 1, "tasks": len(tasks)}[total], rtol=1e-9)
    together = sum(sizes) if total == "importance" else len(tasks) * weights[0] * sizes[0]
    np.testing.assert_allclose(flat(balanced.anchor.importance).sum(), together, rtol=1e-5)
    np.testing.assert_allclose(balanced.inverse_sum, sum(1 / size for size in sizes), rtol=1e-5)
    np.testing.assert_allclose(balanced.importance_sum, sum(sizes), rtol=1e-5)
    assert balanced.num_tasks == len(tasks)


@each_total
def test_the_anchor_does_not_depend_on_the_order_of_the_tasks(total):
    rng = np.random.default_rng(0)
    tasks = [
        oracle_anchors.Task(
            rng.normal(size=3).astype(np.float32),
            (10.0 ** rng.uniform(-3, 3) * rng.uniform(size=3)).astype(np.float32),
        )
        for _ in range(4)
    ]
    first = joined(tasks, total)
    for order in itertools.permutations(tasks):
        other = joined(order, total)
        for one, two in zip(jax.tree.leaves(first), jax.tree.leaves(other), strict=True):
            np.testing.assert_allclose(one, two, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("total", "scale"),
    # Ω = (1, 0) at 0 and (1, 2) at 1: S = 1 and 3, Σ 1/S = 4/3. c is the mean 2, 1/(4/3) or
    # 2/(4/3); Ω = c (1, 0) + (c/3) (1, 2), and θ*₀ = (c · 0 + c/3 · 1) / (4c/3) = ¼ for all.
    [("importance", 2.0), ("one", 0.75), ("tasks", 1.5)],
)
def test_closed_form(total, scale):
    tasks = [([0.0, 0.0], [1.0, 0.0]), ([1.0, 1.0], [1.0, 2.0])]
    balanced = None
    for theta, omega in tasks:
        balanced = balance(balanced, {"w": jnp.array(theta)}, {"w": jnp.array(omega)}, total=total)
    np.testing.assert_allclose(balanced.scale, scale, rtol=1e-6)
    expected = [scale + scale / 3, 2 * scale / 3]
    np.testing.assert_allclose(balanced.anchor.importance["w"], expected, rtol=1e-6)
    np.testing.assert_allclose(balanced.anchor.params["w"], [0.25, 1.0], rtol=1e-6)


@each_total
def test_one_task_is_its_own_anchor(total):
    params, omega = make(3.0, 0.3)
    balanced = balance(None, params, omega, total=total)
    np.testing.assert_allclose(balanced.anchor.importance["w"], omega["w"], rtol=1e-6)
    np.testing.assert_array_equal(balanced.anchor.params["w"], params["w"])


def test_tasks_of_the_same_size_are_the_sum_with_all_centers():
    balanced = summed = None
    for theta, omega in [(0.0, [1.0, 3.0]), (1.0, [2.0, 2.0]), (5.0, [4.0, 0.0])]:
        arguments = {"w": jnp.full(2, theta)}, {"w": jnp.array(omega)}
        balanced = balance(balanced, *arguments)
        summed = consolidate(summed, *arguments, center="all")
    for one, two in zip(jax.tree.leaves(balanced.anchor), jax.tree.leaves(summed), strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-6)


def test_total_may_change_from_task_to_task():
    tasks = [make(0.0, 1.0), make(1.0, 3.0), make(2.0, 9.0)]
    mixed = steady = None
    for task, total in zip(tasks, ["one", "importance", "tasks"], strict=True):
        mixed = balance(mixed, *task, total=total)
        steady = balance(steady, *task, total="tasks")
    for one, two in zip(jax.tree.leaves(mixed), jax.tree.leaves(steady), strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-6)


def test_where_no_task_has_importance_the_anchor_is_the_latest():
    omega = {"w": jnp.array([1.0, 0.0])}
    balanced = balance(None, {"w": jnp.array([1.0, 2.0])}, omega)
    balanced = balance(balanced, {"w": jnp.array([3.0, 4.0])}, omega)
    np.testing.assert_array_equal(balanced.anchor.params["w"], [2.0, 4.0])
    assert balanced.anchor.importance["w"][1] == 0.0


@each_total
def test_a_constant_factor_on_one_tasks_importance_changes_no_share(total):
    anchors = []
    for factor in (1.0, 2.0**20):
        first = balance(None, {"w": jnp.zeros(2)}, {"w": jnp.array([factor, 0.0])}, total=total)
        omega = {"w": jnp.array([3.0, 1.0])}
        anchors.append(balance(first, {"w": jnp.ones(2)}, omega, total=total).anchor)
    shares = [anchor.importance["w"] / anchor.importance["w"].sum() for anchor in anchors]
    np.testing.assert_allclose(*shares, rtol=1e-6)
    np.testing.assert_allclose(anchors[0].params["w"], anchors[1].params["w"], rtol=1e-6)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_params_keep_their_dtype_and_importance_is_float32(dtype):
    balanced = None
    for theta in (1.0, 1.5):
        params = {"w": jnp.full(2, theta, dtype)}
        balanced = balance(balanced, params, {"w": jnp.ones(2, dtype)})
    assert balanced.anchor.params["w"].dtype == dtype
    np.testing.assert_array_equal(balanced.anchor.params["w"], jnp.full(2, 1.25, dtype))
    dtypes = {leaf.dtype for leaf in jax.tree.leaves(balanced._replace(num_tasks=None))}
    assert dtypes == {jnp.dtype(dtype), jnp.dtype(jnp.float32)}


def test_float64_is_kept():
    with jax.enable_x64(True):
        balanced = None
        for theta in (0.0, 1e-12):
            omega = {"w": jnp.ones(2), "v": jnp.ones(1, jnp.float32)}
            params = {"w": jnp.full(2, theta), "v": jnp.ones(1, jnp.float32)}
            balanced = balance(balanced, params, omega)
        np.testing.assert_allclose(balanced.anchor.params["w"], 5e-13, rtol=1e-12)
        assert balanced.anchor.importance["v"].dtype == jnp.float32
        assert balanced.scale.dtype == jnp.float64
        again = BalancedAnchor.from_scalars(balanced.anchor, balanced.scalars())
        assert again.scale.dtype == jnp.float64


def test_jit_changes_nothing_and_compiles_once():
    step = jax.jit(lambda *arguments: balance(*arguments))
    plain = jitted = balance(None, *make())
    for value in (2.0, 3.0, 4.0):
        plain, jitted = balance(plain, *make(value, value)), step(jitted, *make(value, value))
        for one, two in zip(jax.tree.leaves(plain), jax.tree.leaves(jitted), strict=True):
            np.testing.assert_allclose(one, two, rtol=1e-6)
    assert step._cache_size() == 1


def test_the_anchor_outlives_what_it_was_made_of():
    donate = jax.jit(lambda tree: jax.tree.map(jnp.negative, tree), donate_argnums=0)
    inputs = make(2.0)
    first = balance(None, *inputs)
    donate(inputs)
    inputs = make(4.0)
    second = balance(first, *inputs)
    donate((inputs, first.anchor))
    np.testing.assert_array_equal(second.anchor.params["w"], [3.0, 3.0])


def test_it_is_an_anchor_like_any_other_to_the_optimizer():
    # Two tasks of the same Ω = 2 at 1 and 3: Ω = 4 at 2. From θ = 3: −0.1 · ½ · 4 · (3 − 2).
    balanced = balance(balance(None, *make(1.0, 2.0)), *make(3.0, 2.0))
    params = {"w": jnp.full(2, 3.0)}
    tx = optax.chain(mas_jax.anchor_penalty(0.5), optax.sgd(0.1))
    state = mas_jax.with_anchor(tx.init(params), balanced.anchor)
    updates, _ = tx.update({"w": jnp.zeros(2)}, state, params)
    np.testing.assert_allclose(updates["w"], [-0.2, -0.2], rtol=1e-6)


# Kept on disk.


def test_stored_and_read_back_it_goes_on_bit_for_bit(tmp_path):
    tasks = [make(0.1, 0.3), make(1.7, 7e-4), make(2.9, 31.0)]
    balanced = balance(balance(None, *tasks[0]), *tasks[1], total="one")
    store = AnchorStore(tmp_path)
    extra = {"balanced": balanced.scalars()}
    store.save("b", balanced.anchor, objective="squared_l2_norm", num_samples=1, extra=extra)

    scalars = AnchorStore(tmp_path).metadata("b")["extra"]["balanced"]
    restored = store.restore("b", like=tasks[0][0])
    again = BalancedAnchor.from_scalars(restored, scalars)
    assert jax.tree.structure(again) == jax.tree.structure(balanced)
    for one, two in zip(jax.tree.leaves(again), jax.tree.leaves(balanced), strict=True):
        assert one.dtype == two.dtype
        np.testing.assert_array_equal(one, two)
    went_on = [balance(start, *tasks[2], total="one") for start in (balanced, again)]
    jax.tree.map(np.testing.assert_array_equal, *went_on)


def test_scalars_are_plain_json():
    scalars = balance(None, *make(omega=0.3)).scalars()
    assert json.loads(json.dumps(scalars)) == scalars
    assert scalars.keys() == {"scale", "inverse_sum", "importance_sum", "num_tasks"}
    assert scalars["num_tasks"] == 1
    assert scalars["importance_sum"] == float(2 * np.float32(0.3))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("scale"), "scalars must have scale, inverse_sum, .*got inverse_sum, imp"),
        (lambda s: s.clear(), "scalars must have scale, .*; got none"),
        (lambda s: s.update(x=1), "scalars must have scale, .*num_tasks, x"),
        (lambda s: s.update(scale=0.0), r"scalars\['scale'\] must be finite and above 0, got 0.0"),
        (lambda s: s.update(num_tasks=-1), r"scalars\['num_tasks'\] must be .*, got -1"),
        (lambda s: s.update(inverse_sum=np.nan), r"scalars\['inverse_sum'\] must be .*, got nan"),
        (lambda s: s.update(importance_sum=np.inf), r"\['importance_sum'\] must be .*, got inf"),
    ],
)
def test_scalars_that_are_not_its_own_are_an_error(change, message):
    balanced = balance(None, *make())
    change(scalars := balanced.scalars())
    with pytest.raises(ValueError, match=message):
        BalancedAnchor.from_scalars(balanced.anchor, scalars)


# Errors.


def test_an_unknown_total_is_an_error():
    with pytest.raises(ValueError, match="total must be one of 'importance', 'one', 'tasks', got"):
        balance(None, *make(), total="all")


@pytest.mark.parametrize("first", [True, False])
@each_total
def test_a_task_without_importance_is_an_error(total, first):
    before = None if first else balance(None, *make())
    with pytest.raises(ValueError, match=r"importance is 0 everywhere: .*Leave it out"):
        balance(before, *make(omega=0.0), total=total)
    traced = jax.jit(lambda *inputs: balance(*inputs, total=total))(before, *make(omega=0.0))
    assert jnp.isnan(traced.anchor.importance["w"]).all()


def test_importance_that_covers_nothing_is_an_error():
    with pytest.raises(ValueError, match="importance is 0 everywhere"):
        balance(None, {"w": jnp.ones(2)}, {"w": optax.MaskedNode()})


@each_total
def test_importance_beyond_what_can_be_weighed_is_an_error(total):
    before = balance(None, *make())
    with pytest.raises(mas_jax.NonFiniteError, match=r"sums to inf, beyond what float32 can weigh"):
        balance(before, *make(omega=3e38), total=total)


@pytest.mark.parametrize(
    ("omega", "error", "message"),
    [
        ([1.0, -1.0], ValueError, r"importance\['w'\] has negative entries"),
        ([1.0, np.nan], mas_jax.NonFiniteError, r"importance\['w'\] has NaN or infinite entries"),
        ([1.0], mas_jax.TreeMismatchError, r"importance\['w'\] has shape \(1,\), but params has"),
    ],
)
def test_bad_importance_is_an_error_new_or_old(omega, error, message):
    params, good = make()
    with pytest.raises(error, match=message):
        balance(None, params, {"w": jnp.array(omega)})
    first = balance(None, params, good)
    bad = first._replace(anchor=Anchor(params, {"w": jnp.array(omega)}))
    with pytest.raises(error, match=message if len(omega) == 2 else "but anchor has"):
        balance(bad, params, good)


def test_another_models_balanced_anchor_is_an_error():
    with pytest.raises(mas_jax.TreeMismatchError, match=r"no leaf \['w'\], which anchor has"):
        balance(balance(None, *make()), {"v": jnp.ones(2)}, {"v": jnp.ones(2)})


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_params_that_diverged_are_an_error(bad):
    with pytest.raises(mas_jax.NonFiniteError, match=r"params\['w'\] has NaN or infinite entries"):
        balance(None, {"w": jnp.array([1.0, bad])}, {"w": jnp.ones(2)})
