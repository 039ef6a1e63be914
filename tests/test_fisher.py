"""EWC's importance: the diagonal of the Fisher information of a classifier."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mas_jax
from tests import networks, oracle, oracle_vector

ENGINES = ("fused", "vmap")
LABELS = np.array([0, 2, 1, 1, 0, 2, 2])

each_engine = pytest.mark.parametrize("engine", ENGINES)


def linear(params, x):
    return x @ params["kernel"]


def two_classes(params, x):
    """Logits (0, w·x)."""
    logits = x @ params["w"]
    return jnp.concatenate([jnp.zeros_like(logits), logits], axis=1)


def exact(apply_fn, params, *batches, **options):
    return mas_jax.estimate_fisher(apply_fn, params, batches, labels="exact", **options)


def sampled(apply_fn, params, *batches, seed=0, **options):
    key = jax.random.key(seed)
    return mas_jax.estimate_fisher(apply_fn, params, batches, labels="sampled", key=key, **options)


def empirical(apply_fn, params, *batches, **options):
    return mas_jax.estimate_fisher(apply_fn, params, batches, labels="empirical", **options)


@each_engine
@pytest.mark.parametrize("options", [{}, {"memory_budget": 1}], ids=str)
def test_exact_agrees_with_the_oracle(mlp, engine, options):
    fisher = exact(mlp.apply_fn, mlp.params, mlp.inputs, engine=engine, **options)
    networks.assert_close(fisher, oracle_vector.fisher(mlp.params64, mlp.inputs))


@each_engine
def test_empirical_agrees_with_the_oracle(mlp, engine):
    fisher = empirical(
        mlp.apply_fn, mlp.params, (mlp.inputs[:4], LABELS[:4]), (mlp.inputs[4:], LABELS[4:]),
        engine=engine,
    )  # fmt: skip
    networks.assert_close(fisher, oracle_vector.fisher(mlp.params64, mlp.inputs, LABELS))


@each_engine
def test_two_classes_by_hand(engine):
    # Logits (0, wx), p = 1/(1 + e^(-wx)): ∂ log p_1 = (1 − p) x and ∂ log p_0 = −p x, so that
    # F = p (1 − p)² x² + (1 − p) p² x² = p (1 − p) x². At w = ln 3, x = 1: p = ¾, F = 3/16; at
    # x = 2: p = 9/10, F = 0.09 · 4 = 0.36.
    params = {"w": jnp.full((1, 1), np.log(3.0))}
    batch = jnp.array([[1.0], [2.0]])
    fisher = exact(two_classes, params, batch, engine=engine)
    np.testing.assert_allclose(fisher["w"], (3 / 16 + 0.36) / 2, rtol=1e-5)
    # Of the labels 1 and 0: ((¼ · 1)² + (0.9 · 2)²) / 2.
    fisher = empirical(two_classes, params, (batch, np.array([1, 0])), engine=engine)
    np.testing.assert_allclose(fisher["w"], (1 / 16 + 3.24) / 2, rtol=1e-5)


@each_engine
def test_one_draw_is_the_empirical_fisher_of_the_label_drawn(mlp, engine):
    # Each sample's F is that of one of three labels, and of which one is known from Σ F over
    # parameters; the draw itself does not matter here.
    per_label = [
        empirical(mlp.apply_fn, mlp.params, (mlp.inputs[:1], np.array([y])), engine=engine)
        for y in range(3)
    ]
    seen = set()
    for seed in range(12):
        drawn = sampled(mlp.apply_fn, mlp.params, mlp.inputs[:1], seed=seed, engine=engine)
        kernel = np.asarray(drawn["layer1"]["kernel"])
        same = [np.allclose(kernel, one["layer1"]["kernel"], rtol=1e-5) for one in per_label]
        assert sum(same) == 1
        seen.add(same.index(True))
    assert len(seen) > 1


@each_engine
def test_sampled_tends_to_exact(engine):
    # One sample, seen 4,000 times. A draw of the logistic model is (1 − p)² x² with probability p
    # and p² x² with 1 − p: variance p (1 − p) ((1 − p)² − p²)² x⁴ = p (1 − p) (1 − 2p)² x⁴.
    size, p, x = 4000, 0.75, 2.0
    params = {"w": jnp.full((1, 1), np.log(3.0) / 2)}
    batch = jnp.full((size, 1), x)
    fisher = float(sampled(two_classes, params, batch, engine=engine)["w"][0, 0])
    error = np.sqrt(p * (1 - p) * (1 - 2 * p) ** 2 * x**4 / size)
    assert abs(fisher - p * (1 - p) * x**2) < 4 * error
    # Another key draws other labels.
    assert float(sampled(two_classes, params, batch, seed=1, engine=engine)["w"][0, 0]) != fisher


def test_sampled_does_not_depend_on_batches_and_repeats_with_its_key(mlp):
    whole = sampled(mlp.apply_fn, mlp.params, mlp.inputs)
    in_parts = sampled(mlp.apply_fn, mlp.params, mlp.inputs[:2], mlp.inputs[2:5], mlp.inputs[5:])
    networks.assert_close(in_parts, whole)
    in_microbatches = sampled(mlp.apply_fn, mlp.params, mlp.inputs, microbatch_size=3)
    networks.assert_close(in_microbatches, whole)
    jax.tree.map(
        np.testing.assert_array_equal, sampled(mlp.apply_fn, mlp.params, mlp.inputs), whole
    )
    mesh = jax.make_mesh((1,), ("data",))
    networks.assert_close(sampled(mlp.apply_fn, mlp.params, mlp.inputs, mesh=mesh), whole)


@each_engine
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
def test_classes_with_the_lowest_logit_have_no_part(engine, dtype):
    # Classes 1 and 3 are another task's: the Fisher is that of classes 0 and 2 alone, exactly.
    rng = np.random.default_rng(0)
    params = {"kernel": jnp.asarray(rng.normal(size=(3, 4)), dtype)}
    batch = jnp.asarray(rng.normal(size=(5, 3)), dtype)
    there = jnp.array([[True, False, True, False]])

    def masked(params, x):
        return jnp.where(there, linear(params, x), jnp.finfo(dtype).min)

    def alone(params, x):
        return linear(params, x)[:, ::2]

    fisher = exact(masked, params, batch, engine=engine)
    networks.assert_close(fisher, exact(alone, params, batch, engine=engine), 1e-6)
    assert not np.asarray(fisher["kernel"])[:, 1::2].any()
    drawn = sampled(masked, params, batch, engine=engine)
    assert not np.asarray(drawn["kernel"])[:, 1::2].any()
    given = empirical(masked, params, (batch, np.zeros(5, int)), engine=engine)
    networks.assert_close(
        given, empirical(alone, params, (batch, np.zeros(5, int)), engine=engine), 1e-6
    )


@pytest.mark.parametrize("labels", ["exact", "sampled", "empirical"])
def test_the_estimator_in_a_scan_gives_what_the_host_loop_gives(mlp, labels):
    estimator = mas_jax.fisher_estimator(mlp.apply_fn, labels=labels)
    key, inputs = jax.random.key(3), jnp.asarray(mlp.inputs[:6])
    keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, jnp.arange(6))
    second = {"sampled": keys, "empirical": jnp.asarray(LABELS[:6])}
    batch = inputs if labels == "exact" else (inputs, second[labels])
    batches = jax.tree.map(lambda x: x.reshape(3, 2, *x.shape[1:]), batch)

    @jax.jit
    def scanned(params, batches):
        state, _ = jax.lax.scan(
            lambda state, batch: (estimator.update(state, params, batch), None),
            estimator.init(params),
            batches,
        )
        return estimator.finalize(state)

    wanted = mas_jax.estimate_fisher(
        mlp.apply_fn,
        mlp.params,
        [batch if labels == "empirical" else inputs],
        labels=labels,
        key=key if labels == "sampled" else None,
    )
    networks.assert_close(scanned(mlp.params, batches), wanted)
    outputs, state = estimator.predict_and_update(estimator.init(mlp.params), mlp.params, batch)
    networks.assert_close(outputs, mlp.apply_fn(mlp.params, inputs))
    networks.assert_close(estimator.finalize(state), wanted)


@pytest.mark.parametrize("labels", ["exact", "sampled", "empirical"])
def test_the_second_call_does_not_trace_the_network(mlp, labels):
    traces = []

    def counted(params, x):
        traces.append(x.shape)
        return mlp.apply_fn(params, x)

    def run(params):
        return mas_jax.estimate_fisher(
            counted,
            params,
            [(mlp.inputs, LABELS) if labels == "empirical" else mlp.inputs],
            labels=labels,
            key=jax.random.key(0) if labels == "sampled" else None,
        )

    first = run(mlp.params)
    traced = len(traces)
    second = run(jax.tree.map(lambda leaf: 2 * leaf, mlp.params))
    assert len(traces) == traced
    assert not np.allclose(first["layer1"]["kernel"], second["layer1"]["kernel"])


def test_arrays_in_a_partial_stay_arguments(mlp):
    traces = []

    def scaled(scale, params, x):
        traces.append(x.shape)
        return scale * mlp.apply_fn(params, x)

    results = [
        exact(jax.tree_util.Partial(scaled, jnp.float32(scale)), mlp.params, mlp.inputs)
        for scale in (1.0, 2.0)
    ]
    traced = len(traces)
    exact(jax.tree_util.Partial(scaled, jnp.float32(3.0)), mlp.params, mlp.inputs)
    assert len(traces) == traced
    assert not np.allclose(results[0]["layer1"]["kernel"], results[1]["layer1"]["kernel"])


def test_weights_masks_and_samples_to_skip(mlp):
    estimator = mas_jax.fisher_estimator(
        mlp.apply_fn,
        labels="empirical",
        mask={"layer0": True, "layer1": False},
        on_nonfinite="skip",
    )
    inputs = mlp.inputs.copy()
    inputs[2] = np.nan
    weights = np.array([1.0, 0.0, 1.0, 1.0, 1.0, 1.0, 1.0])
    state = estimator.init(mlp.params)
    state = estimator.update(state, mlp.params, (inputs, LABELS), weights)
    kept = [0, 3, 4, 5, 6]
    wanted = oracle_vector.fisher(mlp.params64, mlp.inputs[kept], LABELS[kept])
    networks.assert_close(estimator.finalize(state)["layer0"], wanted["layer0"])
    assert len(jax.tree.leaves(estimator.finalize(state))) == 2


def test_the_expectation_of_the_oracle_is_a_mean_over_labels(mlp):
    x = mlp.inputs[:1]
    p = oracle_vector.probabilities(oracle.forward(mlp.params64, x[0])[-1])
    of_labels = [oracle_vector.fisher(mlp.params64, x, [y]) for y in range(3)]
    mean = oracle.map_network(lambda a, b, c: p[0] * a + p[1] * b + p[2] * c, *of_labels)
    networks.assert_close(oracle_vector.fisher(mlp.params64, x), mean, 1e-12)


@pytest.mark.parametrize(
    ("batch", "error", "message"),
    [
        (jnp.ones((7, 4)), ValueError, r"takes batches \(inputs, labels\), got float32\[7, 4\]"),
        ((jnp.ones((7, 4)), None), ValueError, r"takes batches \(inputs, labels\)"),
        ((jnp.ones((7, 4)), jnp.ones(7)), TypeError, r"must be integers.*got float32\[7\]"),
        ((jnp.ones((7, 4)), LABELS[:6]), ValueError, r"labels must have shape \(7,\).*got \(6,\)"),
        ((jnp.ones((7, 4)), LABELS[:, None]), ValueError, r"shape \(7,\).*got \(7, 1\)"),
        ((jnp.ones((7, 4)), LABELS + 1), ValueError, r"from 0 to 2.*got 3 for sample 1"),
        ((jnp.ones((7, 4)), LABELS - 1), ValueError, r"from 0 to 2.*got -1 for sample 0"),
    ],
)
def test_bad_labels(mlp, batch, error, message):
    estimator = mas_jax.fisher_estimator(mlp.apply_fn, labels="empirical")
    with pytest.raises(error, match=message):
        estimator.update(estimator.init(mlp.params), mlp.params, batch)
    with pytest.raises(error, match=message):
        empirical(mlp.apply_fn, mlp.params, batch)


def test_a_label_out_of_range_within_a_trace_is_not_finite(mlp):
    estimator = mas_jax.fisher_estimator(mlp.apply_fn, labels="empirical")
    state = jax.jit(estimator.update)(
        estimator.init(mlp.params), mlp.params, (mlp.inputs, LABELS.clip(1) + 1)
    )
    with pytest.raises(mas_jax.NonFiniteError, match="sample 1 of the stream"):
        estimator.finalize(state)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"labels": "true"}, ValueError, "labels must be one of 'exact', 'sampled', 'empirical'"),
        ({"labels": "sampled"}, ValueError, "labels='sampled' takes a key, got key=None"),
        ({"labels": "exact", "key": jax.random.key(0)}, ValueError, "takes no key"),
        ({"labels": "sampled", "key": 3}, TypeError, "one typed key.*got a int"),
        (
            {"labels": "sampled", "key": jax.random.split(jax.random.key(0))},
            TypeError,
            r"one typed key.*\[2\]",
        ),
        ({"labels": "exact", "magnitude": "abs"}, TypeError, "has magnitude of its own"),
        ({"labels": "exact", "lables": 1}, TypeError, "unknown option lables|unexpected keyword"),
    ],
)
def test_bad_options(mlp, options, error, message):
    with pytest.raises(error, match=message):
        mas_jax.estimate_fisher(mlp.apply_fn, mlp.params, [mlp.inputs], **options)


def test_keys_of_a_batch_must_be_typed(mlp):
    estimator = mas_jax.fisher_estimator(mlp.apply_fn, labels="sampled")
    state = estimator.init(mlp.params)
    for keys in (np.zeros((7, 2), np.uint32), None):
        with pytest.raises((TypeError, ValueError), match="keys"):
            estimator.update(state, mlp.params, (mlp.inputs, keys))
    with pytest.raises(ValueError, match=r"keys must have shape \(7,\).*got \(2,\)"):
        estimator.update(state, mlp.params, (mlp.inputs, jax.random.split(jax.random.key(0))))


@pytest.mark.parametrize(
    ("apply_fn", "got"),
    [
        (lambda params, x: {"logits": linear(params, x)}, "a dict of 1"),
        (lambda params, x: linear(params, x).argmax(1), r"int32\[1\]"),
        (lambda params, x: linear(params, x)[..., None], r"float32\[1, 3, 1\]"),
    ],
)
@pytest.mark.parametrize("labels", ["exact", "sampled"])
def test_outputs_that_are_no_logits(apply_fn, got, labels):
    estimator = mas_jax.fisher_estimator(apply_fn, labels=labels)
    params, inputs = {"kernel": jnp.ones((2, 3))}, jnp.ones((4, 2))
    batch = inputs if labels == "exact" else (inputs, jax.random.split(jax.random.key(0), 4))
    with pytest.raises(ValueError, match=rf"\(batch, classes\), got {got}"):
        estimator.update(estimator.init(params), params, batch)
