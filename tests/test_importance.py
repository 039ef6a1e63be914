"""The streaming estimator: what Ω is, and everything it must not depend on."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
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


def linear(params, x):
    return x @ params["kernel"]


def assert_close(got, wanted, rtol=1e-5, atol=1e-7):
    assert jax.tree.structure(got) == jax.tree.structure(wanted)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=atol), got, wanted)


def assert_equal(got, wanted):
    assert jax.tree.structure(got) == jax.tree.structure(wanted)
    jax.tree.map(np.testing.assert_array_equal, got, wanted)


def cut(inputs, sizes):
    """`inputs` in batches of `sizes`."""
    return np.split(inputs, np.cumsum(sizes)[:-1])


def compositions(total):
    """Ways to write `total` as an ordered sum of batch sizes."""
    cuts = st.sets(st.integers(1, total - 1))
    return cuts.map(lambda at: np.diff([0, *sorted(at), total]).tolist())


# What Ω is.


@pytest.mark.parametrize("magnitude", ["abs", "square"])
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_importance_agrees_with_the_oracle(mlp, objective, magnitude):
    omega = mas_jax.estimate_importance(
        mlp.apply_fn, mlp.params, [mlp.inputs],
        objective=OBJECTIVES[objective], magnitude=magnitude,
    )  # fmt: skip
    expected = oracle.importance(mlp.params64, mlp.inputs, None, objective, magnitude)
    assert_close(omega, expected, atol=1e-6)


def test_linear_layer_closed_form():
    # For F = Wᵀx, ∂‖F‖²/∂W = 2 x Fᵀ. With W = [[1, 0], [1, −1]] (inputs × outputs):
    #   x = (1, 0):  F = (1, 0),  |2 x Fᵀ| = [[2, 0], [0, 0]]
    #   x = (1, −2): F = (−1, 2), |2 x Fᵀ| = [[2, 4], [4, 8]]
    # and Ω is the mean of the two.
    params = {"kernel": jnp.array([[1.0, 0.0], [1.0, -1.0]])}
    omega = mas_jax.estimate_importance(linear, params, [jnp.array([[1.0, 0.0], [1.0, -2.0]])])
    np.testing.assert_array_equal(omega["kernel"], [[2.0, 2.0], [2.0, 4.0]])


def test_gradients_of_opposite_sign_do_not_cancel():
    # F = x + b at b = 0, x = ±1: g = 2(x + b) = ±2. Per sample, mean |g| = 2; of a whole batch,
    # |mean g| = 0.
    def shift(params, x):
        return x + params["b"][None]

    params, batch = {"b": jnp.zeros(1)}, jnp.array([[1.0], [-1.0]])
    assert mas_jax.estimate_importance(shift, params, [batch])["b"] == 2.0
    assert mas_jax.estimate_importance(shift, params, [batch], reduction="batch")["b"] == 0.0


def test_batches_and_outputs_may_be_pytrees():
    # F = {a: w·x, b: v·y} at w = 2, v = 3 for one sample x = 1, y = −1: ‖F‖² = (wx)² + (vy)²,
    # so Ω_w = |2 w x²| = 4 and Ω_v = |2 v y²| = 6; the class counts for nothing.
    def apply_fn(params, batch):
        outputs = {"a": params["w"] * batch["x"], "b": (params["v"] * batch["y"],)}
        return {**outputs, "class": jnp.zeros(1, jnp.int32)}

    params = {"w": jnp.array([2.0]), "v": jnp.array([3.0])}
    batch = {"x": jnp.array([1.0]), "y": jnp.array([-1.0])}
    omega = mas_jax.estimate_importance(apply_fn, params, [batch])
    assert_equal(omega, {"w": np.array([4.0]), "v": np.array([6.0])})


def test_integer_inputs_reach_an_embedding():
    # One token per sample, F = E[token]: ∂‖F‖²/∂E is 2 E[token] in its row. Token 1 is seen in
    # two samples of three, token 2 in one, token 0 in none.
    params = {"embedding": jnp.array([[1.0], [2.0], [-3.0]])}
    omega = mas_jax.estimate_importance(
        lambda params, tokens: params["embedding"][tokens], params, [np.array([1, 2, 1])]
    )
    np.testing.assert_allclose(omega["embedding"], [[0.0], [8 / 3], [2.0]], rtol=1e-6)


def test_zero_outputs_have_zero_importance_under_the_norm():
    params = {"kernel": jnp.zeros((2, 2))}
    omega = mas_jax.estimate_importance(
        linear, params, [np.ones((3, 2))], objective=mas_jax.l2_norm
    )
    np.testing.assert_array_equal(omega["kernel"], np.zeros((2, 2)))


# The batch-level formula of others.


@pytest.mark.parametrize("magnitude", ["abs", "square"])
def test_batch_reduction_agrees_with_the_oracle(mlp, magnitude):
    batches = cut(mlp.inputs, [3, 3, 1])
    omega = mas_jax.estimate_importance(
        mlp.apply_fn, mlp.params, batches, reduction="batch", magnitude=magnitude
    )
    expected = oracle.batch_importance(mlp.params64, batches, magnitude=magnitude)
    assert_close(omega, expected, atol=1e-6)


def test_batch_reduction_is_the_exact_one_for_batches_of_one_only(mlp):
    exact = mas_jax.estimate_importance(mlp.apply_fn, mlp.params, [mlp.inputs])
    ones = cut(mlp.inputs, [1] * 7)
    of_ones = mas_jax.estimate_importance(mlp.apply_fn, mlp.params, ones, reduction="batch")
    assert_close(of_ones, exact)
    whole = mas_jax.estimate_importance(mlp.apply_fn, mlp.params, [mlp.inputs], reduction="batch")
    # |mean g| ≤ mean |g|, and less wherever signs differ, as they do in most of these entries.
    difference = jax.tree.map(lambda a, b: np.asarray(a - b), exact, whole)
    assert all((leaf >= -1e-6).all() for leaf in jax.tree.leaves(difference))
    assert sum((leaf > 1e-2).sum() for leaf in jax.tree.leaves(difference)) > 20


def test_batch_reduction_does_not_depend_on_the_microbatch_size(mlp):
    omegas = [
        mas_jax.estimate_importance(
            mlp.apply_fn, mlp.params, [mlp.inputs], reduction="batch", microbatch_size=size
        )
        for size in (2, 7)
    ]
    assert_close(*omegas, atol=1e-6)


# What Ω does not depend on.


@given(order=st.permutations(range(5)), sizes=compositions(5))
def test_order_and_division_into_batches_change_nothing(mlp, order, sizes):
    omega = mas_jax.estimate_importance(mlp.apply_fn, mlp.params, cut(mlp.inputs[order], sizes))
    assert_close(omega, oracle.importance(mlp.params64, mlp.inputs[:5]))
    assert all((leaf >= 0).all() for leaf in jax.tree.leaves(omega))


@pytest.mark.parametrize("microbatch_size", [1, 3, 8])
def test_microbatch_size_changes_nothing(mlp, microbatch_size):
    omega = mas_jax.estimate_importance(
        mlp.apply_fn, mlp.params, [mlp.inputs], microbatch_size=microbatch_size
    )
    assert_close(omega, oracle_importance(mlp))


@given(
    places=st.permutations(range(10)),
    junk=st.sampled_from([np.nan, np.inf, 0.0, 1e30]),
    microbatch_size=st.sampled_from([3, None]),
)
def test_padding_of_weight_zero_changes_nothing(mlp, places, junk, microbatch_size):
    padded, weights = np.full((10, 4), junk, np.float32), np.zeros(10, np.float32)
    padded[places[:7]], weights[places[:7]] = mlp.inputs, 1.0
    update, estimator = jitted_update(mlp.apply_fn, microbatch_size)
    state = update(estimator.init(mlp.params), mlp.params, padded, weights)
    assert_close(estimator.finalize(state), oracle_importance(mlp))


@given(weights=st.lists(st.floats(0, 4, width=16), min_size=7, max_size=7).filter(any))
def test_weights_agree_with_the_oracle(mlp, weights):
    update, estimator = jitted_update(mlp.apply_fn, None)
    state = update(estimator.init(mlp.params), mlp.params, mlp.inputs, np.asarray(weights))
    expected = oracle.importance(mlp.params64, mlp.inputs, weights)
    assert_close(estimator.finalize(state), expected, atol=1e-6)


@pytest.mark.parametrize("reduction", ["sample", "batch"])
def test_a_weight_of_two_is_the_sample_twice(mlp, reduction):
    estimator = mas_jax.importance_estimator(mlp.apply_fn, reduction=reduction)
    update, empty = jax.jit(estimator.update), estimator.init(mlp.params)
    weighted = update(empty, mlp.params, mlp.inputs[:3], jnp.array([2.0, 1.0, 0.0]))
    repeated = update(empty, mlp.params, mlp.inputs[[0, 0, 1]], jnp.ones(3))
    assert_close(estimator.finalize(weighted), estimator.finalize(repeated))


def test_a_batch_of_weight_zero_only_changes_nothing(mlp):
    estimator = mas_jax.importance_estimator(mlp.apply_fn, reduction="batch")
    update = jax.jit(estimator.update)
    state = update(estimator.init(mlp.params), mlp.params, mlp.inputs, jnp.ones(7))
    padded = update(state, mlp.params, mlp.inputs, jnp.zeros(7))
    assert_equal(estimator.finalize(padded), estimator.finalize(state))


def test_jit_scan_and_plain_calls_agree(mlp):
    estimator = mas_jax.importance_estimator(mlp.apply_fn)
    batches = mlp.inputs[:6].reshape(3, 2, 4)
    plain = jitted = estimator.init(mlp.params)
    update = jax.jit(estimator.update)
    for batch in batches:
        plain = estimator.update(plain, mlp.params, batch)
        jitted = update(jitted, mlp.params, batch)

    @jax.jit
    def scanned(params):
        def step(state, batch):
            return estimator.update(state, params, batch), None

        return estimator.finalize(jax.lax.scan(step, estimator.init(params), batches)[0])

    assert_close(estimator.finalize(jitted), estimator.finalize(plain), rtol=1e-6)
    assert_close(scanned(mlp.params), estimator.finalize(plain), rtol=1e-6)


def test_a_million_batches_stay_within_a_millionth():
    # Ω of a constant stream is that of one batch, |2 x Fᵀ| with F = 0.1 + 0.2·0.3 (inputs × 1).
    # Plain float32 sums of 10⁶ such terms drift by parts in a thousand.
    params = {"kernel": jnp.array([[0.1], [0.3]])}
    batch, weights = jnp.array([[1.0, 0.2], [1.0, 0.2]]), jnp.array([0.1, 0.7])
    estimator = mas_jax.importance_estimator(linear)

    @jax.jit
    def stream(state, params):
        def body(_, state):
            return estimator.update(state, params, batch, weights)

        return jax.lax.fori_loop(0, 10**6, body, state)

    state = stream(estimator.init(params), params)
    kernel, x = np.asarray(params["kernel"], np.float64), np.asarray(batch[:1], np.float64)
    expected = np.abs(2 * x.T @ (x @ kernel))
    np.testing.assert_allclose(estimator.finalize(state)["kernel"], expected, rtol=1e-6)
    # The sums themselves, as well as their ratio: Σw = 10⁶ · 0.8.
    (sums, weight), residue = state.sums
    total_weight = np.float64(weight) + np.float64(residue[1])
    batch_weight = np.asarray(weights, np.float64).sum()
    np.testing.assert_allclose(total_weight, 1e6 * batch_weight, rtol=1e-6)
    np.testing.assert_allclose(sums["kernel"], total_weight * expected, rtol=1e-6)
    assert state.num_samples == 2 * 10**6


# Structure and dtypes.


@pytest.mark.parametrize("reduction", ["sample", "batch"])
@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_low_precision_models_give_float32_importance(dtype, reduction):
    # Exact in both types: F = 1.5·x, g = 2·1.5·x² = 3 for x = ±1.
    params = {"kernel": jnp.full((1, 1), 1.5, dtype)}
    omega = mas_jax.estimate_importance(
        linear, params, [jnp.array([[1.0], [-1.0]], dtype)] * 3, reduction=reduction
    )
    assert omega["kernel"].dtype == jnp.float32
    np.testing.assert_array_equal(omega["kernel"], [[3.0]])


@pytest.mark.parametrize("reduction", ["sample", "batch"])
@pytest.mark.parametrize("weights", [None, np.ones(7)], ids=["unweighted", "weighted"])
def test_float64_models_give_float64_importance(mlp, weights, reduction):
    with jax.enable_x64(True):
        params = jax.tree.map(jnp.asarray, mlp.params64)
        estimator = mas_jax.importance_estimator(
            mlp.apply_fn, reduction=reduction, microbatch_size=3
        )
        inputs = np.asarray(mlp.inputs, np.float64)
        empty = estimator.init(params)
        state = jax.jit(estimator.update)(empty, params, inputs, weights)
        assert_same_types(state, empty)
        omega = estimator.finalize(state)
    assert {leaf.dtype for leaf in jax.tree.leaves(omega)} == {np.dtype("float64")}
    compute = oracle.importance if reduction == "sample" else oracle.batch_importance
    stream = inputs if reduction == "sample" else [inputs]
    assert_close(omega, compute(mlp.params64, stream), rtol=1e-12, atol=1e-14)


def test_float64_of_numpy_is_float32_unless_64_bit_types_are_on():
    params, inputs = {"kernel": np.ones((2, 1))}, np.ones((3, 2))
    omega = mas_jax.estimate_importance(linear, params, [inputs], microbatch_size=2)
    assert omega["kernel"].dtype == jnp.float32
    anchor = mas_jax.consolidate(None, params, omega)
    assert mas_jax.penalty(params, anchor, 1.0).dtype == jnp.float32
    tx = mas_jax.anchor_penalty(1.0)
    state = mas_jax.with_anchor(tx.init(params), anchor)
    assert {leaf.dtype for leaf in jax.tree.leaves(state.anchor)} == {np.dtype("float32")}
    np.testing.assert_array_equal(tx.update(omega, state, params)[0]["kernel"], omega["kernel"])


def test_float32_models_keep_float32_where_64_bit_types_are_on(mlp):
    with jax.enable_x64(True):
        estimator = mas_jax.importance_estimator(mlp.apply_fn)
        empty = estimator.init(mlp.params)
        state = jax.eval_shape(estimator.update, empty, mlp.params, mlp.inputs)
        assert_same_types(state, empty)


def test_leaves_that_cannot_carry_importance_are_masked_nodes():
    params = {
        "kernel": jnp.ones((2, 1)),
        "steps": jnp.arange(2),
        "flag": jnp.array(True),
        "key": jax.random.key(0),
        "nested": (np.ones(1, np.float32),),
    }
    omega = mas_jax.estimate_importance(linear, params, [np.ones((3, 2), np.float32)])
    assert_equal(
        omega,
        {
            **dict.fromkeys(["steps", "flag", "key"], optax.MaskedNode()),
            "kernel": np.full((2, 1), 4.0),  # 2 x F with F = 2
            "nested": (np.zeros(1),),  # not used: no gradient
        },
    )


@pytest.mark.parametrize(
    "mask", [{"trunk": True, "head": False}, lambda params: {k: k == "trunk" for k in params}]
)
def test_masked_parameters_carry_none_and_still_take_part(mask):
    # F = v·w·x at w = 1, v = 3, x = 1: Ω_w = |2 F v x| = 18, though v is masked.
    params = {"trunk": {"w": jnp.ones((1, 1))}, "head": {"v": jnp.full((1, 1), 3.0)}}
    omega = mas_jax.estimate_importance(
        lambda params, x: x @ params["trunk"]["w"] @ params["head"]["v"],
        params, [jnp.ones((2, 1))], mask=mask,
    )  # fmt: skip
    expected = {"trunk": {"w": np.full((1, 1), 18.0)}, "head": {"v": optax.MaskedNode()}}
    assert_equal(omega, expected)


def test_complex_parameters_are_refused_unless_masked():
    params = {"kernel": jnp.ones((1, 1)), "phase": jnp.ones(1, jnp.complex64)}
    batches = [jnp.ones((2, 1))]
    with pytest.raises(TypeError, match=r"params\['phase'\] is complex64"):
        mas_jax.estimate_importance(linear, params, batches)
    mask = {"kernel": True, "phase": False}
    omega = mas_jax.estimate_importance(linear, params, batches, mask=mask)
    assert_equal(omega, {"kernel": np.full((1, 1), 2.0), "phase": optax.MaskedNode()})


# Compilation, donation, progress.


def test_update_compiles_once_per_batch_shape(mlp):
    estimator = mas_jax.importance_estimator(mlp.apply_fn)
    update = jax.jit(estimator.update)
    state = estimator.init(mlp.params)
    for batch in [mlp.inputs[:4], mlp.inputs[3:], mlp.inputs[:3], mlp.inputs[2:5], mlp.inputs[:4]]:
        state = update(state, mlp.params, batch)
    assert update._cache_size() == 2


def test_a_second_task_compiles_nothing():
    traces = []

    def scaled(scale, params, x):
        traces.append(x.shape)
        return scale * linear(params, x)

    def omega(scale, kernel):
        apply_fn = jax.tree_util.Partial(scaled, jnp.asarray(scale))
        params = {"kernel": jnp.full((2, 1), kernel)}
        batches = [np.ones((size, 2), np.float32) for size in (3, 3, 2)]
        mask = {"kernel": True}
        return mas_jax.estimate_importance(apply_fn, params, batches, mask=mask)["kernel"][0, 0]

    assert omega(1.0, 1.0) == 4.0  # g = 2 s² x (x·w), with x = (1, 1)
    count = len(traces)
    assert count > 0
    assert omega(3.0, 0.5) == 18.0
    assert len(traces) == count


def test_a_plain_function_is_compiled_once_over_calls():
    traces = []

    def apply_fn(params, x):
        traces.append(x.shape)
        return linear(params, x)

    for value in (1.0, 2.0):
        params = {"kernel": jnp.full((2, 1), value)}
        mas_jax.estimate_importance(apply_fn, params, [np.ones((3, 2), np.float32)])
        if value == 1.0:
            count = len(traces)
    assert len(traces) == count > 0


def test_an_unhashable_apply_fn_works():
    class Unhashable:
        __hash__ = None  # pyright: ignore[reportAssignmentType]

        def __call__(self, params, x):
            return linear(params, x)

    params = {"kernel": jnp.ones((1, 1))}
    assert mas_jax.estimate_importance(Unhashable(), params, [jnp.ones((2, 1))])["kernel"] == 2.0


def test_state_can_be_donated(mlp):
    estimator = mas_jax.importance_estimator(mlp.apply_fn)
    update = jax.jit(estimator.update, donate_argnums=0)
    state = estimator.init(mlp.params)
    for batch in cut(mlp.inputs, [4, 3]):
        previous, state = state, update(state, mlp.params, batch)
        assert all(leaf.is_deleted() for leaf in jax.tree.leaves(previous))
    assert_close(estimator.finalize(state), oracle_importance(mlp))


def test_params_survive_the_estimate(mlp):
    params = jax.tree.map(lambda leaf: jnp.array(leaf, copy=True), mlp.params)
    mas_jax.estimate_importance(mlp.apply_fn, params, [mlp.inputs])
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(params))


def test_progress_is_told_the_samples_seen_so_far(mlp):
    seen = []
    batches = iter(cut(mlp.inputs, [3, 3, 1]))
    mas_jax.estimate_importance(mlp.apply_fn, mlp.params, batches, progress=seen.append)
    assert seen == [3, 6, 7]


# Samples that are not finite.

# Whole numbers, so that every sum is exact in float32 and "exactly" can be asked for.
WHOLE_PARAMS = {"kernel": np.array([[1.0, -2.0], [3.0, 1.0]], np.float32)}
WHOLE_SAMPLES = np.array([[1, 2], [3, -1], [0, 4], [2, 2], [-5, 1], [1, 1]], np.float32)


def poisoned(places, value=np.nan):
    samples = WHOLE_SAMPLES.copy()
    samples[sorted(places), 0] = value
    return samples


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("places", [{0}, {4, 5}, {1, 3}, {5}, set(range(6))])
def test_a_non_finite_sample_raises_with_the_index_of_the_first(places, value):
    batches = cut(poisoned(places, value), [2, 3, 1])
    with pytest.raises(
        mas_jax.NonFiniteError,
        match=rf"outputs for sample {min(places)} of the stream .*on_nonfinite=\"skip\"",
    ):
        mas_jax.estimate_importance(linear, WHOLE_PARAMS, batches)


def test_the_state_remembers_the_first_non_finite_sample_of_the_stream():
    estimator = mas_jax.importance_estimator(linear)
    update = jax.jit(estimator.update)
    state = estimator.init(WHOLE_PARAMS)
    for batch in cut(poisoned({1, 2, 3, 5}), [2, 2, 2]):
        state = update(state, WHOLE_PARAMS, batch)
    with pytest.raises(mas_jax.NonFiniteError, match="sample 1 of the stream"):
        estimator.finalize(state)


def test_a_non_finite_sample_raises_at_most_one_batch_later():
    consumed = []

    def batches():
        for index, batch in enumerate(cut(poisoned({1}), [1] * 6)):
            consumed.append(index)
            yield batch

    with pytest.raises(mas_jax.NonFiniteError, match="sample 1 of the stream"):
        mas_jax.estimate_importance(linear, WHOLE_PARAMS, batches())
    assert max(consumed) <= 2


@given(places=st.sets(st.integers(0, 5), max_size=5), microbatch_size=st.sampled_from([None, 2]))
def test_skipping_equals_the_stream_without_these_samples_exactly(places, microbatch_size):
    skipped = mas_jax.estimate_importance(
        linear, WHOLE_PARAMS, cut(poisoned(places), [3, 3]),
        on_nonfinite="skip", microbatch_size=microbatch_size,
    )  # fmt: skip
    kept = [sample[None] for k, sample in enumerate(WHOLE_SAMPLES) if k not in places]
    assert_equal(skipped, mas_jax.estimate_importance(linear, WHOLE_PARAMS, kept))


def test_skipping_leaves_the_batch_formula_right_too():
    # |Σ g| over the finite samples of the batch, divided by their number.
    options = {"reduction": "batch", "on_nonfinite": "skip"}
    skipped = mas_jax.estimate_importance(linear, WHOLE_PARAMS, [poisoned({1, 4})], **options)
    kept = [WHOLE_SAMPLES[[0, 2, 3, 5]]]
    assert_equal(skipped, mas_jax.estimate_importance(linear, WHOLE_PARAMS, kept, **options))


def test_a_stream_with_nothing_finite_has_no_importance():
    with pytest.raises(ValueError, match="at least one sample that counts, got 6 samples"):
        mas_jax.estimate_importance(
            linear, WHOLE_PARAMS, [poisoned(set(range(6)))], on_nonfinite="skip"
        )


def test_a_non_finite_sample_of_weight_zero_is_padding():
    estimator = mas_jax.importance_estimator(linear)
    weights = np.array([1, 0, 1, 1, 1, 1])
    state = estimator.update(estimator.init(WHOLE_PARAMS), WHOLE_PARAMS, poisoned({1}), weights)
    kept = WHOLE_SAMPLES[[0, 2, 3, 4, 5]]
    assert_equal(
        estimator.finalize(state), mas_jax.estimate_importance(linear, WHOLE_PARAMS, [kept])
    )


def test_under_a_trace_a_non_finite_sample_makes_importance_nan():
    estimator = mas_jax.importance_estimator(linear)
    empty = estimator.init(WHOLE_PARAMS)
    finalize = jax.jit(estimator.finalize)
    for samples, expected in [(poisoned({1}), True), (WHOLE_SAMPLES, False)]:
        state = estimator.update(empty, WHOLE_PARAMS, samples)
        np.testing.assert_array_equal(
            jnp.isnan(finalize(state)["kernel"]), np.full((2, 2), expected)
        )
    assert jnp.isnan(finalize(empty)["kernel"]).all()


def test_a_gradient_that_overflows_names_its_leaf():
    # F = w·x = 1 for w = 1e-30, x = 1e30: g = 2e30, whose square is beyond float32.
    with pytest.raises(
        mas_jax.NonFiniteError, match=r"importance\['kernel'\] has NaN or infinite.*overflowed"
    ):
        mas_jax.estimate_importance(
            linear, {"kernel": jnp.full((1, 1), 1e-30)}, [jnp.full((1, 1), 1e30)],
            magnitude="square",
        )  # fmt: skip


# Errors at the boundary.


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"magnitude": "cube"}, "magnitude must be one of 'abs', 'square', 'l2', got 'cube'"),
        ({"reduction": "mean"}, "reduction must be one of 'sample', 'batch', got 'mean'"),
        ({"engine": "warp"}, "engine must be one of 'auto', 'fused', 'vmap', got 'warp'"),
        ({"on_nonfinite": "warn"}, "on_nonfinite must be one of 'raise', 'skip', got 'warn'"),
        ({"microbatch_size": 0}, "microbatch_size must be .*at least 1, got 0"),
        ({"microbatch_size": 1.5}, "microbatch_size must be .*at least 1, got 1.5"),
    ],
)
def test_option_errors(options, message):
    with pytest.raises(ValueError, match=message):
        mas_jax.importance_estimator(linear, **options)
    with pytest.raises(ValueError, match=message):
        mas_jax.estimate_importance(linear, WHOLE_PARAMS, [WHOLE_SAMPLES], **options)


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ({}, "batch has no arrays, wanted a pytree of arrays with a leading batch axis"),
        ({"x": jnp.ones(())}, r"batch leaf \['x'\] is a scalar, .*pass x\[None\]"),
        (
            {"x": jnp.ones((3, 2)), "y": jnp.ones((2, 2))},
            r"batch leaves disagree on the batch axis: \['y'\] has 2 samples, \['x'\] has 3",
        ),
        (jnp.ones((0, 2)), "batch is empty: wanted at least one sample"),
    ],
)
def test_batch_errors(batch, message):
    estimator = mas_jax.importance_estimator(linear)
    with pytest.raises(ValueError, match=message):
        estimator.update(estimator.init(WHOLE_PARAMS), WHOLE_PARAMS, batch)
    with pytest.raises(ValueError, match=message):
        mas_jax.estimate_importance(linear, WHOLE_PARAMS, [WHOLE_SAMPLES, batch])


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (np.ones(5), r"weights must have shape \(6,\), one per sample of the batch, got \(5,\)"),
        (np.ones((6, 1)), r"weights must have shape \(6,\).* got \(6, 1\)"),
        (np.array([1, 1, -1, 1, 1, 1]), "at least 0, got -1 for sample 2 of the batch"),
        (np.array([1, np.nan, 1, 1, 1, 1]), "must be finite .*got nan for sample 1"),
        (np.array([np.inf, 1, 1, 1, 1, 1]), "must be finite .*got inf for sample 0"),
    ],
)
def test_weight_errors(weights, message):
    estimator = mas_jax.importance_estimator(linear)
    with pytest.raises(ValueError, match=message):
        estimator.update(estimator.init(WHOLE_PARAMS), WHOLE_PARAMS, WHOLE_SAMPLES, weights)


def test_no_batches_and_no_weight_are_errors():
    with pytest.raises(ValueError, match="batches yielded nothing"):
        mas_jax.estimate_importance(linear, WHOLE_PARAMS, [])
    estimator = mas_jax.importance_estimator(linear)
    empty = estimator.init(WHOLE_PARAMS)
    with pytest.raises(ValueError, match="at least one sample that counts, got 0 samples"):
        estimator.finalize(empty)
    state = estimator.update(empty, WHOLE_PARAMS, WHOLE_SAMPLES, np.zeros(6))
    with pytest.raises(ValueError, match="got 6 samples with a total weight of 0"):
        estimator.finalize(state)


@pytest.mark.parametrize(
    ("params", "mask"),
    [({"steps": np.arange(2)}, None), (WHOLE_PARAMS, False), (WHOLE_PARAMS, {"kernel": False})],
)
def test_nothing_to_measure_is_an_error(params, mask):
    message = "no leaf of params can carry importance: .*got none among 1 leaves"
    with pytest.raises(ValueError, match=message):
        mas_jax.importance_estimator(linear, mask=mask).init(params)
    with pytest.raises(ValueError, match=message):
        mas_jax.estimate_importance(linear, params, [WHOLE_SAMPLES], mask=mask)


@pytest.mark.parametrize(
    ("mask", "error", "message"),
    [
        ({"other": True}, mas_jax.TreeMismatchError, r"mask has \['other'\], which params has not"),
        ({"kernel": 1}, TypeError, r"mask leaf \['kernel'\] is int, wanted True or False"),
    ],
)
def test_mask_errors(mask, error, message):
    with pytest.raises(error, match=message):
        mas_jax.estimate_importance(linear, WHOLE_PARAMS, [WHOLE_SAMPLES], mask=mask)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        (
            {**WHOLE_PARAMS, "bias": np.ones(2)},
            r"state has no leaf \['bias'\], which params has; was it computed for another model",
        ),
        ({}, r"params has no leaf \['kernel'\], which state has"),
        (
            {"kernel": np.ones((3, 2))},
            r"state\['kernel'\] has shape \(2, 2\), but params has \(3, 2\)",
        ),
    ],
)
def test_a_state_of_other_params_is_an_error(params, message):
    estimator = mas_jax.importance_estimator(linear)
    with pytest.raises(mas_jax.TreeMismatchError, match=message):
        estimator.update(estimator.init(WHOLE_PARAMS), params, WHOLE_SAMPLES)


def test_an_apply_fn_that_returns_a_loss_is_an_error():
    with pytest.raises(ValueError, match=r"has shape \(\).*not a loss or a mean over the batch"):
        mas_jax.estimate_importance(
            lambda params, x: linear(params, x).mean(), WHOLE_PARAMS, [WHOLE_SAMPLES]
        )


def oracle_importance(mlp):
    return oracle.importance(mlp.params64, mlp.inputs)


_UPDATES = {}


def jitted_update(apply_fn, microbatch_size):
    """One compiled update for all examples of a property, and its estimator."""
    if (apply_fn, microbatch_size) not in _UPDATES:
        estimator = mas_jax.importance_estimator(apply_fn, microbatch_size=microbatch_size)
        _UPDATES[apply_fn, microbatch_size] = jax.jit(estimator.update), estimator
    return _UPDATES[apply_fn, microbatch_size]


def assert_same_types(got, wanted):
    """The same structure, shapes and dtypes: what a scan's carry has to keep."""
    assert jax.eval_shape(lambda: got) == jax.eval_shape(lambda: wanted)


@pytest.mark.parametrize("bad", [-1.0, np.nan, np.inf])
def test_a_bad_weight_under_jit_is_never_silent(bad):
    # Under a trace nothing can raise: Ω is NaN there, and finalize raises where it can.
    params = {"w": jnp.ones(2)}
    estimator = mas_jax.importance_estimator(lambda params, x: x * params["w"].reshape(1, -1))
    x = np.ones((3, 2), np.float32)
    update = jax.jit(estimator.update)
    state = update(estimator.init(params), params, x, jnp.array([1.0, bad, 1.0]))
    assert np.isnan(jax.jit(estimator.finalize)(state)["w"]).all()
    with pytest.raises(ValueError, match="weights must be finite and at least 0: a batch"):
        estimator.finalize(state)


def test_past_the_end_of_int32_a_bad_sample_is_still_found():
    params = {"w": jnp.ones(2)}
    estimator = mas_jax.importance_estimator(lambda params, x: x * params["w"].reshape(1, -1))
    last = np.iinfo(np.int32).max
    state = estimator.init(params)._replace(num_samples=jnp.int32(last - 1))
    x = np.ones((4, 2), np.float32)
    state = estimator.update(state, params, x)
    assert int(state.num_samples) == last
    x[3] = np.nan
    with pytest.raises(mas_jax.NonFiniteError, match=f"sample {last}"):
        estimator.finalize(estimator.update(state, params, x))
