"""One compiled epoch: every example once, filling never counts, heads stay apart."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments import networks, training
from experiments.data.types import Examples
from experiments.networks import MultiHeadMLP
from experiments.training import DeviceExamples, Learner, make_learner, to_device

HEADS = ((True, True, False, False), (False, False, True, True))
MODEL = MultiHeadMLP((5,), HEADS)


def some_examples(size: int, label_offset: int = 0) -> Examples:
    rng = np.random.default_rng(size)
    labels = rng.integers(0, 2, size).astype(np.int32) + label_offset
    return Examples(rng.normal(size=(size, 3)).astype(np.float32), labels)


def sgd_learner(batch_size: int) -> Learner:
    sgd = optax.inject_hyperparams(optax.sgd)(0.1, momentum=0.9)
    return make_learner(MODEL, sgd, batch_size)


def trained(learner: Learner, examples: DeviceExamples, seed: int = 0) -> tuple[dict, float]:
    params = learner.init(jax.random.key(seed), examples)
    params, _, info = learner.train_epoch(
        params, learner.init_optimizer(params), examples, jax.random.key(1), 0.1
    )
    return params, float(info.loss)


def test_shuffled_batches_hold_each_example_once_and_filling_at_weight_0() -> None:
    examples = to_device([(0, some_examples(13))], length=20)
    rows, weights = training.shuffled_batches(jax.random.key(0), examples, batch_size=8)
    assert rows.shape == weights.shape == (3, 8)
    real = np.asarray(rows)[np.asarray(weights) > 0]
    assert sorted(real.tolist()) == list(range(13))
    assert np.asarray(weights).ravel().tolist() == [1.0] * 13 + [0.0] * 11


def test_shuffle_depends_on_the_key() -> None:
    examples = to_device([(0, some_examples(50))], length=50)
    first, second = (
        training.shuffled_batches(jax.random.key(seed), examples, 10)[0] for seed in (0, 1)
    )
    assert (first != second).any()


def test_batches_cover_the_examples_in_order() -> None:
    examples = to_device([(0, some_examples(5)), (1, some_examples(4, 2))], length=11)
    batch, weights = training.batches(examples, batch_size=4)
    assert np.asarray(weights).ravel().tolist() == [1.0] * 9 + [0.0] * 3
    assert np.asarray(batch.tasks).ravel()[:9].tolist() == [0] * 5 + [1] * 4
    np.testing.assert_array_equal(batch.inputs.reshape(12, 3)[:9], examples.batch.inputs[:9])


def test_filling_changes_nothing_in_an_epoch_whose_batches_are_whole() -> None:
    # 12 examples in batches of 12: one step whichever the length, and the mean over 12 does not
    # depend on their order. With filling to 30 two more steps exist, and must not happen.
    plain = to_device([(0, some_examples(12))], length=12)
    filled = to_device([(0, some_examples(12))], length=30)
    params, loss = trained(sgd_learner(12), plain)
    params_filled, loss_filled = trained(sgd_learner(12), filled)
    assert loss == pytest.approx(loss_filled, rel=1e-6)
    chex.assert_trees_all_close(params, params_filled, rtol=1e-5, atol=1e-7)


def test_epoch_equals_a_hand_written_gradient_step() -> None:
    examples = to_device([(0, some_examples(12))], length=12)
    learner = sgd_learner(12)
    params = learner.init(jax.random.key(0), examples)

    def loss_fn(params: dict) -> jax.Array:
        # By hand: only the first two outputs, those of head 0, take part in the softmax.
        hidden = params["trunk"]["hidden_0"]
        features = examples.batch.inputs @ hidden["kernel"] + hidden["bias"].reshape(1, -1)
        features = jnp.maximum(features, 0.0)
        logits = features @ params["heads"]["kernel"][:, :2]
        logits = logits + params["heads"]["bias"][:2].reshape(1, -1)
        chosen = jnp.take_along_axis(logits, examples.labels[:, None], 1)[:, 0]
        return jnp.mean(jax.nn.logsumexp(logits, axis=1) - chosen)

    expected = jax.tree.map(lambda p, g: p - 0.1 * g, params, jax.grad(loss_fn)(params))
    loss = float(loss_fn(params))
    stepped, epoch_loss = trained(learner, examples)
    assert epoch_loss == pytest.approx(loss, rel=1e-5)
    chex.assert_trees_all_close(expected, stepped, rtol=1e-5, atol=1e-6)


def test_a_ragged_batch_counts_by_its_own_size() -> None:
    # Filled up to 12, in a batch of 12, 7 examples are one step with the mean over 7.
    examples = to_device([(0, some_examples(7))], length=12)
    exact = to_device([(0, some_examples(7))], length=7)
    params, loss = trained(sgd_learner(12), examples)
    params_exact, loss_exact = trained(sgd_learner(7), exact)
    assert loss == pytest.approx(loss_exact, rel=1e-6)
    chex.assert_trees_all_close(params, params_exact, rtol=1e-5, atol=1e-7)


def test_training_accuracy_counts_real_examples() -> None:
    examples = to_device([(0, some_examples(7))], length=30)
    learner = sgd_learner(30)
    params = learner.init(jax.random.key(0), examples)
    hits = np.asarray(networks.logits(MODEL, params, examples.batch))[:7].argmax(1)
    expected = (hits == np.asarray(examples.labels)[:7]).mean()
    _, _, info = learner.train_epoch(
        params, learner.init_optimizer(params), examples, jax.random.key(1), 0.1
    )
    assert float(info.accuracy) == pytest.approx(expected)  # one step: seen before it moves


def test_other_tasks_heads_do_not_move() -> None:
    examples = to_device([(1, some_examples(20, 2))], length=20)
    learner = sgd_learner(8)
    before = learner.init(jax.random.key(0), examples)["heads"]["kernel"].copy()
    after = trained(learner, examples)[0]["heads"]["kernel"]
    np.testing.assert_array_equal(before[:, :2], after[:, :2])
    assert (before[:, 2:] != after[:, 2:]).any()


def test_accuracy_per_task_counts_real_examples_of_each_task() -> None:
    examples = to_device([(0, some_examples(7)), (1, some_examples(9, 2))], length=40)
    learner = sgd_learner(8)
    params = learner.init(jax.random.key(3), examples)
    logits = np.asarray(networks.logits(MODEL, params, examples.batch))[:16]
    hits = logits.argmax(1) == np.asarray(examples.labels)[:16]
    expected = [hits[:7].mean(), hits[7:].mean()]
    np.testing.assert_allclose(learner.accuracy_per_task(params, examples), expected, rtol=1e-6)


def test_outputs_of_other_heads_are_zero_and_out_of_the_running() -> None:
    examples = to_device([(1, some_examples(6, 2))], length=6)
    params = sgd_learner(8).init(jax.random.key(0), examples)
    outputs = networks.outputs(MODEL, params, examples.batch)
    assert (np.asarray(outputs)[:, :2] == 0).all()
    assert (np.asarray(outputs)[:, 2:] != 0).all()
    masked = networks.logits(MODEL, params, examples.batch)
    assert set(np.asarray(masked.argmax(1)).tolist()) <= {2, 3}


def test_tasks_of_different_sizes_share_one_compilation() -> None:
    learner = sgd_learner(8)
    for size in (9, 20, 15):
        trained(learner, to_device([(0, some_examples(size))], length=20))
    assert learner.train_epoch._cache_size() == 1  # type: ignore[attr-defined]
