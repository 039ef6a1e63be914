"""Objectives that return a vector: importance from the gradient of every output."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mas_jax
from mas_jax import per_sample, trees
from mas_jax.fused import engine as fused
from mas_jax.fused.outputs import Passes, fitting_passes
from mas_jax.options import checked_options
from tests import networks, oracle, oracle_vector

MAGNITUDES = ("abs", "square", "l2")
ENGINES = ("fused", "vmap")
WEIGHTS = np.array([1.0, 0.5, 2.0, 0.0, 1.0, 3.0, 0.25])

each_engine = pytest.mark.parametrize("engine", ENGINES)
each_magnitude = pytest.mark.parametrize("magnitude", MAGNITUDES)


def importance(apply_fn, params, batch, weights=None, **options):
    options = {"objective": mas_jax.every_output, **options}
    estimator = mas_jax.importance_estimator(apply_fn, **options)
    return estimator.finalize(estimator.update(estimator.init(params), params, batch, weights))


def linear(params, x):
    return x @ params["kernel"]


def projected(outputs):
    """At most five numbers, each of all outputs."""
    entries = mas_jax.every_output(outputs)
    matrix = np.random.default_rng(0).normal(size=(5, entries.size)) / math.sqrt(entries.size)
    return jnp.tanh(jnp.asarray(matrix, entries.dtype) @ entries)


def engine_sums(network, engine, magnitude, **options):
    """(batch, weights) -> sums, finite and outputs, of one engine."""
    checked = checked_options(magnitude=magnitude)
    build = {"fused": fused.fused_engine, "vmap": per_sample.vmap_engine}[engine]
    options = {"over_outputs": checked.over_outputs, **options}
    run = build(network.apply_fn, network.objective, checked.reduce_fn, **options)
    covered = trees.covered(network.params, network.mask)
    return lambda batch, weights: run(network.params, covered, batch, jnp.asarray(weights))


@each_engine
@each_magnitude
@pytest.mark.parametrize(
    "options",
    # Of two samples at a time, and of one with one output at a time.
    [{}, {"microbatch_size": 2}, {"memory_budget": 1}],
    ids=str,
)
def test_importance_agrees_with_the_oracle(mlp, engine, magnitude, options):
    omega = importance(
        mlp.apply_fn, mlp.params, mlp.inputs, WEIGHTS,
        engine=engine, magnitude=magnitude, **options,
    )  # fmt: skip
    expected = oracle_vector.importance(mlp.params64, mlp.inputs, WEIGHTS, magnitude)
    networks.assert_close(omega, expected)


@pytest.mark.parametrize(
    "build",
    [
        networks.mlp,
        networks.one_position,
        networks.vgg_block,
        networks.depthwise_separable,
        networks.grouped,
        networks.unshared_convolution,
        networks.tied_transformer,
        networks.untied_transformer,
        networks.scanned_stack,
        networks.recomputed_scan,
        networks.adapters_and_layers,
        networks.returned_leaf,
    ],
    ids=lambda build: build.__name__,
)
def test_fused_equals_vmap(build):
    network = build()._replace(objective=projected)
    assert networks.rules_of(network) == network.expected_rules()
    weights = np.linspace(0.5, 2, networks.size_of(network.batch))
    weights[1] = 0.0
    # All outputs of all samples at once, and, of some networks, one output of one at a time.
    kinds = {"vmap": {}, "fused": {}}
    if build in (networks.vgg_block, networks.untied_transformer, networks.recomputed_scan):
        kinds["one by one"] = {"memory_budget": 1}

    def run(batch, weights):
        return {
            (magnitude, kind): engine_sums(
                network, "vmap" if kind == "vmap" else "fused", magnitude, **options
            )(batch, weights)
            for magnitude in MAGNITUDES
            for kind, options in kinds.items()
        }

    results = jax.jit(run, compiler_options=networks.COMPILER_OPTIONS)(network.batch, weights)
    for (magnitude, _), result in results.items():
        wanted = results[magnitude, "vmap"]
        networks.assert_close(result.sums, wanted.sums)
        networks.assert_close(result.outputs, wanted.outputs)
        assert result.finite.all()


@each_engine
@each_magnitude
def test_linear_outputs_of_known_inputs(engine, magnitude):
    # y = Wᵀx, so ∂y_o/∂W_ij = x_i [o = j]: one output alone moves with W_ij, and every
    # magnitude is that of x_i. For x = ±2 and ±1 in turn: E|x| = 1.5, E x² = 2.5.
    batch = jnp.array([[2.0], [-1.0], [-2.0], [1.0]])
    omega = importance(
        linear, {"kernel": jnp.ones((1, 3))}, batch, engine=engine, magnitude=magnitude
    )
    wanted = {"abs": 1.5, "l2": 1.5, "square": 2.5}[magnitude]
    np.testing.assert_allclose(omega["kernel"], np.full((1, 3), wanted), rtol=1e-6)


@each_engine
def test_two_outputs_of_one_parameter(engine):
    # F = (3b, −4b): the gradients are 3 and −4. Σ|g| = 7, Σg² = 25, √Σg² = 5; and the gradient
    # of ‖F‖² = 25b² is 50b.
    def apply_fn(params, x):
        return x * params["b"][None]

    params, batch = {"b": jnp.full(1, 2.0)}, jnp.array([[3.0, -4.0]])
    for magnitude, wanted in {"abs": 7.0, "square": 25.0, "l2": 5.0}.items():
        omega = importance(apply_fn, params, batch, engine=engine, magnitude=magnitude)
        np.testing.assert_allclose(omega["b"], wanted, rtol=1e-6)
    omega = importance(apply_fn, params, batch, objective=mas_jax.squared_l2_norm, engine=engine)
    np.testing.assert_allclose(omega["b"], 100.0, rtol=1e-6)


@each_engine
def test_linear_gaussian_inputs_by_moments(engine):
    # y = Wᵀx, x ~ N(0, I). |∂‖y‖²/∂W_ij| = 2 |x_i y_j|, of two normals of variance 1 and
    # s² = Σ_i W_ij², with correlation r = W_ij / s. Their E|x y| = s (2/π) (√(1 − r²) + r asin r),
    # and E (x y)² = s² (1 + 2 r²), from which the standard error follows.
    rng, size = np.random.default_rng(0), 4000
    kernel = np.array([[1.0, -2.0], [0.5, 1.0], [0.0, 2.0]])
    batch = rng.normal(size=(size, 3)).astype(np.float32)
    params = {"kernel": jnp.asarray(kernel, jnp.float32)}
    scale = np.sqrt((kernel**2).sum(0))
    r = kernel / scale
    mean = 2 * scale * (2 / np.pi) * (np.sqrt(1 - r**2) + r * np.arcsin(r))
    error = np.sqrt((4 * scale**2 * (1 + 2 * r**2) - mean**2) / size)
    omega = importance(linear, params, batch, objective=mas_jax.squared_l2_norm, engine=engine)
    assert (np.abs(omega["kernel"] - mean) < 4 * error).all()
    # Every output: |x_i| for "abs" and "l2", E = √(2/π), variance 1 − 2/π.
    omega = importance(linear, params, batch, magnitude="l2", engine=engine)
    error = math.sqrt((1 - 2 / np.pi) / size)
    assert (np.abs(omega["kernel"] - math.sqrt(2 / np.pi)) < 4 * error).all()
    # EWC's Fisher of y ~ N(Wᵀx, I): (∂ log p/∂W_ij)² = (y_j − ŷ_j)² x_i², in expectation over y
    # x_i². E x² = 1, variance 2.
    omega = importance(linear, params, batch, magnitude="square", engine=engine)
    assert (np.abs(omega["kernel"] - 1) < 4 * math.sqrt(2 / size)).all()


@each_engine
def test_of_a_scalar_l2_is_abs_and_of_one_entry_all_agree(mlp, engine):
    def run(objective, magnitude):
        options = {"objective": objective, "magnitude": magnitude, "engine": engine}
        return importance(mlp.apply_fn, mlp.params, mlp.inputs, **options)

    scalar = run(mas_jax.squared_l2_norm, "abs")
    again = run(mas_jax.squared_l2_norm, "l2")
    jax.tree.map(np.testing.assert_array_equal, again, scalar)
    for magnitude in ("abs", "l2"):
        networks.assert_close(
            run(lambda outputs: mas_jax.squared_l2_norm(outputs)[None], magnitude), scalar
        )


@each_engine
@each_magnitude
def test_a_sample_that_is_not_finite_is_left_out_exactly(engine, magnitude):
    network = networks.vgg_block()._replace(objective=projected)
    run = jax.jit(
        engine_sums(network, engine, magnitude), compiler_options=networks.COMPILER_OPTIONS
    )
    spoiled = network.batch.copy()
    spoiled[1].flat[0], spoiled[3] = np.nan, np.inf
    result = run(spoiled, np.ones(5))
    np.testing.assert_array_equal(result.finite, [True, False, True, False, True])
    without = run(network.batch, np.array([1.0, 0.0, 1.0, 0.0, 1.0]))
    assert without.finite.all()
    jax.tree.map(np.testing.assert_array_equal, result.sums, without.sums)


@each_engine
def test_nan_in_one_entry_of_the_vector_is_not_finite(mlp, engine):
    def objective(outputs):
        return jnp.stack([outputs[0], jnp.log(outputs[1])])

    # log of a negative number is NaN.
    outputs = mlp.apply_fn(mlp.params, mlp.inputs)
    positive = np.asarray(outputs[:, 1] > 0)
    assert 0 < positive.sum() < 7
    options = {"objective": objective, "engine": engine, "magnitude": "l2"}
    omega = importance(mlp.apply_fn, mlp.params, mlp.inputs, on_nonfinite="skip", **options)
    wanted = importance(mlp.apply_fn, mlp.params, mlp.inputs[positive], **options)
    networks.assert_close(omega, wanted)
    with pytest.raises(mas_jax.NonFiniteError, match=f"sample {int(np.argmin(positive))} "):
        importance(mlp.apply_fn, mlp.params, mlp.inputs, **options)


@each_engine
@each_magnitude
def test_masked_leaves_carry_nothing_and_others_are_as_before(mlp, engine, magnitude):
    options = {"engine": engine, "magnitude": magnitude}
    mask = {"layer0": {"kernel": True, "bias": False}, "layer1": False}
    omega = importance(mlp.apply_fn, mlp.params, mlp.inputs, mask=mask, **options)
    wanted = importance(mlp.apply_fn, mlp.params, mlp.inputs, **options)
    networks.assert_close(omega["layer0"]["kernel"], wanted["layer0"]["kernel"])
    assert len(jax.tree.leaves(omega)) == 1


@pytest.mark.parametrize("magnitude", ["abs", "l2"])
def test_a_scan_over_batches_compiles_once_and_changes_nothing(mlp, magnitude):
    traces = []

    def counted(params, x):
        traces.append(x.shape)
        return mlp.apply_fn(params, x)

    options = {"objective": mas_jax.every_output, "magnitude": magnitude}
    estimator = mas_jax.importance_estimator(counted, **options)
    batches = mlp.inputs[:6].reshape(3, 2, 4)
    state, _ = jax.lax.scan(
        lambda state, batch: (estimator.update(state, mlp.params, batch), None),
        estimator.init(mlp.params),
        batches,
    )
    wanted = importance(mlp.apply_fn, mlp.params, mlp.inputs[:6], magnitude=magnitude)
    networks.assert_close(estimator.finalize(state), wanted)
    estimator.update(state, mlp.params, batches[0])
    traced = len(traces)
    estimator.update(state, jax.tree.map(lambda leaf: 2 * leaf, mlp.params), batches[1])
    assert len(traces) == traced


@each_engine
@pytest.mark.parametrize("magnitude", ["abs", "l2"])
def test_a_mesh_of_one_device_and_padding_change_nothing(mlp, engine, magnitude):
    mesh = jax.make_mesh((1,), ("data",))
    options = {"engine": engine, "magnitude": magnitude}
    omega = importance(mlp.apply_fn, mlp.params, mlp.inputs, mesh=mesh, **options)
    networks.assert_close(omega, importance(mlp.apply_fn, mlp.params, mlp.inputs, **options))


@each_engine
@pytest.mark.parametrize("magnitude", ["abs", "l2"])
def test_low_precision_outputs_are_summed_in_float32(engine, magnitude):
    # 600 outputs that all move with b at rate 1: a sum of ones stalls at 256 in bfloat16.
    params = {"b": jnp.zeros((1, 1), jnp.bfloat16)}

    def apply_fn(params, x):
        return x + params["b"]

    omega = importance(
        apply_fn, params, jnp.ones((2, 600), jnp.bfloat16), engine=engine, magnitude=magnitude
    )
    assert omega["b"].dtype == jnp.float32
    np.testing.assert_allclose(omega["b"], {"abs": 600, "l2": math.sqrt(600)}[magnitude], rtol=1e-6)


@each_engine
def test_float64_stays_float64(mlp, engine):
    with jax.enable_x64(True):
        omega = importance(mlp.apply_fn, mlp.params64, np.asarray(mlp.inputs, np.float64),
                           WEIGHTS, engine=engine, magnitude="l2")  # fmt: skip
        assert omega["layer0"]["kernel"].dtype == jnp.float64
        expected = oracle_vector.importance(mlp.params64, mlp.inputs, WEIGHTS, "l2")
        networks.assert_close(omega, expected, 1e-12)


@pytest.mark.parametrize("magnitude", MAGNITUDES)
def test_importance_can_be_differentiated(mlp, magnitude):
    def total(engine):
        def fn(params):
            options = {"engine": engine, "magnitude": magnitude}
            omega = importance(mlp.apply_fn, params, mlp.inputs, **options)
            return sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(omega))

        return fn

    got, wanted = (jax.grad(total(engine))(mlp.params) for engine in ENGINES)
    networks.assert_close(got, wanted)


def test_a_thousand_outputs_hold_no_more_than_a_plain_pass_of_the_batch():
    params = {
        "hidden": 0.1 * jax.random.normal(jax.random.key(0), (1, 64)),
        "kernel": 0.1 * jax.random.normal(jax.random.key(1), (64, 1000)),
    }

    def apply_fn(params, x):
        return jnp.tanh(x @ params["hidden"]) @ params["kernel"]

    batch = jax.random.normal(jax.random.key(2), (128, 1))
    for engine in ENGINES:
        for magnitude in MAGNITUDES:
            options = {"magnitude": magnitude, "objective": mas_jax.every_output}
            estimator = mas_jax.importance_estimator(apply_fn, engine=engine, **options)
            state = estimator.init(params)
            compiled = jax.jit(estimator.update).lower(state, params, batch).compile()
            analysis: Any = compiled.memory_analysis()
            held = analysis.temp_size_in_bytes
            # All pairs at once: 128 samples × 1000 outputs × 1000 logits × 4 B = 512 MB. A
            # sample's own: 1000 × 1000 × 4 B = 4 MB of one-hot cotangents alone. Micro-batches of
            # one, of 128 outputs each: 0.5 MB, beside a few copies of the 64,000 parameters.
            assert held < 8e6, (engine, magnitude, held)


@pytest.mark.parametrize(
    ("outputs", "pairs", "microbatch_size", "expected"),
    [
        (10, 128, None, Passes(12, 10)),
        (100, 128, None, Passes(1, 100)),
        (1000, 128, None, Passes(1, 128)),
        (10, 1, None, Passes(1, 1)),
        (1000, 128, 4, Passes(4, 1000)),
        (1000, 128, 1, Passes(1, 128)),
    ],
)
def test_pairs_divide_into_samples_and_outputs(outputs, pairs, microbatch_size, expected):
    assert fitting_passes(outputs, pairs, microbatch_size) == expected


@each_engine
def test_reduction_by_batch_is_not_defined_for_a_vector(mlp, engine):
    with pytest.raises(ValueError, match='vector, for which reduction="batch" is not defined'):
        importance(mlp.apply_fn, mlp.params, mlp.inputs, reduction="batch", engine=engine)


@pytest.mark.parametrize("outputs", [{}, {"class": jnp.array(3)}])
def test_every_output_needs_an_output_with_a_gradient(outputs):
    with pytest.raises(TypeError, match="outputs have no floating-point leaf"):
        mas_jax.every_output(outputs)


def test_every_output_lists_all_floats_in_the_widest_dtype():
    outputs = {
        "a": jnp.array([[1.0, 2.0]], jnp.bfloat16),
        "b": jnp.array(3),
        "c": jnp.array([4.0 + 5.0j]),
    }
    entries = mas_jax.every_output(outputs)
    assert entries.dtype == jnp.float32
    np.testing.assert_array_equal(entries, [1.0, 2.0, 4.0, 5.0])
    with jax.enable_x64(True), jax.numpy_dtype_promotion("strict"):
        wide = mas_jax.every_output([jnp.ones(1, jnp.float32), jnp.full(1, 1e-9, jnp.float64)])
        assert wide.dtype == jnp.float64


def test_explain_and_strict_see_the_same_plan(mlp):
    explained = mas_jax.explain(
        mlp.apply_fn, mlp.params, mlp.inputs, objective=mas_jax.every_output, magnitude="l2"
    )
    assert [leaf.rule for leaf in explained.leaves] == ["per sample", "dense"] * 2
    with pytest.raises(mas_jax.FallbackError, match="falls back"):
        importance(mlp.apply_fn, mlp.params, mlp.inputs, strict=2)


@each_magnitude
def test_magnitudes_of_the_oracle(magnitude):
    # 3, −4: 7, 25, 5.
    wanted = {"abs": 7.0, "square": 25.0, "l2": 5.0}[magnitude]
    assert oracle_vector.magnitude(magnitude, [3.0, -4.0]) == wanted


def test_the_oracle_pulls_back_as_that_of_scalars_does(mlp):
    x = mlp.inputs[0]
    delta = 2 * oracle.forward(mlp.params64, x)[-1]
    networks.assert_close(
        oracle_vector.pulled_back(mlp.params64, x, delta), oracle.sample_gradient(mlp.params64, x)
    )
