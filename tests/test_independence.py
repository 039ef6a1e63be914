"""Networks that mix samples are found, and those that do not are left alone."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mas_jax

BATCH = np.random.default_rng(0).normal(size=(4, 5)).astype(np.float32)
PARAMS = {"kernel": jnp.asarray(np.random.default_rng(1).normal(size=(5, 3)), jnp.float32)}

ORDERED = np.array([[3.0], [2.0], [1.0], [-9.0]], np.float32)  # the first ranks last, and so on


def linear(params, x):
    return x @ params["kernel"]


def batch_norm(params, x):
    y = x @ params["kernel"]
    return (y - y.mean(axis=0, keepdims=True)) / (y.std(axis=0, keepdims=True) + 1e-3)


def dropout(params, x):
    mask = jax.random.bernoulli(jax.random.key(3), 0.5, x.shape)
    return (x * mask) @ params["kernel"]


def attention_over_the_batch(params, x):
    return jax.nn.softmax(x @ x.T) @ x @ params["kernel"]


@pytest.mark.parametrize("apply_fn", [batch_norm, dropout, attention_over_the_batch])
def test_coupled_samples_are_an_error(apply_fn):
    with pytest.raises(
        mas_jax.CoupledSamplesError, match=r"for a sample changes by \d+% .* evaluation mode"
    ):
        mas_jax.check_independence(apply_fn, PARAMS, BATCH)


def test_a_mean_over_the_batch_that_keeps_its_axis_is_an_error():
    with pytest.raises(mas_jax.CoupledSamplesError, match=r"shape \(1, 3\) for two samples"):
        mas_jax.check_independence(lambda p, x: linear(p, x).mean(0, keepdims=True), PARAMS, BATCH)


def test_the_output_is_named():
    with pytest.raises(mas_jax.CoupledSamplesError, match=r"output \['bad'\]"):
        mas_jax.check_independence(
            lambda p, x: {"good": linear(p, x), "bad": batch_norm(p, x)}, PARAMS, BATCH
        )


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
def test_rounding_is_no_coupling(dtype):
    params = jax.tree.map(lambda leaf: leaf.astype(dtype), PARAMS)
    deep = lambda p, x: jnp.tanh(linear(p, x.astype(dtype))) @ p["kernel"].T @ p["kernel"]  # noqa: E731
    mas_jax.check_independence(deep, params, BATCH)


def test_samples_that_are_not_finite_say_nothing():
    batch = BATCH.copy()
    batch[[0, -1]] = np.nan
    mas_jax.check_independence(linear, PARAMS, batch)


def test_a_single_sample_and_outputs_of_zero_are_fine():
    mas_jax.check_independence(batch_norm, PARAMS, BATCH[:1])
    mas_jax.check_independence(lambda p, x: 0.0 * linear(p, x), PARAMS, BATCH)


def test_classes_are_compared_only_where_there_is_nothing_better():
    # An argmax may flip with the last digit, and says nothing then.
    mas_jax.check_independence(lambda p, x: linear(p, x).argmax(1), PARAMS, BATCH)
    ranks = lambda p, x: jnp.argsort(linear(p, x).sum(1))  # noqa: E731
    with pytest.raises(mas_jax.CoupledSamplesError):
        mas_jax.check_independence(ranks, PARAMS, np.eye(4, 5, dtype=np.float32) * ORDERED)
    both = lambda p, x: (linear(p, x), jnp.argsort(linear(p, x).sum(1)))  # noqa: E731
    mas_jax.check_independence(both, PARAMS, np.eye(4, 5, dtype=np.float32) * ORDERED)


def test_statistics_that_a_single_sample_has_not_are_coupling():
    def unbiased(params, x):
        y = linear(params, x)
        return y / y.std(axis=0, ddof=1, keepdims=True)

    with pytest.raises(mas_jax.CoupledSamplesError, match="becomes NaN or infinite"):
        mas_jax.check_independence(unbiased, PARAMS, BATCH)


def test_imaginary_parts_count():
    with pytest.raises(mas_jax.CoupledSamplesError):
        mas_jax.check_independence(
            lambda p, x: jax.lax.complex(linear(p, x), batch_norm(p, x)), PARAMS, BATCH
        )


def test_keys_among_inputs_and_outputs_are_left_alone():
    batch = {"x": BATCH, "key": jax.random.split(jax.random.key(0), len(BATCH))}
    mas_jax.check_independence(
        lambda p, batch: {"y": linear(p, batch["x"]), "key": batch["key"]}, PARAMS, batch
    )


def test_a_flax_model_in_evaluation_mode_passes():
    module = nn.Sequential([nn.Dense(4), nn.BatchNorm(use_running_average=True), nn.Dense(2)])
    variables = module.init(jax.random.key(0), BATCH)
    mas_jax.check_independence(*mas_jax.from_linen(module, variables), BATCH)


def test_estimate_importance_checks_its_first_batch():
    with pytest.raises(mas_jax.CoupledSamplesError, match="evaluation mode"):
        mas_jax.estimate_importance(batch_norm, PARAMS, [BATCH])


def test_parameters_on_a_mesh_of_explicit_axes_are_checked_too():
    mesh = jax.make_mesh((1,), ("data",), axis_types=(jax.sharding.AxisType.Explicit,))
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    params = jax.device_put(PARAMS, sharding)
    for given in (params, PARAMS):
        with pytest.raises(mas_jax.CoupledSamplesError, match="evaluation mode"):
            mas_jax.estimate_importance(batch_norm, given, [BATCH], mesh=mesh)


def test_what_is_no_option_or_state_is_an_error():
    with pytest.raises(TypeError, match="unknown option weights; weights per sample go to"):
        mas_jax.estimate_importance(linear, PARAMS, [BATCH], weights=np.ones(4))
    estimator = mas_jax.importance_estimator(linear)
    with pytest.raises(TypeError, match=r"state must be what estimator.init.*got NoneType"):
        estimator.update(None, PARAMS, BATCH)
