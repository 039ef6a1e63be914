"""The networks, with one head per task or one for all, and their outputs as the tasks see them."""

import dataclasses
from typing import Any, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

Scenario = Literal["task", "domain", "class"]
"""What a network must tell apart, and what it is told (van de Ven and Tolias, 2019).

- "task": which task a sample is of is known at test time; each task has a head of its own.
- "domain": it is not known, and one head answers for all: which class within its task?
- "class": it is not known, and one head answers for all: which class of which task?
"""


class Batch(NamedTuple):
    """Inputs, and which task each is of."""

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
    """A multi-layer perceptron whose heads lie side by side in one linear layer."""

    hidden_sizes: tuple[int, ...]
    num_outputs: int

    def setup(self) -> None:
        self.trunk = Trunk(self.hidden_sizes)
        self.heads = nn.Dense(self.num_outputs)

    def __call__(self, inputs: jax.Array) -> jax.Array:
        return self.heads(self.trunk(inputs))

    def features(self, inputs: jax.Array) -> jax.Array:
        return self.trunk(inputs)

    def classify(self, features: jax.Array) -> jax.Array:
        return self.heads(features)


@dataclasses.dataclass(frozen=True)
class Network:
    """The functions of parameters and a batch that training and methods are made of.

    Attributes:
      hidden_sizes: widths of the hidden layers.
      heads: T × C bools: output c is one of task t's.
      scenario: decides whether the heads are the tasks' own.
    """

    hidden_sizes: tuple[int, ...]
    heads: tuple[tuple[bool, ...], ...]
    scenario: Scenario = "task"

    @property
    def module(self) -> MultiHeadMLP:
        """The Flax module."""
        return MultiHeadMLP(self.hidden_sizes, len(self.heads[0]))

    @property
    def anchored(self) -> Any:
        """The mask of what tasks share: a head that belongs to one task alone is not anchored."""
        return {"trunk": True, "heads": False} if self.scenario == "task" else None

    def init(self, key: jax.Array, batch: Batch) -> Any:
        """Fresh parameters."""
        return self.module.init(key, batch.inputs[:1])["params"]

    def features(self, params: Any, batch: Batch) -> jax.Array:
        """(B, H): what the trunk returns."""
        return _array(self.module.apply({"params": params}, batch.inputs, method="features"))

    def all_outputs(self, params: Any, batch: Batch) -> jax.Array:
        """(B, C): the outputs of every head."""
        return _array(self.module.apply({"params": params}, batch.inputs))

    def classify(self, params: Any, features: jax.Array) -> jax.Array:
        """(B, C): the outputs of every head for given features (B, H)."""
        return _array(self.module.apply({"params": params}, features, method="classify"))

    def visible(self, batch: Batch) -> jax.Array:
        """(B, C) bool: which outputs answer for the sample."""
        return jnp.array(self.heads)[batch.tasks]

    def outputs(self, params: Any, batch: Batch) -> jax.Array:
        """(B, C): the network's function F, with the outputs of other tasks' heads at 0."""
        return jnp.where(self.visible(batch), self.all_outputs(params, batch), 0.0)

    def logits(self, params: Any, batch: Batch) -> jax.Array:
        """(B, C): the outputs, other heads' classes out of the running."""
        return self.masked(self.all_outputs(params, batch), batch)

    def masked(self, outputs: jax.Array, batch: Batch) -> jax.Array:
        """`outputs` of every head, those that do not answer for the sample out of the running."""
        return masked_logits(outputs, self.visible(batch))


def masked_logits(outputs: jax.Array, visible: jax.Array) -> jax.Array:
    """`outputs` where `visible`, elsewhere a finite −∞: an infinite one makes gradients NaN."""
    return jnp.where(visible, outputs, jnp.finfo(outputs.dtype).min)


def _array(result: Any) -> jax.Array:
    """What apply returned, which is an array here."""
    assert isinstance(result, jax.Array)
    return result
