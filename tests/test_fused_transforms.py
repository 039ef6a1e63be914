"""The fused engine under JAX's own transformations, and where it fails."""

import warnings

import chex
import jax
import jax.numpy as jnp
import pytest

import mas_jax
from mas_jax import engines, per_sample, trees
from mas_jax.fused import engine as fused
from mas_jax.objectives import squared_l2_norm

KEYS = jax.random.split(jax.random.key(0), 4)
PARAMS = {
    "dense": jax.random.normal(KEYS[0], (5, 16)),
    "bias": jax.random.normal(KEYS[1], (1, 16)),
    "conv": jax.random.normal(KEYS[2], (3, 3, 1, 2)),
}
BATCH = jax.random.normal(KEYS[3], (6, 5))


def network(params, x):
    h = jnp.tanh(x @ params["dense"] + params["bias"]).reshape(len(x), 4, 4, 1)
    return jax.lax.conv_general_dilated(
        h, params["conv"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def sums(build):
    """(params, batch) -> sums, of an engine."""
    engine = build(network, squared_l2_norm, jnp.abs)

    def sums_fn(params, batch):
        weights = jnp.ones(len(batch))
        return engine(params, trees.covered(params), batch, weights).sums

    return sums_fn


fused_sums, vmap_sums = sums(fused.fused_engine), sums(per_sample.vmap_engine)


@pytest.mark.parametrize("axes", [(0, None), (None, 0), (0, 0)])
def test_an_ensemble_under_vmap(axes):
    params, batch = PARAMS, BATCH
    if axes[0] == 0:
        params = jax.tree.map(lambda leaf: jnp.stack([leaf, 2 * leaf, 0.3 * leaf]), params)
    if axes[1] == 0:
        batch = jnp.stack([batch, 2 * batch, -batch])
    got = jax.vmap(fused_sums, axes)(params, batch)
    wanted = jax.vmap(vmap_sums, axes)(params, batch)
    chex.assert_trees_all_close(got, wanted, rtol=1e-5)


def test_importance_can_be_differentiated():
    def total(sums_fn):
        return lambda params: sum(jnp.sum(leaf**2) for leaf in sums_fn(params, BATCH).values())

    got, wanted = jax.grad(total(fused_sums))(PARAMS), jax.grad(total(vmap_sums))(PARAMS)
    scale = jax.tree.map(lambda leaf: jnp.abs(leaf).max(), wanted)
    chex.assert_trees_all_close(
        jax.tree.map(jnp.divide, got, scale), jax.tree.map(jnp.divide, wanted, scale), atol=1e-5
    )


def test_a_scan_over_batches():
    estimator = mas_jax.importance_estimator(network, engine="fused")
    batches = BATCH.reshape(3, 2, 5)
    state, _ = jax.lax.scan(
        lambda state, batch: (estimator.update(state, PARAMS, batch), None),
        estimator.init(PARAMS),
        batches,
    )
    wanted = mas_jax.estimate_importance(network, PARAMS, [BATCH], engine="vmap")
    chex.assert_trees_all_close(estimator.finalize(state), wanted, rtol=1e-5)


def test_predict_and_update_runs_the_network_forward_once():
    calls = []

    def counted(params, x):
        jax.debug.callback(calls.append, x[0, 0])
        return network(params, x)

    estimator = mas_jax.importance_estimator(counted, engine="fused")
    outputs, state = estimator.predict_and_update(estimator.init(PARAMS), PARAMS, BATCH)
    jax.effects_barrier()
    # Under vmap the callback is called for each sample: once, and not once more for the outputs.
    assert sorted(calls) == sorted(BATCH[:, 0])
    chex.assert_trees_all_close(outputs, network(PARAMS, BATCH), rtol=1e-5, atol=1e-6)
    wanted = mas_jax.estimate_importance(network, PARAMS, [BATCH], engine="vmap")
    chex.assert_trees_all_close(estimator.finalize(state), wanted, rtol=1e-5)


@pytest.mark.parametrize("engine", ["fused", "vmap"])
def test_predict_and_update_gives_outputs_row_by_row_across_microbatches(engine):
    estimator = mas_jax.importance_estimator(
        lambda params, x: {"y": network(params, x), "n": x.sum(1).astype(int)},
        objective=lambda outputs: squared_l2_norm(outputs["y"]),
        engine=engine,
        microbatch_size=4,
    )
    outputs, _ = estimator.predict_and_update(estimator.init(PARAMS), PARAMS, BATCH)
    chex.assert_trees_all_close(outputs["y"], network(PARAMS, BATCH), rtol=1e-5, atol=1e-6)
    chex.assert_trees_all_equal(outputs["n"], BATCH.sum(1).astype(int))


class BrokenPlanError(RuntimeError):
    """An error of the engine's own."""


@pytest.fixture
def broken(monkeypatch):
    """An engine whose plan fails, as a future jaxpr might make it."""

    def make_plan(*_):
        raise BrokenPlanError("an equation nobody foresaw")

    monkeypatch.setattr(fused, "make_plan", make_plan)
    engines._warn_once.cache_clear()
    return lambda params, x: network(params, x)  # a function that nothing was compiled for


def test_under_auto_an_internal_error_warns_once_and_uses_vmap(broken):
    estimator = mas_jax.importance_estimator(broken)
    with pytest.warns(mas_jax.EngineWarning, match="BrokenPlanError: an equation nobody foresaw"):
        state = estimator.update(estimator.init(PARAMS), PARAMS, BATCH)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        estimator.update(state, PARAMS, BATCH[:3])
    wanted = mas_jax.estimate_importance(network, PARAMS, [BATCH], engine="vmap")
    chex.assert_trees_all_close(estimator.finalize(state), wanted, rtol=1e-6)


def test_under_fused_an_internal_error_is_raised(broken):
    estimator = mas_jax.importance_estimator(broken, engine="fused")
    with pytest.raises(mas_jax.EngineError, match="BrokenPlanError: an equation nobody foresaw"):
        estimator.update(estimator.init(PARAMS), PARAMS, BATCH)


@pytest.mark.parametrize("error", [ZeroDivisionError, NotImplementedError])
@pytest.mark.parametrize("engine", ["auto", "fused"])
def test_an_error_of_the_network_is_the_networks_own(engine, error):
    def failing(*_):
        raise error("of the network")

    estimator = mas_jax.importance_estimator(failing, engine=engine)
    with pytest.raises(error, match="of the network"):
        estimator.update(estimator.init(PARAMS), PARAMS, BATCH)


def test_a_sum_that_was_not_reduced_is_refused(monkeypatch):
    def unreduced(eqn, _kernel, _rule, _reduce_fn, x, weight, token):
        return eqn.primitive.bind(x, weight.value + weight.slot, **eqn.params), token

    monkeypatch.setattr(fused.interpret, "evaluate_site", unreduced)
    with pytest.raises(mas_jax.EngineError, match="out_axes"):
        jax.jit(fused_sums)(PARAMS, BATCH)
