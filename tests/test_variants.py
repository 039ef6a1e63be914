"""Every pure function of the public surface gives the same compiled and not."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl.testing import parameterized

import mas_jax

PARAMS = {"w": jnp.array([[1.0, -2.0], [0.5, 3.0]]), "b": jnp.array([0.1, -0.2])}
ANCHOR = mas_jax.Anchor(
    jax.tree.map(lambda leaf: leaf - 0.5, PARAMS), jax.tree.map(jnp.abs, PARAMS)
)
INPUTS = np.random.default_rng(0).normal(size=(5, 2)).astype(np.float32)


def apply_fn(params, x):
    return jnp.tanh(x @ params["w"] + params["b"].reshape(1, -1))


class CompiledAndNot(chex.TestCase):
    """`variant` is jax.jit in one run of a test and the plain function in another."""

    @chex.variants(with_jit=True, without_jit=True)
    @parameterized.parameters("squared_l2_norm", "l2_norm", "l1_norm")
    def test_objectives(self, name):
        objective = getattr(mas_jax, name)
        # 3 and −4: 25, 5 and 7.
        expected = {"squared_l2_norm": 25.0, "l2_norm": 5.0, "l1_norm": 7.0}[name]
        assert float(self.variant(objective)(jnp.array([3.0, -4.0]))) == expected

    @chex.variants(with_jit=True, without_jit=True)
    @parameterized.parameters(None, 1, 2)
    def test_the_estimator(self, microbatch_size):
        estimator = mas_jax.importance_estimator(apply_fn, microbatch_size=microbatch_size)
        state = self.variant(estimator.init)(PARAMS)
        state = self.variant(estimator.update)(state, PARAMS, INPUTS)
        omega = self.variant(estimator.finalize)(state)

        def objective(params, x):
            return jnp.sum(apply_fn(params, x[None]) ** 2)

        grads = [jax.grad(objective)(PARAMS, x) for x in INPUTS]
        expected = jax.tree.map(lambda *leaf: jnp.mean(jnp.abs(jnp.stack(leaf)), 0), *grads)
        chex.assert_trees_all_close(omega, expected, rtol=1e-5, atol=1e-6)

    @chex.variants(with_jit=True, without_jit=True)
    def test_the_loss_term(self):
        value = self.variant(mas_jax.penalty)(PARAMS, ANCHOR, 2.0)
        # (2/2) Σ Ω · 0.5² with Ω = |θ|: a quarter of 1 + 2 + 0.5 + 3 + 0.1 + 0.2 = 6.8.
        np.testing.assert_allclose(value, 1.7, rtol=1e-6)

    @chex.variants(with_jit=True, without_jit=True)
    def test_consolidate_and_with_anchor(self):
        tx = optax.chain(mas_jax.anchor_penalty(2.0), optax.identity())

        def pulled(params, anchor):
            merged = mas_jax.consolidate(anchor, anchor.params, anchor.importance)
            state = mas_jax.with_anchor(tx.init(params), merged)
            return tx.update(jax.tree.map(jnp.zeros_like, params), state, params)[0]

        # λ · 2Ω · (θ − θ*) = 2 · 2|θ| · 0.5.
        expected = jax.tree.map(lambda leaf: 2 * jnp.abs(leaf), PARAMS)
        chex.assert_trees_all_close(self.variant(pulled)(PARAMS, ANCHOR), expected, rtol=1e-5)

    @chex.variants(with_jit=True, without_jit=True)
    def test_the_proximal_step(self):
        tx = mas_jax.anchor_proximal(2.0, 0.1)
        state = mas_jax.with_anchor(tx.init(PARAMS), ANCHOR)
        updates, _ = self.variant(tx.update)(jax.tree.map(jnp.ones_like, PARAMS), state, PARAMS)

        def expected(theta, star, omega):
            s = 0.1 * 2.0 * omega
            return (theta + 1 + s * star) / (1 + s) - theta

        chex.assert_trees_all_close(
            updates, jax.tree.map(expected, PARAMS, *ANCHOR), rtol=1e-4, atol=1e-6
        )
