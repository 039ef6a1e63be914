"""Flax models as apply_fn and params, in evaluation mode."""

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import mas_jax
from mas_jax import accumulation

IMAGES = jax.random.normal(jax.random.key(0), (5, 6, 6, 2))


class LinenNet(nn.Module):
    """Convolution, batch norm, dropout, dense."""

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        x = nn.Conv(4, (3, 3))(x)
        x = nn.BatchNorm(use_running_average=not train)(x)
        x = nn.Dropout(0.5, deterministic=not train)(nn.relu(x).mean((1, 2)))
        return nn.Dense(3)(x)


class NnxNet(nnx.Module):
    """The same in nnx."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.conv = nnx.Conv(2, 4, (3, 3), rngs=rngs)
        self.norm = nnx.BatchNorm(4, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)
        self.dense = nnx.Linear(4, 3, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = nnx.relu(self.norm(self.conv(x))).mean((1, 2))
        return self.dense(self.dropout(x))


@pytest.fixture
def linen() -> tuple[LinenNet, dict]:
    """A network whose batch statistics have moved."""
    module = LinenNet()
    variables = module.init(jax.random.key(1), IMAGES, train=False)
    _, updated = module.apply(
        variables, IMAGES, train=True, mutable=["batch_stats"], rngs={"dropout": jax.random.key(2)}
    )
    return module, {"params": variables["params"], **updated}


def test_linen_apply_fn_is_the_module_in_evaluation_mode(linen) -> None:
    module, variables = linen
    apply_fn, params = mas_jax.from_linen(module, variables, train=False)
    assert params is variables["params"]
    expected = module.apply(variables, IMAGES, train=False)
    np.testing.assert_array_equal(apply_fn(params, IMAGES), expected)


def test_linen_importance_uses_the_batch_statistics(linen) -> None:
    module, variables = linen
    apply_fn, params = mas_jax.from_linen(module, variables, train=False)
    omega = mas_jax.estimate_importance(apply_fn, params, [IMAGES])

    def objective(params, image):
        outputs = module.apply({**variables, "params": params}, image[None], train=False)
        return jnp.sum(outputs[0] ** 2)

    grads = [jax.grad(objective)(params, image) for image in IMAGES]
    expected = jax.tree.map(lambda *g: jnp.mean(jnp.abs(jnp.stack(g)), axis=0), *grads)
    chex.assert_trees_all_close(omega, expected, rtol=1e-4, atol=1e-6)


def test_linen_call_chooses_how_the_module_is_called(linen) -> None:
    module, variables = linen
    by_call, params = mas_jax.from_linen(
        module, variables, call=lambda module, batch: module(batch["image"], train=False)
    )
    by_argument, _ = mas_jax.from_linen(module, variables, train=False)
    np.testing.assert_array_equal(by_call(params, {"image": IMAGES}), by_argument(params, IMAGES))


@pytest.mark.parametrize("mode", [{"train": True}])
def test_linen_in_training_mode_is_refused(linen, mode: dict) -> None:
    module, variables = linen
    apply_fn, params = mas_jax.from_linen(module, variables, **mode)
    with pytest.raises(ValueError, match=r"LinenNet is not in evaluation mode.*train=False"):
        apply_fn(params, IMAGES)


def test_linen_dropout_in_training_mode_is_refused() -> None:
    module = nn.Sequential([nn.Dense(2), nn.Dropout(0.5, deterministic=False)])
    variables = module.init({"params": jax.random.key(0), "dropout": jax.random.key(1)}, IMAGES)
    apply_fn, params = mas_jax.from_linen(module, variables)
    with pytest.raises(ValueError, match="Sequential is not in evaluation mode"):
        apply_fn(params, IMAGES)


def test_linen_without_params_collection_is_refused(linen) -> None:
    module, variables = linen
    with pytest.raises(ValueError, match=r"no collection 'params', only \['BatchNorm_0'"):
        mas_jax.from_linen(module, variables["params"], train=False)


def test_linen_call_and_keywords_together_are_refused(linen) -> None:
    module, variables = linen
    with pytest.raises(ValueError, match=r"either call or keyword arguments \(train\), not both"):
        mas_jax.from_linen(module, variables, call=lambda m, x: m(x), train=False)


def test_linen_new_statistics_do_not_compile_again(linen) -> None:
    _, variables = linen
    for shift in (0.0, 1.0):  # the next task's statistics
        moved = jax.tree.map(lambda leaf, shift=shift: leaf + shift, variables)
        apply_fn, params = mas_jax.from_linen(LinenNet(), moved, train=False)
        if shift == 0.0:
            first = mas_jax.estimate_importance(apply_fn, params, [IMAGES])
            compiled = accumulation.add_batch_in_place._cache_size()
        else:
            second = mas_jax.estimate_importance(apply_fn, params, [IMAGES])
    assert accumulation.add_batch_in_place._cache_size() == compiled
    difference = jax.tree.map(lambda a, b: float(abs(a - b).max()), first, second)
    assert max(jax.tree.leaves(difference)) > 0


def test_nnx_apply_fn_is_the_model_in_evaluation_mode() -> None:
    model = NnxNet(nnx.Rngs(0))
    model(IMAGES)  # moves the batch statistics
    apply_fn, params = mas_jax.from_nnx(model)
    outputs = apply_fn(params, IMAGES)
    assert not model.dropout.deterministic  # the model itself stays as it was
    model.eval()
    np.testing.assert_array_equal(outputs, model(IMAGES))


def test_nnx_importance_has_the_structure_that_nnx_optimizer_uses() -> None:
    model = NnxNet(nnx.Rngs(0))
    apply_fn, params = mas_jax.from_nnx(model)
    omega = mas_jax.estimate_importance(apply_fn, params, [IMAGES])
    anchor = mas_jax.consolidate(None, params, omega)
    tx = optax.chain(mas_jax.anchor_penalty(10.0), optax.sgd(0.1))
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
    optimizer.opt_state = mas_jax.with_anchor(optimizer.opt_state, anchor)

    moved = jax.tree.map(lambda leaf: leaf + 0.5, params)
    nnx.update(model, moved)
    optimizer.update(model, jax.tree.map(jnp.zeros_like, params))
    # With no gradient of its own the step is −η λ Ω (θ − θ*) = −0.1 · 10 · Ω · 0.5.
    jax.tree.map(
        lambda after, before, weight: np.testing.assert_allclose(
            after, before - 0.5 * weight, rtol=1e-4, atol=1e-6
        ),
        nnx.state(model, nnx.Param), moved, omega,
    )  # fmt: skip


def test_nnx_call_chooses_how_the_model_is_called() -> None:
    model = NnxNet(nnx.Rngs(0))
    apply_fn, params = mas_jax.from_nnx(model, call=lambda model, batch: model(batch["image"]))
    assert apply_fn(params, {"image": IMAGES}).shape == (5, 3)


def test_nnx_model_without_params_is_refused() -> None:
    with pytest.raises(ValueError, match=r"Dropout has no nnx\.Param"):
        mas_jax.from_nnx(nnx.Dropout(0.5, rngs=nnx.Rngs(0)))
