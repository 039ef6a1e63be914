"""Training and evaluation: one compiled scan per epoch over examples held on the device."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from experiments import devices, networks
from experiments.data.types import Examples
from experiments.networks import Batch, MultiHeadMLP


class DeviceExamples(NamedTuple):
    """Examples on the device, or whole on each, filled up to a length that all tasks share.

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


def to_device(
    examples: Sequence[tuple[int, Examples]], length: int, mesh: Mesh | None = None
) -> DeviceExamples:
    """(task index, its examples) pairs as one set on the device, filled up to `length`."""
    inputs = np.concatenate([part.inputs for _, part in examples])
    labels = np.concatenate([part.labels for _, part in examples])
    tasks = np.concatenate([np.full(len(part.labels), task, np.int32) for task, part in examples])
    rows = np.arange(length)
    rows = np.where(rows < len(labels), rows, 0)
    put = functools.partial(devices.replicated, mesh)
    return DeviceExamples(
        Batch(put(inputs[rows]), put(tasks[rows])),
        put(labels[rows].astype(np.int32)),
        put(np.int32(len(labels))),
    )


def make_learner(
    model: MultiHeadMLP,
    optimizer: optax.GradientTransformation,
    batch_size: int,
    mesh: Mesh | None = None,
) -> Learner:
    """Build the training and evaluation functions, each compiled once per shape of its data.

    On a mesh each device computes what its share of a batch's rows adds to the gradient;
    parameters and the optimizer's state are the same on all.
    """

    def loss_fn(params: Any, batch: Batch, labels: jax.Array, weights: jax.Array) -> Any:
        logits_BxC = networks.logits(model, params, batch)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits_BxC, labels)
        hits = (logits_BxC.argmax(-1) == labels).astype(jnp.float32)
        loss_sum, hit_sum = jnp.sum(weights * losses), jnp.sum(weights * hits)
        return loss_sum / jnp.sum(weights), EpochInfo(loss_sum, hit_sum)

    def step(carry: Any, rows: jax.Array, weights: jax.Array, examples: DeviceExamples) -> Any:
        params, opt_state = carry
        taken = jax.tree.map(lambda x: x[rows], (examples.batch, examples.labels))
        batch, labels, weights = devices.divided(mesh, (*taken, weights))
        grad_fn = jax.grad(loss_fn, has_aux=True)
        grads, sums = grad_fn(params, batch, labels, weights)
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return (optax.apply_updates(params, updates), opt_state), sums

    def train_epoch(
        params: Any,
        opt_state: Any,
        examples: DeviceExamples,
        key: jax.Array,
        learning_rate: jax.Array,
    ) -> tuple[Any, Any, EpochInfo]:
        # With its dtype: a Python number's would be a weak one, and the second epoch compile again.
        rate = jnp.asarray(learning_rate, jnp.float32)
        opt_state = optax.tree_utils.tree_set(opt_state, learning_rate=rate)
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
        batch, labels = devices.divided(mesh, (examples.batch, examples.labels))
        logits_NxC = networks.logits(model, params, batch)
        real = (jnp.arange(len(labels)) < examples.size).astype(jnp.float32)
        hits = real * (logits_NxC.argmax(-1) == labels).astype(jnp.float32)
        of_task_NxT = jax.nn.one_hot(batch.tasks, len(model.head_outputs))
        return hits @ of_task_NxT / (real @ of_task_NxT)

    def init(key: jax.Array, examples: DeviceExamples) -> Any:
        return model.init(key, jax.tree.map(lambda x: x[:1], examples.batch))["params"]

    if mesh is None:
        compiled, init_optimizer = jax.jit, optimizer.init
    else:
        compiled = functools.partial(jax.jit, out_shardings=devices.whole_on(mesh))
        init_optimizer = compiled(optimizer.init)
    return Learner(
        init=compiled(init),
        init_optimizer=init_optimizer,
        train_epoch=compiled(train_epoch, donate_argnums=(0, 1)),
        accuracy_per_task=compiled(accuracy_per_task),
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
