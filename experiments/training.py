"""Training and evaluation: one compiled scan per epoch over examples held on the device."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments import networks
from experiments.data.types import Examples
from experiments.networks import Batch, MultiHeadMLP


class DeviceExamples(NamedTuple):
    """Examples on the device, filled up to a length that all tasks share.

    The filling repeats the first example and never counts. It is there so that tasks of
    different sizes run through one compilation.
    """

    batch: Batch  # (N, …)
    labels: jax.Array  # (N,) int32
    size: jax.Array  # () int32: how many rows are real


class EpochInfo(NamedTuple):
    """What an epoch reports."""

    loss: jax.Array  # () mean over the examples, as seen while training
    accuracy: jax.Array  # () fraction, likewise


class Learner(NamedTuple):
    """Compiled functions for one network and one optimizer."""

    init: Callable[[jax.Array, DeviceExamples], Any]
    init_optimizer: Callable[[Any], Any]
    train_epoch: Callable[..., tuple[Any, Any, EpochInfo]]
    accuracy_per_task: Callable[[Any, DeviceExamples], jax.Array]


def to_device(examples: Sequence[tuple[int, Examples]], length: int) -> DeviceExamples:
    """(task index, its examples) pairs as one set on the device, filled up to `length`."""
    inputs = np.concatenate([part.inputs for _, part in examples])
    labels = np.concatenate([part.labels for _, part in examples])
    tasks = np.concatenate([np.full(len(part.labels), task) for task, part in examples])
    rows = np.arange(length)
    rows = np.where(rows < len(labels), rows, 0)
    return DeviceExamples(
        Batch(jnp.asarray(inputs[rows]), jnp.asarray(tasks[rows], jnp.int32)),
        jnp.asarray(labels[rows], jnp.int32),
        jnp.asarray(len(labels), jnp.int32),
    )


def make_learner(
    model: MultiHeadMLP, optimizer: optax.GradientTransformation, batch_size: int
) -> Learner:
    """Build the training and evaluation functions, each compiled once per shape of its data."""

    def loss_fn(params: Any, batch: Batch, labels: jax.Array, weights: jax.Array) -> Any:
        logits_BxC = networks.logits(model, params, batch)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits_BxC, labels)
        hits = (logits_BxC.argmax(-1) == labels).astype(jnp.float32)
        loss_sum, hit_sum = jnp.sum(weights * losses), jnp.sum(weights * hits)
        return loss_sum / jnp.sum(weights), EpochInfo(loss_sum, hit_sum)

    def step(carry: Any, rows: jax.Array, weights: jax.Array, examples: DeviceExamples) -> Any:
        params, opt_state = carry
        batch = jax.tree.map(lambda x: x[rows], examples.batch)
        grad_fn = jax.grad(loss_fn, has_aux=True)
        grads, sums = grad_fn(params, batch, examples.labels[rows], weights)
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return (optax.apply_updates(params, updates), opt_state), sums

    def train_epoch(
        params: Any,
        opt_state: Any,
        examples: DeviceExamples,
        key: jax.Array,
        learning_rate: jax.Array,
    ) -> tuple[Any, Any, EpochInfo]:
        opt_state = optax.tree_utils.tree_set(opt_state, learning_rate=learning_rate)
        rows_SxB, weights_SxB = shuffled_batches(key, examples, batch_size)

        def scan_step(carry: Any, xs: tuple[jax.Array, jax.Array]) -> Any:
            rows, weights = xs
            # A step of filling alone must not happen: momentum would move the parameters.
            return jax.lax.cond(
                weights[0] > 0,
                lambda carry: step(carry, rows, weights, examples),
                lambda carry: (carry, EpochInfo(jnp.zeros(()), jnp.zeros(()))),
                carry,
            )

        carry, sums = jax.lax.scan(scan_step, (params, opt_state), (rows_SxB, weights_SxB))
        params, opt_state = carry
        size = examples.size.astype(jnp.float32)
        return params, opt_state, jax.tree.map(lambda x: x.sum() / size, sums)

    def accuracy_per_task(params: Any, examples: DeviceExamples) -> jax.Array:
        batch = examples.batch
        logits_NxC = networks.logits(model, params, batch)
        real = (jnp.arange(len(examples.labels)) < examples.size).astype(jnp.float32)
        hits = real * (logits_NxC.argmax(-1) == examples.labels).astype(jnp.float32)
        of_task_NxT = jax.nn.one_hot(batch.tasks, len(model.head_outputs))
        return hits @ of_task_NxT / (real @ of_task_NxT)

    def init(key: jax.Array, examples: DeviceExamples) -> Any:
        return model.init(key, jax.tree.map(lambda x: x[:1], examples.batch))["params"]

    return Learner(
        init=jax.jit(init),
        init_optimizer=optimizer.init,
        train_epoch=jax.jit(train_epoch, donate_argnums=(0, 1)),
        accuracy_per_task=jax.jit(accuracy_per_task),
    )


def shuffled_batches(
    key: jax.Array, examples: DeviceExamples, batch_size: int
) -> tuple[jax.Array, jax.Array]:
    """Rows (S, B) in random order, real ones first, and their weights: 1, or 0 for filling."""
    length = len(examples.labels)
    draw = jax.random.uniform(key, (length,))
    order = jnp.argsort(jnp.where(jnp.arange(length) < examples.size, draw, 2.0))
    steps = -(-length // batch_size)
    positions = jnp.arange(steps * batch_size)
    weights = (positions < examples.size).astype(jnp.float32)
    rows = order[jnp.minimum(positions, length - 1)]
    shape = (steps, batch_size)
    return rows.reshape(shape), weights.reshape(shape)


def batches(examples: DeviceExamples, batch_size: int) -> tuple[Batch, jax.Array]:
    """`examples` in order, cut into (S, B, …) batches for a scan, and their weights (S, B)."""
    length = len(examples.labels)
    steps = -(-length // batch_size)
    positions = jnp.arange(steps * batch_size)
    rows = jnp.where(positions < length, positions, 0)
    weights = (positions < examples.size).astype(jnp.float32)
    shape = (steps, batch_size)
    batch = jax.tree.map(lambda x: x[rows].reshape(*shape, *x.shape[1:]), examples.batch)
    return batch, weights.reshape(shape)
