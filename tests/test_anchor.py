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
from tests import oracle

pytestmark = pytest.mark.usefixtures("strict_dtypes")

# Each rule with the number it needs.
RULES = {
    "sum": {},
    "mean": {"num_tasks": 3},
    "decay": {"decay": 0.5},
    "max": {},
}
OMEGA = st.lists(st.floats(0, 1e3, width=32, allow_subnormal=False), min_size=3, max_size=3)

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


@each_rule
@given(before=OMEGA, new=OMEGA)
def test_importance_agrees_with_the_oracle(rule, before, new):
    params = {"w": jnp.zeros(3)}
    anchor = consolidate(None, params, {"w": np.float32(before)})
    anchor = consolidate(anchor, params, {"w": np.float32(new)}, rule=rule, **RULES[rule])
    number = next(iter(RULES[rule].values()), None)
    expected = oracle.consolidate(rule, np.float32(before), np.float32(new), number)
    np.testing.assert_allclose(anchor.importance["w"], expected, rtol=1e-6)
    assert (anchor.importance["w"] >= 0).all()


@pytest.mark.parametrize(
    ("rule", "options", "expected"),
    # Ω = 4 before and 2 now: 4 + 2; (3·4 + 2)/4; 0.5·4 + 2; max(4, 2).
    [
        ("sum", {}, 6.0),
        ("mean", {"num_tasks": 3}, 3.5),
        ("mean", {"num_tasks": 1}, 3.0),
        ("decay", {"decay": 0.5}, 4.0),
        ("decay", {"decay": 0.0}, 2.0),
        ("decay", {"decay": 1.0}, 6.0),
        ("max", {}, 4.0),
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


# Errors.


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rule": "median"}, "rule must be one of 'sum', 'mean', 'decay', 'max', got 'median'"),
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
