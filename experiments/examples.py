"""Examples on the device, and how they are cut into batches."""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from experiments import devices
from experiments.data.types import Examples
from experiments.networks import Batch


class DeviceExamples(NamedTuple):
    """Examples on the device, or whole on each, filled up to a length that all tasks share.

    The filling repeats the first example and never counts. It is there so that tasks of
    different sizes run through one compilation.
    """

    batch: Batch  # (N, …)
    labels: jax.Array  # (N,) int32
    size: jax.Array  # () int32: how many rows are real


def to_device(
    examples: Sequence[tuple[int, Examples]], length: int, mesh: Mesh | None = None
) -> DeviceExamples:
    """(task index, its examples) pairs as one set on the device, filled up to `length`."""
    inputs = np.concatenate([part.inputs for _, part in examples])
    labels = np.concatenate([part.labels for _, part in examples])
    tasks = np.concatenate([np.full(len(part.labels), task, np.int32) for task, part in examples])
    if length > len(labels):
        rows = np.arange(length)
        rows = np.where(rows < len(labels), rows, 0)
        inputs, filled_labels, tasks = inputs[rows], labels[rows], tasks[rows]
    else:
        filled_labels = labels
    put = functools.partial(devices.replicated, mesh)
    return DeviceExamples(
        Batch(put(inputs), put(tasks)),
        put(filled_labels.astype(np.int32)),
        put(np.int32(len(labels))),
    )


def shuffled_batches(
    key: jax.Array, examples: DeviceExamples, batch_size: int, steps: int | None = None
) -> tuple[jax.Array, jax.Array]:
    """Rows (S, B) in random order, and their weights: 1, or 0 for filling.

    Without `steps` an epoch is one pass, real rows first, the rest filling. With `steps`, so many
    full batches of real rows: passes follow one another, each in an order of its own, and the
    last one may be cut short.
    """
    length = len(examples.labels)
    if steps is None:
        draw = jax.random.uniform(key, (length,))
        order = jnp.argsort(jnp.where(jnp.arange(length) < examples.size, draw, 2.0))
        steps = -(-length // batch_size)
        positions = jnp.arange(steps * batch_size)
        weights = (positions < examples.size).astype(jnp.float32)
        rows = order[jnp.minimum(positions, length - 1)]
    else:
        # As many as the last pass would have if it were whole, so that all may be drawn for it.
        positions = jnp.arange(steps * batch_size + length)
        draw = jax.random.uniform(key, positions.shape)
        # In the order of passes, and at random within each.
        order = jnp.lexsort((draw, positions // examples.size))[: steps * batch_size]
        rows, weights = order % examples.size, jnp.ones(steps * batch_size)
    shape = (steps, batch_size)
    return rows.reshape(shape), weights.reshape(shape)


def in_order(examples: DeviceExamples, batch_size: int) -> tuple[jax.Array, jax.Array]:
    """Rows (S, B) in order, and their weights: 1, or 0 for filling."""
    length = len(examples.labels)
    shape = (-(-length // batch_size), batch_size)
    positions = jnp.arange(shape[0] * batch_size)
    rows = jnp.where(positions < length, positions, 0)
    weights = (positions < examples.size).astype(jnp.float32)
    return rows.reshape(shape), weights.reshape(shape)
