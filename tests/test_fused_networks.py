"""The fused engine gives what the vmap engine gives, on networks of every kind."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mas_jax
from tests import networks

WEIGHTS = np.array([1.0, 0.0, 0.25, 3.0, 0.5])  # of the networks with five samples


def parametrize_networks(*builders):
    return pytest.mark.parametrize("build", builders, ids=lambda build: build.__name__)


@parametrize_networks(*networks.ZOO)
def test_fused_equals_vmap(build):
    networks.assert_engines_agree(build())


@parametrize_networks(networks.alexnet, networks.scanned_stack, networks.tied_transformer)
def test_outputs_are_those_of_apply_fn(build):
    network = build()
    weights = np.ones(networks.size_of(network.batch))
    results = networks.compiled(network, engines=["fused"])(network.batch, weights)
    apply_fn = jax.jit(network.apply_fn, compiler_options=networks.COMPILER_OPTIONS)
    networks.assert_close(results.fused["abs"].outputs, apply_fn(network.params, network.batch))


@pytest.mark.parametrize("options", [{"microbatch_size": 2}, {"memory_budget": 1}], ids=str)
@parametrize_networks(networks.one_position, networks.lstm)
def test_microbatches_change_nothing(build, options):
    networks.assert_engines_agree(build(), **options)


@parametrize_networks(networks.vgg_block, networks.recomputed_scan, networks.adapters)
def test_a_sample_that_is_not_finite_is_left_out_exactly(build):
    network = build()
    run = networks.compiled(network)
    for bad in (np.nan, np.inf):
        spoiled = network.batch.copy()
        spoiled[1].flat[0] = bad
        spoiled[3] = bad
        results = run(spoiled, np.ones(5))
        fused = results.fused["abs"]
        np.testing.assert_array_equal(fused.finite, [True, False, True, False, True])
        # As though it had weight 0, which leaves a finite sample out and a bad one alike.
        for batch in (network.batch, spoiled):
            without = run(batch, np.array([1.0, 0.0, 1.0, 0.0, 1.0])).fused["abs"]
            jax.tree.map(np.testing.assert_array_equal, fused.sums, without.sums)
        networks.assert_close(fused.sums, results.vmap["abs"].sums)


@pytest.mark.parametrize(
    ("build", "magnitude"), [(networks.one_position, "square"), (networks.adapters, "abs")]
)
def test_a_stream_of_batches_in_the_public_api(build, magnitude):
    network = build()
    reversed_batch, results = network.batch[::-1], {}
    for engine in ("fused", "vmap"):
        estimator = mas_jax.importance_estimator(
            network.apply_fn, engine=engine, mask=network.mask, magnitude=magnitude
        )
        state = estimator.update(estimator.init(network.params), network.params, network.batch)
        outputs, state = estimator.predict_and_update(
            state, network.params, reversed_batch, WEIGHTS
        )
        networks.assert_close(outputs, network.apply_fn(network.params, reversed_batch))
        results[engine] = estimator.finalize(state)
    networks.assert_close(results["fused"], results["vmap"])


@parametrize_networks(networks.mlp, networks.adapters_and_layers)
def test_reduction_by_batch_is_the_magnitude_of_the_mean_gradient(build):
    network = build()

    def mean(params):
        outputs = network.apply_fn(params, network.batch)
        return jnp.mean(jax.vmap(network.objective)(outputs))

    omega = mas_jax.estimate_importance(
        network.apply_fn, network.params, [network.batch], reduction="batch", engine="fused"
    )
    networks.assert_close(omega, jax.tree.map(jnp.abs, jax.grad(mean)(network.params)))


@pytest.mark.parametrize(
    ("dtype", "param_dtype"),
    [
        (jnp.bfloat16, jnp.bfloat16),
        (jnp.float16, jnp.float16),
        (jnp.bfloat16, jnp.float32),
    ],
    ids=["bfloat16", "float16", "float32 params, bfloat16 compute"],
)
@parametrize_networks(networks.lenet, networks.untied_transformer)
def test_low_precision_is_close_to_float32(build, dtype, param_dtype):
    network = build(dtype, param_dtype)
    assert networks.rules_of(network) == network.expected_rules()
    in_float32 = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), network.params)
    reference = build()._replace(params=in_float32)
    low, exact = (
        networks.compiled(each, ("abs", "square"), [engine])(network.batch, WEIGHTS)
        for each, engine in ((network, "fused"), (reference, "vmap"))
    )
    # A gradient comes of some 20 operations forward and 20 backward. Each is off by up to ε/2 in
    # either direction, ε/√12 in the root mean square: ε √(40/12) together. Three times that, and
    # twice as much for a square.
    tolerance = 3 * math.sqrt(40 / 12) * float(jnp.finfo(dtype).eps)
    for magnitude, times in {"abs": 1, "square": 2}.items():
        sums = low.fused[magnitude].sums
        assert {leaf.dtype for leaf in jax.tree.leaves(sums)} == {jnp.dtype(jnp.float32)}
        networks.assert_close(sums, exact.vmap[magnitude].sums, times * tolerance)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_sums_over_many_samples_do_not_stall(dtype):
    # A sum of ones stalls at 256 in bfloat16, at 2048 in float16.
    network = networks.one_of_each(3000, dtype)
    assert networks.rules_of(network) == network.expected_rules()
    fused = networks.compiled(network, engines=["fused"])(network.batch, np.ones(3000)).fused["abs"]
    for name, sums in fused.sums.items():
        assert sums.dtype == jnp.float32
        np.testing.assert_array_equal(sums, np.full(sums.shape, 3000.0), err_msg=name)
