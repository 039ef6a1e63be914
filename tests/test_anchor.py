"""The anchor: θ* and Ω, joined over tasks."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st

import mas_jax
from mas_jax import Anchor, consolidate
from tests import oracle, oracle_anchors

pytestmark = pytest.mark.usefixtures("strict_dtypes")

# Each rule with the number it needs.
RULES = {
    "sum": {},
    "mean": {"num_tasks": 3},
    "decay": {"decay": 0.5},
    "max": {},
    "replace": {},
}
OMEGA = st.lists(st.floats(0, 1e3, width=32, allow_subnormal=False), min_size=3, max_size=3)
TINY = np.finfo(np.float32).tiny

each_rule = pytest.mark.parametrize("rule", RULES)


def make(params=1.0, omega=1.0):
    """Params and importance of a model with a masked head."""

    def trunk(value):
        # The dtype is said, or the arrays are weakly typed and the library's cast copies them.
        return {"w": jnp.full(2, value, jnp.float32), "b": jnp.full((), value, jnp.float32)}

    return (
        {"trunk": trunk(params), "head": jnp.full(3, params, jnp.float32)},
        {"trunk": trunk(omega), "head": optax.MaskedNode()},
    )


@pytest.mark.parametrize("rule", [rule for rule in RULES if rule != "replace"])
@given(before=OMEGA, new=OMEGA)
def test_importance_agrees_with_the_oracle(rule, before, new):
    params = {"w": jnp.zeros(3)}
    anchor = consolidate(None, params, {"w": np.float32(before)})
    anchor = consolidate(anchor, params, {"w": np.float32(new)}, rule=rule, **RULES[rule])
    number = next(iter(RULES[rule].values()), None)
    expected = oracle.consolidate(rule, np.float32(before), np.float32(new), number)
    # XLA flushes to 0 what is smaller, and half of the smallest normal number is.
    np.testing.assert_allclose(anchor.importance["w"], expected, rtol=1e-6, atol=TINY)
    assert (anchor.importance["w"] >= 0).all()


@pytest.mark.parametrize(
    ("rule", "options", "expected"),
    # Ω = 4 before and 2 now: 4 + 2; (3·4 + 2)/4; 0.5·4 + 2; max(4, 2); 2.
    [
        ("sum", {}, 6.0),
        ("mean", {"num_tasks": 3}, 3.5),
        ("mean", {"num_tasks": 1}, 3.0),
        ("decay", {"decay": 0.5}, 4.0),
        ("decay", {"decay": 0.0}, 2.0),
        ("decay", {"decay": 1.0}, 6.0),
        ("max", {}, 4.0),
        ("replace", {}, 2.0),
    ],
)
def test_rules_closed_form(rule, options, expected):
    anchor = consolidate(None, *make(params=1.0, omega=4.0))
    anchor = consolidate(anchor, *make(params=9.0, omega=2.0), rule=rule, **options)
    assert anchor.importance["trunk"]["b"] == expected
    np.testing.assert_array_equal(anchor.params["trunk"]["w"], [9.0, 9.0])


def test_sum_is_the_default_rule():
    anchor = consolidate(consolidate(None, *make(omega=4.0)), *make(omega=2.0))
    assert anchor.importance["trunk"]["b"] == 6.0


@each_rule
def test_the_first_anchor_is_the_first_task(rule):
    params, omega = make(params=3.0, omega=2.0)
    anchor = consolidate(None, params, omega, rule=rule, **RULES[rule])
    np.testing.assert_array_equal(anchor.params["trunk"]["w"], params["trunk"]["w"])
    np.testing.assert_array_equal(anchor.importance["trunk"]["w"], omega["trunk"]["w"])


def test_mean_over_tasks_is_the_mean():
    omegas = [1.0, 2.0, 6.0]
    anchor = consolidate(None, *make(omega=omegas[0]))
    for tasks, omega in enumerate(omegas[1:], start=1):
        anchor = consolidate(anchor, *make(omega=omega), rule="mean", num_tasks=tasks)
    np.testing.assert_allclose(anchor.importance["trunk"]["b"], 3.0, rtol=1e-6)


def test_both_trees_have_the_structure_of_importance():
    params, omega = make()
    anchor = consolidate(None, params, omega)
    assert jax.tree.structure(anchor.params) == jax.tree.structure(omega)
    assert jax.tree.structure(anchor.importance) == jax.tree.structure(omega)
    assert isinstance(anchor.params["head"], optax.MaskedNode)


def test_a_masked_subtree_hides_all_of_its_leaves():
    params = {"w": jnp.ones(2), "head": {"kernel": jnp.ones(2), "steps": jnp.arange(2)}}
    omega = {"w": jnp.ones(2), "head": optax.MaskedNode()}
    anchor = consolidate(consolidate(None, params, omega), params, omega)
    assert len(jax.tree.leaves(anchor)) == 2


@each_rule
@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.float32])
def test_params_keep_their_dtype_and_importance_is_float32(rule, dtype):
    params = {"w": jnp.ones(2, dtype)}
    anchor = consolidate(None, params, {"w": jnp.ones(2, dtype)})
    anchor = consolidate(anchor, params, {"w": jnp.ones(2)}, rule=rule, **RULES[rule])
    assert anchor.params["w"].dtype == dtype
    assert anchor.importance["w"].dtype == jnp.float32


@each_rule
def test_float64_is_kept(rule):
    with jax.enable_x64(True):
        params, omega = {"w": jnp.ones(2)}, {"w": jnp.full(2, 1e-12)}
        anchor = consolidate(
            consolidate(None, params, omega), params, omega, rule=rule, **RULES[rule]
        )
        assert anchor.params["w"].dtype == anchor.importance["w"].dtype == jnp.float64


def test_numpy_trees_are_welcome():
    anchor = consolidate(None, {"w": np.ones(2, np.float32)}, {"w": np.ones(2, np.float32)})
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(anchor))


def test_the_anchor_is_a_copy():
    params, omega = {"w": np.ones(2, np.float32)}, {"w": np.ones(2, np.float32)}
    anchor = consolidate(None, params, omega)
    params["w"][:], omega["w"][:] = 7.0, 7.0
    np.testing.assert_array_equal(anchor.params["w"], [1.0, 1.0])
    np.testing.assert_array_equal(anchor.importance["w"], [1.0, 1.0])


@each_rule
def test_the_anchor_outlives_what_it_was_made_of(rule):
    donate = jax.jit(lambda tree: jax.tree.map(jnp.negative, tree), donate_argnums=0)
    inputs = make(params=2.0, omega=1.0)
    first = consolidate(None, *inputs)
    donate(inputs)
    inputs = make(params=3.0, omega=1.0)
    second = consolidate(first, *inputs, rule=rule, **RULES[rule])
    donate((inputs, first))
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves((inputs, first)))
    np.testing.assert_array_equal(second.params["trunk"]["w"], [3.0, 3.0])
    assert second.importance["trunk"]["w"].sum() > 0


@each_rule
def test_jit_changes_nothing_and_compiles_once(rule):
    def join(anchor, params, omega):
        return consolidate(anchor, params, omega, rule=rule, **RULES[rule])

    jitted = jax.jit(join)
    first = consolidate(None, *make(omega=4.0))
    for value in (2.0, 3.0):
        arguments = first, *make(params=value, omega=value)
        got, wanted = jitted(*arguments), join(*arguments)
        assert jax.tree.structure(got) == jax.tree.structure(wanted)
        for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(wanted), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-6)
    assert jitted._cache_size() == 1


# The center of all tasks.

VALUE = st.floats(-8, 8, width=32, allow_subnormal=False)
WEIGHT = st.one_of(st.just(0.0), st.floats(2.0**-10, 2.0**10, width=32))
TASKS = st.lists(
    st.tuples(
        st.lists(VALUE, min_size=3, max_size=3), st.lists(WEIGHT, min_size=3, max_size=3)
    ).map(lambda task: oracle_anchors.Task(*map(np.float32, task))),
    min_size=1,
    max_size=5,
)


def folded(tasks, dtype=jnp.float32, **options):
    """The anchor of all tasks, with center="all"."""
    anchor = None
    for task in tasks:
        params, omega = {"w": jnp.asarray(task.theta, dtype)}, {"w": jnp.asarray(task.omega)}
        anchor = consolidate(anchor, params, omega, center="all", **options)
    return anchor


@pytest.mark.parametrize("decay", [None, 0.0, 0.3, 1.0])
@given(tasks=TASKS, theta=st.lists(VALUE, min_size=3, max_size=3))
def test_one_folded_penalty_is_the_sum_of_all_tasks_own(decay, tasks, theta):
    options = {} if decay is None else {"rule": "decay", "decay": decay}
    last = len(tasks) - 1
    weights = [1.0 if decay is None else decay ** (last - t) for t in range(len(tasks))]
    anchor, params = folded(tasks, **options), {"w": jnp.asarray(theta, jnp.float32)}
    size = oracle_anchors.gradient_size(theta, tasks, weights)

    grads = jax.grad(mas_jax.penalty)(params, anchor, 1.0)["w"]
    expected = oracle_anchors.separate_gradient(theta, tasks, weights)
    assert (abs(grads - expected) <= 3e-6 * size).all()

    # The values differ by a constant in θ: between θ and 0 they rise alike.
    zeros = np.zeros(3)
    risen = mas_jax.penalty(params, anchor, 1.0) - mas_jax.penalty({"w": zeros}, anchor, 1.0)
    expected = oracle_anchors.separate_penalty(theta, tasks, weights)
    expected -= oracle_anchors.separate_penalty(zeros, tasks, weights)
    bound = 3e-6 * float(np.sum(size) * (8 + np.max(np.abs(theta))))
    assert abs(float(risen) - expected) <= bound


def test_the_center_of_all_closed_form():
    # Ω = 1 at 0, then 3 at 4: (1·0 + 3·4)/4 = 3. Decayed by ½: (½·0 + 3·4)/3.5 = 24/7. Then 4 at
    # −1: (4·3 − 4·1)/8 = 1.
    tasks = [oracle_anchors.Task([theta], [omega]) for theta, omega in [(0, 1.0), (4, 3.0)]]
    tasks.append(oracle_anchors.Task([-1], [4.0]))
    assert folded(tasks[:2]).params["w"][0] == 3.0
    decayed = folded(tasks[:2], rule="decay", decay=0.5)
    np.testing.assert_allclose(decayed.params["w"], [24 / 7], rtol=1e-6)
    assert folded(tasks).params["w"][0] == 1.0
    assert folded(tasks).importance["w"][0] == 8.0
    assert consolidate(None, {"w": jnp.ones(1)}, {"w": jnp.ones(1)}).params["w"] == 1.0


def test_latest_is_the_default_center():
    anchor = consolidate(None, *make(params=1.0))
    for options in ({}, {"center": "latest"}):
        assert consolidate(anchor, *make(params=9.0), **options).params["trunk"]["b"] == 9.0
    assert consolidate(anchor, *make(params=9.0), center="all").params["trunk"]["b"] == 5.0


@pytest.mark.parametrize(
    ("before", "new", "expected"),
    # θ* = 2 before and 1e-9 now. Where one side weighs nothing the other's is kept to the bit,
    # which 2 + 1 · (1e-9 − 2) would not do; where neither does it is the new θ. Denormals are 0
    # to XLA's CPU backend, and may be numbers to another.
    [
        (0.0, 3.0, 1e-9),
        (3.0, 0.0, 2.0),
        (0.0, 0.0, 1e-9),
        (1e-38, 3e38, 1e-9),
        (3e38, 1e-38, 2.0),
        (2e-38, 2e-38, 1.0),
        (2e-38, 6e-38, 0.5),
        (1e38, 1e38, 1.0),
        (3e38, 3e38, 1.0),
        (3e38, 1e38, 1.5),
    ],
)
@pytest.mark.parametrize("jit", [False, True])
def test_the_center_of_all_is_right_for_any_importance(before, new, expected, jit):
    def fold(anchor, params, omega):
        return consolidate(anchor, params, omega, center="all").params["w"]

    anchor = consolidate(None, {"w": jnp.float32(2.0)}, {"w": jnp.float32(before)})
    arguments = anchor, {"w": jnp.float32(1e-9)}, {"w": jnp.float32(new)}
    got = (jax.jit(fold) if jit else fold)(*arguments)
    np.testing.assert_allclose(got, np.float32(expected), rtol=1e-6)


def test_denormal_importance_gives_no_nan():
    for before, new in [(1e-40, 1e-40), (1e-38, 1e-38), (1e-40, 0.0), (0.0, 1e-45), (1e-45, 3e38)]:
        anchor = consolidate(None, {"w": jnp.float32(2.0)}, {"w": jnp.float32(before)})
        anchor = consolidate(anchor, {"w": jnp.float32(1)}, {"w": jnp.float32(new)}, center="all")
        assert 1.0 <= anchor.params["w"] <= 2.0


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_the_center_of_all_is_computed_wide_and_rounded_once(dtype):
    tasks = [oracle_anchors.Task(theta, [1.0, 2.0]) for theta in ([1.0, 3.0], [1.5, 3.5])]
    anchor = folded(tasks, dtype)
    assert anchor.params["w"].dtype == dtype
    np.testing.assert_array_equal(anchor.params["w"], jnp.array([1.25, 3.25], dtype))
    # 300 tasks at 1 and one at 1 + 2⁻⁷: bfloat16's own arithmetic would not see the last.
    wide = consolidate(Anchor({"w": jnp.ones(1, dtype)}, {"w": jnp.full(1, 300.0)}),
                       {"w": jnp.full(1, 1.5, dtype)}, {"w": jnp.full(1, 100.0)},
                       center="all")  # fmt: skip
    assert wide.params["w"] == jnp.asarray(1.125, dtype)


def test_the_center_of_all_in_float64():
    with jax.enable_x64(True):
        params, omega = {"w": jnp.full(2, 1e-12)}, {"w": jnp.ones(2)}
        first = consolidate(None, {"w": jnp.zeros(2)}, omega)
        anchor = consolidate(first, params, omega, center="all")
        assert anchor.params["w"].dtype == jnp.float64
        np.testing.assert_allclose(anchor.params["w"], 5e-13, rtol=1e-12)
        # float32 parameters under float64 importance stay float32.
        thin = {"w": jnp.ones(2, jnp.float32)}
        mixed = consolidate(first, thin, omega, center="all").params["w"]
        assert mixed.dtype == jnp.float32
        np.testing.assert_array_equal(mixed, [0.5, 0.5])


def test_folding_keeps_masks_and_outlives_what_it_was_made_of():
    donate = jax.jit(lambda tree: jax.tree.map(jnp.negative, tree), donate_argnums=0)
    first, inputs = consolidate(None, *make(params=2.0)), make(params=4.0)
    second = consolidate(first, *inputs, center="all")
    donate((inputs, first))
    np.testing.assert_array_equal(second.params["trunk"]["w"], [3.0, 3.0])
    assert isinstance(second.params["head"], optax.MaskedNode)


def test_folding_compiles_once():
    fold = jax.jit(lambda *arguments: consolidate(*arguments, center="all"))
    first = consolidate(None, *make(omega=4.0))
    for value in (2.0, 3.0):
        got = fold(first, *make(params=value, omega=value))
        wanted = consolidate(first, *make(params=value, omega=value), center="all")
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), got, wanted)
    assert fold._cache_size() == 1


@pytest.mark.parametrize(
    ("old_params", "error", "message"),
    [
        (
            {"v": jnp.ones(2)},
            mas_jax.TreeMismatchError,
            r"importance has no leaf \['v'\], which anchor.params has",
        ),
        ({"w": jnp.ones(3)}, mas_jax.TreeMismatchError, r"anchor.params has \(3,\) there"),
        (
            {"w": jnp.array([1.0, np.inf])},
            mas_jax.NonFiniteError,
            r"anchor.params\['w'\] has NaN or infinite entries",
        ),
    ],
)
def test_an_old_center_that_does_not_fit_is_an_error(old_params, error, message):
    params, omega = {"w": jnp.ones(2)}, {"w": jnp.ones(2)}
    with pytest.raises(error, match=message):
        consolidate(Anchor(old_params, omega), params, omega, center="all")


# Measuring again.


def test_going_on_with_the_state_and_replacing_weighs_samples_alike():
    # g = 2 w x²: 2 for x = 1, 18 for x = 3. Three samples of the one, one of the other: 24/4 = 6.
    params = {"w": jnp.ones(1)}
    estimator = mas_jax.importance_estimator(lambda p, x: x * p["w"].reshape(1, 1))
    state = estimator.update(estimator.init(params), params, jnp.ones((3, 1)))
    anchor = consolidate(None, params, estimator.finalize(state))
    state = estimator.update(state, params, jnp.full((1, 1), 3.0))
    again = consolidate(anchor, params, estimator.finalize(state), rule="replace")
    assert anchor.importance["w"] == 2.0
    assert again.importance["w"] == 6.0


def test_replacing_wants_the_same_leaves():
    anchor = consolidate(None, *make())
    params, omega = make()
    covered = {**omega, "head": jnp.ones(3)}
    with pytest.raises(mas_jax.TreeMismatchError, match=r"anchor has no leaf \['head'\]"):
        consolidate(anchor, params, covered, rule="replace")


# Errors.


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"rule": "median"},
            "rule must be one of 'sum', 'mean', 'decay', 'max', 'replace', got 'median'",
        ),
        ({"center": "mean"}, "center must be one of 'latest', 'all', got 'mean'"),
        *(
            (
                {"rule": rule, "center": "all", **RULES[rule]},
                f'center="all" is the sum .* rule="sum" and rule="decay" only; got rule={rule!r}',
            )
            for rule in ("mean", "max", "replace")
        ),
        ({"rule": "mean"}, "num_tasks, the number of tasks .*rule='mean', num_tasks=None"),
        ({"rule": "mean", "num_tasks": 0}, r"num_tasks, .*\(at least 1\).*num_tasks=0"),
        ({"num_tasks": 2}, "goes with rule=\"mean\" and only with it; got rule='sum'"),
        ({"rule": "decay"}, "decay, a factor between 0 and 1, .*rule='decay', decay=None"),
        ({"rule": "decay", "decay": 1.5}, "decay, a factor between 0 and 1, .*decay=1.5"),
        ({"rule": "decay", "decay": -0.1}, "decay, a factor between 0 and 1, .*decay=-0.1"),
        ({"rule": "decay", "decay": float("nan")}, "decay, a factor between 0 and 1, .*decay=nan"),
        ({"decay": 0.5}, "goes with rule=\"decay\" and only with it; got rule='sum'"),
    ],
)
@pytest.mark.parametrize("first", [True, False])
def test_rule_errors(options, message, first):
    anchor = None if first else consolidate(None, *make())
    with pytest.raises(ValueError, match=message):
        consolidate(anchor, *make(), **options)


@pytest.mark.parametrize(
    ("params", "omega", "message"),
    [
        (
            {"w": jnp.ones(2)},
            {"v": jnp.ones(2)},
            r"params has no leaf \['v'\], which importance has; was it computed for another model",
        ),
        (
            {"w": jnp.ones(2), "x": jnp.ones(2), "y": jnp.ones(2)},
            {"w": jnp.ones(2)},
            r"importance has no leaf \['x'\], which params has; .*optax.MaskedNode\(\) there",
        ),
        (
            {"w": jnp.ones(2)},
            {"w": jnp.ones(3)},
            r"importance\['w'\] has shape \(3,\), but params has \(2,\) there",
        ),
    ],
)
def test_importance_of_another_model_is_an_error(params, omega, message):
    with pytest.raises(mas_jax.TreeMismatchError, match=message):
        consolidate(None, params, omega)


@pytest.mark.parametrize(
    ("before", "new", "message"),
    [
        (
            {"w": jnp.ones(2), "x": optax.MaskedNode(), "y": optax.MaskedNode()},
            {"w": jnp.ones(2), "x": jnp.ones(2), "y": jnp.ones(2)},
            r"anchor has no leaf \['x'\], which importance has; .*under another mask",
        ),
        (
            {"w": jnp.ones(2), "x": jnp.ones(2), "y": jnp.ones(2)},
            {"w": jnp.ones(2), "x": optax.MaskedNode(), "y": optax.MaskedNode()},
            r"importance has no leaf \['x'\], which anchor has; .*under another mask",
        ),
    ],
)
def test_importance_under_another_mask_is_an_error(before, new, message):
    params = {"w": jnp.ones(2), "x": jnp.ones(2), "y": jnp.ones(2)}
    anchor = consolidate(None, params, before)
    with pytest.raises(mas_jax.TreeMismatchError, match=message):
        consolidate(anchor, params, new)


def test_an_anchor_of_another_shape_is_an_error():
    anchor = consolidate(None, {"w": jnp.ones(3)}, {"w": jnp.ones(3)})
    message = r"importance\['w'\] has shape \(2,\), but anchor has \(3,\) there"
    with pytest.raises(mas_jax.TreeMismatchError, match=message):
        consolidate(anchor, {"w": jnp.ones(2)}, {"w": jnp.ones(2)})


@pytest.mark.parametrize(
    ("omega", "error", "message"),
    [
        ([1.0, -1e-6], ValueError, r"importance\['w'\] has negative entries"),
        ([1.0, np.nan], mas_jax.NonFiniteError, r"importance\['w'\] has NaN or infinite entries"),
        ([np.inf, 1.0], mas_jax.NonFiniteError, r"importance\['w'\] has NaN or infinite entries"),
        ([1, 2], TypeError, r"importance\['w'\] is int32, wanted floating point"),
    ],
)
def test_bad_importance_is_an_error_new_or_old(omega, error, message):
    params, good = {"w": jnp.ones(2)}, {"w": jnp.ones(2)}
    with pytest.raises(error, match=message):
        consolidate(None, params, {"w": jnp.asarray(omega)})
    with pytest.raises(error, match=message):
        consolidate(Anchor(params, {"w": jnp.asarray(omega)}), params, good)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_params_that_diverged_are_an_error(bad):
    with pytest.raises(mas_jax.NonFiniteError, match=r"params\['w'\] has NaN or infinite entries"):
        consolidate(None, {"w": jnp.array([1.0, bad])}, {"w": jnp.ones(2)})
