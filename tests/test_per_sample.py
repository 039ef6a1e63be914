"""The engine: Σ_k w_k red(g_k) over the samples of one batch, and which outputs were finite."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st

import mas_jax
from mas_jax import per_sample, trees
from tests import oracle

pytestmark = pytest.mark.usefixtures("strict_dtypes")


def signed(grads):
    return grads


def run(engine, params, batch, weights=None, covered=None):
    covered = trees.covered(params) if covered is None else covered
    weights = jnp.ones(len(jax.tree.leaves(batch)[0])) if weights is None else jnp.asarray(weights)
    return engine(params, covered, batch, weights)


def linear(params, x):
    return x @ params["kernel"]


def linear_engine(**options):
    return per_sample.vmap_engine(linear, mas_jax.squared_l2_norm, jnp.abs, **options)


@pytest.mark.parametrize("microbatch_size", [1, 2, 3, 7, 100, None])
def test_sums_agree_with_the_oracle_for_every_microbatch_size(mlp, microbatch_size):
    engine = per_sample.vmap_engine(mlp.apply_fn, mas_jax.squared_l2_norm, jnp.abs, microbatch_size)
    weights = [1.0, 0.5, 2.0, 0.0, 1.0, 3.0, 0.25]
    result = run(engine, mlp.params, mlp.inputs, weights)
    expected = oracle.importance(mlp.params64, mlp.inputs, weights)
    expected = oracle.map_network(lambda omega: sum(weights) * omega, expected)
    jax.tree.map(
        lambda got, wanted: np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-6),
        result.sums,
        expected,
    )
    np.testing.assert_array_equal(result.finite, [True] * 7)


def test_reduction_comes_before_the_sum():
    # F = x + b at b = 0 for x = ±1: g = 2(x + b) = ±2, so Σ|g| = 4, Σg² = 8 and Σg = 0.
    params, batch = {"b": jnp.zeros(1)}, jnp.array([[1.0], [-1.0]])
    for reduce_fn, expected in [(jnp.abs, 4.0), (jnp.square, 8.0), (signed, 0.0)]:
        engine = per_sample.vmap_engine(
            lambda params, x: x + params["b"][None], mas_jax.squared_l2_norm, reduce_fn
        )
        assert run(engine, params, batch).sums["b"] == expected


@given(bad=st.sets(st.integers(0, 4)), microbatch_size=st.sampled_from([None, 2, 3]))
def test_samples_with_non_finite_outputs_are_flagged_and_add_nothing(bad, microbatch_size):
    # F = w·x with w = 1: g = 2x², exact in float32 for small whole numbers.
    x = np.array([[1.0], [2.0], [3.0], [4.0], [5.0]], np.float32)
    good = [k not in bad for k in range(5)]
    expected = sum(2 * x[k, 0] ** 2 for k in range(5) if good[k])
    x[sorted(bad)] = np.nan
    result = run(linear_engine(microbatch_size=microbatch_size), {"kernel": jnp.ones((1, 1))}, x)
    np.testing.assert_array_equal(result.finite, good)
    assert result.sums["kernel"] == expected


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_finite_looks_at_every_output_leaf(bad):
    def apply_fn(params, x):
        outputs = {"a": x[:, 1:] @ params["kernel"], "extra": x[:, 0]}
        return {**outputs, "class": jnp.zeros(len(x), jnp.int32)}

    # The objective and its gradient see the first output only.
    objective = mas_jax.squared_l2_norm
    engine = per_sample.vmap_engine(
        apply_fn, lambda outputs: objective(outputs["a"]), jnp.abs, None
    )
    batch = jnp.array([[0.0, 1.0], [bad, 1.0]])
    result = run(engine, {"kernel": jnp.array([[1.0]])}, batch)
    np.testing.assert_array_equal(result.finite, [True, False])
    assert result.sums["kernel"] == 2.0


def test_an_objective_that_overflows_is_not_finite():
    result = run(linear_engine(), {"kernel": jnp.ones((1, 1))}, jnp.array([[1e30], [1.0]]))
    np.testing.assert_array_equal(result.finite, [False, True])
    assert result.sums["kernel"] == 2.0


def test_one_sample_at_a_time_so_that_none_can_mix():
    # An apply_fn that subtracts the batch's mean would be constant 0 for one sample at a time.
    seen = []

    def apply_fn(params, x):
        seen.append(x.shape)
        return linear(params, x - x.mean(axis=0, keepdims=True))

    engine = per_sample.vmap_engine(apply_fn, mas_jax.squared_l2_norm, jnp.abs)
    sums = run(engine, {"kernel": jnp.ones((2, 1))}, jnp.arange(6.0).reshape(3, 2)).sums
    assert set(seen) == {(1, 2)}
    np.testing.assert_array_equal(sums["kernel"], np.zeros((2, 1)))


def test_only_covered_leaves_are_differentiated():
    params = {"kernel": jnp.ones((2, 1)), "head": jnp.full((1,), 3.0)}
    engine = per_sample.vmap_engine(
        lambda params, x: linear(params, x) * params["head"][None],
        mas_jax.squared_l2_norm,
        jnp.abs,
    )
    covered = {"kernel": True, "head": False}
    sums = run(engine, params, jnp.array([[1.0, 0.0]]), covered=covered).sums
    # F = 3wx: g = 2·F·3x = 18x, with x = (1, 0).
    np.testing.assert_array_equal(sums["kernel"], [[18.0], [0.0]])
    assert isinstance(sums["head"], optax.MaskedNode)


@pytest.mark.parametrize("microbatch_size", [None, 2])
@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_sums_of_low_precision_gradients_are_float32(dtype, microbatch_size):
    # Every sample has g = 2; a bfloat16 sum of 2s stalls at 512, a float16 one at 4096.
    params = {"kernel": jnp.ones((1, 1), dtype)}
    engine = linear_engine(microbatch_size=microbatch_size)
    sums = run(engine, params, jnp.ones((5000, 1), dtype)).sums
    assert sums["kernel"].dtype == jnp.float32
    assert sums["kernel"] == 10000.0


@pytest.mark.parametrize(
    ("apply_fn", "message"),
    [
        (
            lambda params, x: linear(params, x).mean(),
            r"\(the tree is a single leaf\) has shape \(\)",
        ),
        (lambda params, x: linear(params, x)[0], r"has shape \(3,\) for a batch of 1 sample"),
        (
            lambda params, x: {"a": linear(params, x), "loss": jnp.zeros(())},
            r"apply_fn's output \['loss'\] has shape \(\)",
        ),
    ],
)
def test_outputs_without_the_batch_axis_are_refused(apply_fn, message):
    engine = per_sample.vmap_engine(apply_fn, mas_jax.squared_l2_norm, jnp.abs)
    with pytest.raises(ValueError, match=message + r".*not a loss or a mean over the batch"):
        run(engine, {"kernel": jnp.ones((2, 3))}, jnp.ones((4, 2)))


@pytest.mark.parametrize(
    ("objective", "got"),
    [
        (lambda outputs: outputs[None], r"float32\[1, 3\]"),
        (lambda outputs: outputs[:0], r"float32\[0\]"),
        (lambda outputs: jnp.argmax(outputs), r"int32\[\]"),
        (lambda outputs: jax.lax.complex(*outputs[:2]), r"complex64\[\]"),
    ],
)
def test_objectives_must_return_a_real_scalar_or_vector(objective, got):
    engine = per_sample.vmap_engine(linear, objective, jnp.abs)
    with pytest.raises(ValueError, match="objective must return a real scalar.*got " + got):
        run(engine, {"kernel": jnp.ones((2, 3))}, jnp.ones((4, 2)))
