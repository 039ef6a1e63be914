"""One compiled epoch: filling never counts, heads stay apart, an extra loss is added."""

import dataclasses
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import mas_jax
from experiments.data.types import Examples
from experiments.examples import DeviceExamples, to_device
from experiments.networks import MLP, Network, Seen
from experiments.training import Learner, Rates, Recorded, make_learner

HEADS = ((True, True, False, False), (False, False, True, True))
NETWORK = Network(MLP((5,)), HEADS)


def some_examples(size: int, label_offset: int = 0) -> Examples:
    rng = np.random.default_rng(size)
    labels = rng.integers(0, 2, size).astype(np.int32) + label_offset
    return Examples(rng.normal(size=(size, 3)).astype(np.float32), labels)


def squared_outputs(network: Network, seen: Seen, targets: Any, constants: Any) -> jax.Array:
    """Σ_c a (F_c − t)², with a target t of each example and a constant a."""
    del network
    return constants * jnp.sum((seen.outputs - targets[:, None]) ** 2, axis=1)


NOTHING = Recorded()


def sgd_learner(batch_size: int) -> Learner:
    sgd = optax.inject_hyperparams(optax.sgd)(0.1, momentum=0.9)
    return make_learner(NETWORK, sgd, sgd, squared_outputs, batch_size)


def one_epoch(
    learner: Learner,
    params: Any,
    opt_state: Any,
    examples: DeviceExamples,
    *,
    recorded: Recorded = NOTHING,
    strength: float = 0.0,
    trained: tuple[bool, ...] = (True,) * 4,
) -> Any:
    """What an epoch at rate 0.1 returns."""
    rates = Rates(0.1, strength)
    return learner.train_epoch(
        params, opt_state, examples, recorded, jax.random.key(1), rates, np.array(trained)
    )


def trained(learner: Learner, examples: DeviceExamples, seed: int = 0) -> tuple[dict, float]:
    params = learner.init(jax.random.key(seed), examples)
    params, _, info = one_epoch(learner, params, learner.init_optimizer(params), examples)
    return params, float(info.loss)


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
    hits = np.asarray(NETWORK.logits(params, examples.batch))[:7].argmax(1)
    expected = (hits == np.asarray(examples.labels)[:7]).mean()
    _, _, info = one_epoch(learner, params, learner.init_optimizer(params), examples)
    assert float(info.accuracy) == pytest.approx(expected)  # one step: seen before it moves


def test_rates_go_to_every_step_although_the_state_that_has_them_is_given_away() -> None:
    sgd = optax.inject_hyperparams(optax.sgd)(0.1)
    penalty = optax.inject_hyperparams(mas_jax.anchor_penalty)(strength=0.5)
    network = dataclasses.replace(NETWORK, stepwise=True)
    examples = to_device([(0, some_examples(12))], length=12)
    recorded = Recorded(jnp.zeros(12), jnp.float32(1.0))
    rates = Rates(jnp.float32(0.1), jnp.float32(0.5))
    epochs = []
    for made_of in (network, NETWORK):
        learner = make_learner(made_of, sgd, optax.chain(penalty, sgd), squared_outputs, 4)
        params = learner.init(jax.random.key(0), examples)
        state, data = learner.init_optimizer(params), (examples, recorded, jax.random.key(1))
        epochs.append(learner.train_epoch(params, state, *data, rates, np.full(4, True))[0])
    chex.assert_trees_all_close(*epochs, rtol=1e-5, atol=1e-7)
    assert not rates.learning_rate.is_deleted()


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
    logits = np.asarray(NETWORK.logits(params, examples.batch))[:16]
    hits = logits.argmax(1) == np.asarray(examples.labels)[:16]
    expected = [hits[:7].mean(), hits[7:].mean()]
    np.testing.assert_allclose(learner.accuracy(params, examples).per_task, expected, rtol=1e-6)


def test_outputs_of_other_heads_are_zero_and_out_of_the_running() -> None:
    examples = to_device([(1, some_examples(6, 2))], length=6)
    params = sgd_learner(8).init(jax.random.key(0), examples)
    outputs = NETWORK.outputs(params, examples.batch)
    assert (np.asarray(outputs)[:, :2] == 0).all()
    assert (np.asarray(outputs)[:, 2:] != 0).all()
    masked = NETWORK.logits(params, examples.batch)
    assert set(np.asarray(masked.argmax(1)).tolist()) <= {2, 3}


def test_tasks_of_different_sizes_share_one_compilation() -> None:
    learner = sgd_learner(8)
    for size in (9, 20, 15):
        trained(learner, to_device([(0, some_examples(size))], length=20))
    assert learner.train_epoch._cache_size() == 1  # type: ignore[attr-defined]


def test_accuracy_per_class_counts_real_examples_of_each_class() -> None:
    examples = to_device([(0, some_examples(8)), (1, some_examples(8, 2))], length=40)
    learner = sgd_learner(8)
    params = learner.init(jax.random.key(3), examples)
    labels = np.asarray(examples.labels)[:16]
    hits = np.asarray(NETWORK.logits(params, examples.batch))[:16].argmax(1) == labels
    expected = [hits[labels == label].mean() for label in range(4)]
    per_class = learner.accuracy(params, examples).per_class
    np.testing.assert_allclose(per_class, expected, rtol=1e-6)
    only_first = learner.accuracy(params, to_device([(0, some_examples(8))], length=40))
    assert np.isnan(only_first.per_class).tolist() == [False, False, True, True]
    assert np.isnan(only_first.per_task).tolist() == [False, True]


def test_the_extra_loss_of_recorded_targets_is_added_times_the_strength() -> None:
    # One step of 7 real rows of 12. SGD moves by −0.1 times the gradient, so that what the extra
    # loss adds is −0.1 λ times its own: the mean over the 7 of a Σ_c (F_c − t)².
    examples = to_device([(0, some_examples(7))], length=12)
    targets = jnp.linspace(-1.0, 1.0, 12)
    learner = sgd_learner(12)
    params = learner.init(jax.random.key(0), examples)

    def extra(params: Any) -> jax.Array:
        real = jax.tree.map(lambda x: x[:7], examples.batch)
        return jnp.mean(squared_outputs(NETWORK, NETWORK.seen(params, real), targets[:7], 0.5))

    added = jax.tree.map(lambda grad: -0.1 * 3.0 * grad, jax.grad(extra)(params))
    start = jax.tree.map(jnp.copy, params)
    plain = trained(learner, examples)[0]
    recorded = Recorded(targets, jnp.float32(0.5))
    held, _, info = one_epoch(
        learner, params, learner.init_optimizer(params), examples, recorded=recorded, strength=3.0
    )
    expected = jax.tree.map(lambda p, a: p + a, plain, added)
    chex.assert_trees_all_close(held, expected, rtol=1e-4, atol=1e-5)
    # The loss that is shown is the cross-entropy alone.
    assert float(info.loss) == pytest.approx(trained(learner, examples)[1], rel=1e-5)
    assert not np.allclose(
        start["trunk"]["hidden_0"]["kernel"], held["trunk"]["hidden_0"]["kernel"]
    )


@pytest.mark.parametrize(
    "make",
    [
        lambda: optax.inject_hyperparams(optax.adam)(0.1),
        lambda: optax.inject_hyperparams(optax.sgd)(0.1, momentum=0.9),
    ],
)
def test_momentum_from_before_does_not_move_heads_that_rest(make: Any) -> None:
    base = make()
    learner = make_learner(NETWORK, base, base, squared_outputs, 8)
    first, second = (to_device([(i, some_examples(20, 2 * i))], length=20) for i in (0, 1))
    params = learner.init(jax.random.key(0), first)
    state = learner.init_optimizer(params)
    params, state, _ = one_epoch(learner, params, state, first, trained=(True, True, False, False))
    before = jax.tree.map(np.array, params["heads"])
    after, _, _ = one_epoch(learner, params, state, second, trained=(False, False, True, True))
    for name in ("kernel", "bias"):
        np.testing.assert_array_equal(after["heads"][name][..., :2], before[name][..., :2])
        assert (after["heads"][name][..., 2:] != before[name][..., 2:]).all()


def test_rates_change_without_compiling_again() -> None:
    learner = sgd_learner(8)
    examples = to_device([(0, some_examples(20))], length=20)
    params = learner.init(jax.random.key(0), examples)
    state = learner.init_optimizer(params)
    for strength in (0.0, 1.0, 2.0):
        params, state, _ = one_epoch(learner, params, state, examples, strength=strength)
    assert learner.train_epoch._cache_size() == 1  # type: ignore[attr-defined]
