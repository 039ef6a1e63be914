"""The host loop's own guards; what it computes is tested with the estimator."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import mas_jax
from mas_jax import accumulation

PARAMS = {"w": jnp.array([1.0, 2.0])}


def apply_fn(params, x):
    return x * params["w"].reshape(1, -1)


@pytest.mark.parametrize(
    "batches", [np.ones((3, 2)), jnp.ones((3, 2)), {"image": np.ones((3, 2))}], ids=type
)
def test_one_batch_in_the_place_of_many_is_refused(batches) -> None:
    # An array iterates over its rows: each would pass for a batch, of scalars.
    with pytest.raises(TypeError, match=r"iterable of batches, got one \w+: .* pass \[batch\]"):
        mas_jax.estimate_importance(apply_fn, PARAMS, batches)


def test_batches_may_be_a_generator_that_fails_midway() -> None:
    def batches():
        yield np.ones((3, 2), np.float32)
        raise OSError("disk")

    with pytest.raises(OSError, match="disk"):
        mas_jax.estimate_importance(apply_fn, PARAMS, batches())


def test_it_may_be_traced() -> None:
    batches = [np.ones((3, 2), np.float32)] * 3
    omega = jax.jit(lambda params: mas_jax.estimate_importance(apply_fn, params, batches))(PARAMS)
    np.testing.assert_allclose(omega["w"], [2.0, 4.0])  # |2 F x| = 2 w


def test_an_objective_that_cannot_be_hashed_works() -> None:
    class Twice:
        __hash__ = None  # type: ignore[assignment]

        def __call__(self, outputs):
            return 2 * mas_jax.squared_l2_norm(outputs)

    batches = [np.ones((3, 2), np.float32)]
    omega = mas_jax.estimate_importance(apply_fn, PARAMS, batches, objective=Twice())
    np.testing.assert_allclose(omega["w"], [4.0, 8.0])


def test_nnx_tasks_share_one_compilation() -> None:
    model = nnx.Linear(2, 2, rngs=nnx.Rngs(0))
    for task in range(3):
        model.kernel[...] = jnp.full((2, 2), float(task))
        call, params = mas_jax.from_nnx(model)
        mas_jax.estimate_importance(call, params, [np.ones((4, 2), np.float32)])
        if task == 0:
            compiled = accumulation.add_batch_in_place._cache_size()
    assert accumulation.add_batch_in_place._cache_size() == compiled
