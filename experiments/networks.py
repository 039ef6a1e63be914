"""The networks, with one head per task, and their outputs as the tasks see them."""

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

TRUNK_ONLY = {"trunk": True, "heads": False}
"""What is anchored: everything that tasks share. A head belongs to one task alone."""


class Batch(NamedTuple):
    """Inputs, and which task's head answers for each."""

    inputs: jax.Array  # (B, D) float32
    tasks: jax.Array  # (B,) int32


class Trunk(nn.Module):
    """Dense layers with ReLU, shared by all tasks."""

    hidden_sizes: tuple[int, ...]

    @nn.compact
    def __call__(self, inputs: jax.Array) -> jax.Array:
        for index, size in enumerate(self.hidden_sizes):
            inputs = nn.relu(nn.Dense(size, name=f"hidden_{index}")(inputs))
        return inputs


class MultiHeadMLP(nn.Module):
    """A multi-layer perceptron with one linear head per task.

    The heads lie side by side in one layer; `head_outputs[t, c]` says that output c is task t's.
    For each sample the outputs of the other tasks' heads are 0, so that they add nothing to the
    norm of the outputs.
    """

    hidden_sizes: tuple[int, ...]
    head_outputs: tuple[tuple[bool, ...], ...]  # T × C

    def setup(self) -> None:
        self.trunk = Trunk(self.hidden_sizes)
        self.heads = nn.Dense(len(self.head_outputs[0]))

    def __call__(self, batch: Batch) -> jax.Array:
        outputs_BxC = self.heads(self.trunk(batch.inputs))
        return jnp.where(self.visible(batch), outputs_BxC, 0.0)

    def visible(self, batch: Batch) -> jax.Array:
        """(B, C) bool: which outputs are those of the sample's own head."""
        return jnp.array(self.head_outputs)[batch.tasks]


def outputs(model: MultiHeadMLP, params: Any, batch: Batch) -> jax.Array:
    """(B, C): the network's function, with the outputs of other tasks' heads at 0."""
    result = model.apply({"params": params}, batch)
    assert isinstance(result, jax.Array)
    return result


def logits(model: MultiHeadMLP, params: Any, batch: Batch) -> jax.Array:
    """(B, C): the outputs, other tasks' classes out of the running.

    They are at a finite −∞: an infinite one makes gradients NaN.
    """
    outputs_BxC = outputs(model, params, batch)
    return jnp.where(model.visible(batch), outputs_BxC, jnp.finfo(outputs_BxC.dtype).min)
