"""What runs here on a CPU lowers for TPU and CUDA too."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import mas_jax

PLATFORMS = ["tpu", "cuda"]


class Network(nn.Module):
    """A convolution, many positions, one position, and leaves that fall back."""

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(4, (3, 3))(x))
        x = nn.LayerNorm()(nn.remat(nn.Dense)(8)(x))
        x = nn.max_pool(x, (2, 2), (2, 2))
        return nn.Dense(3)(x.reshape(x.shape[0], -1))


BATCH = np.random.default_rng(0).normal(size=(8, 8, 8, 3)).astype(np.float32)


def learned():
    """apply_fn and params."""
    module = Network()
    return mas_jax.from_linen(module, module.init(jax.random.key(0), BATCH))


def lowered(fn, *args, platform):
    """The module text of `fn` for a platform that need not be here."""
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(jnp.shape(x), jnp.result_type(x)), args)
    exported = jax.export.export(jax.jit(fn), platforms=[platform])(*shapes)
    assert exported.platforms == (platform,)
    return exported.mlir_module()


@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.parametrize("engine", ["fused", "vmap"])
def test_an_update_lowers(platform, engine):
    apply_fn, params = learned()
    estimator = mas_jax.importance_estimator(apply_fn, engine=engine)
    text = lowered(estimator.update, estimator.init(params), params, BATCH, platform=platform)
    assert "stablehlo.convolution" in text


@pytest.mark.parametrize("platform", PLATFORMS)
def test_predict_and_update_lowers(platform):
    apply_fn, params = learned()
    estimator = mas_jax.importance_estimator(apply_fn, engine="fused")
    lowered(estimator.predict_and_update, estimator.init(params), params, BATCH, platform=platform)


@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.parametrize("step", ["penalty", "proximal"])
def test_a_training_step_lowers(platform, step):
    apply_fn, params = learned()
    importance = mas_jax.estimate_importance(apply_fn, params, [BATCH])
    anchor = mas_jax.consolidate(None, params, importance)
    if step == "penalty":
        tx = optax.chain(mas_jax.anchor_penalty(1.0), optax.adam(1e-3))
    else:
        tx = optax.chain(optax.sgd(0.1), mas_jax.anchor_proximal(1.0, learning_rate=0.1))
    opt_state = mas_jax.with_anchor(tx.init(params), anchor)

    def train_step(params, opt_state, batch, labels):
        def loss_fn(params):
            logits = apply_fn(params, batch)
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

        updates, opt_state = tx.update(jax.grad(loss_fn)(params), opt_state, params)
        return optax.apply_updates(params, updates), opt_state

    labels = np.zeros(len(BATCH), np.int32)
    lowered(train_step, params, opt_state, BATCH, labels, platform=platform)
