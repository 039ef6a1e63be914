"""The networks, with one head per task or one for all, and their outputs as the tasks see them."""

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

import mas_jax
from experiments.views import WHOLE, Views

Scenario = Literal["task", "domain", "class"]
"""What a network must tell apart, and what it is told (van de Ven and Tolias, 2019).

- "task": which task a sample is of is known at test time; each task has a head of its own.
- "domain": it is not known, and one head answers for all: which class within its task?
- "class": it is not known, and one head answers for all: which class of which task?
"""


class Batch(NamedTuple):
    """Inputs, and which task each is of."""

    inputs: jax.Array  # (B, D) float32, or pictures, (B, H, W, 3) uint8
    tasks: jax.Array  # (B,) int32


class Seen(NamedTuple):
    """What a network makes of a batch."""

    features: jax.Array  # (B, H) what the trunk returns
    outputs: jax.Array  # (B, C) of every head


class Accuracy(NamedTuple):
    """Fractions of the examples that are answered right."""

    per_task: jax.Array  # (T,)
    per_class: jax.Array  # (C,), NaN where there is no example
    overall: jax.Array  # () of all tasks together


class MLP(nn.Module):
    """A trunk of dense layers with ReLU."""

    hidden_sizes: tuple[int, ...]

    @nn.compact
    def __call__(self, inputs: jax.Array, *, train: bool = False) -> jax.Array:
        del train
        for index, size in enumerate(self.hidden_sizes):
            inputs = nn.relu(nn.Dense(size, name=f"hidden_{index}")(inputs))
        return inputs


class MultiHead(nn.Module):
    """A trunk that all tasks share, and their heads side by side in one linear layer.

    Attributes:
      trunk: what all tasks share.
      num_outputs: of all heads.
      standardised: whether each sample's features are brought to mean 0 and variance 1 before.
    """

    trunk: nn.Module
    num_outputs: int
    standardised: bool = False

    def setup(self) -> None:
        self.heads = nn.Dense(self.num_outputs)

    def __call__(self, inputs: jax.Array, *, train: bool = False) -> Seen:
        features = self.features(inputs, train=train)
        return Seen(features, self.classify(features))

    def features(self, inputs: jax.Array, *, train: bool = False) -> jax.Array:
        # A field of type nn.Module is a module that can be called.
        return self.trunk(inputs, train=train)  # pyright: ignore[reportCallIssue]

    def classify(self, features: jax.Array) -> jax.Array:
        return self.heads(jax.nn.standardize(features) if self.standardised else features)


@dataclasses.dataclass(frozen=True)
class Network:
    """The functions of parameters and a batch that training and methods are made of.

    Attributes:
      trunk: from inputs to features; called with `train=True` it may draw at random ("dropout").
      heads: T × C bools: output c is one of task t's.
      scenario: decides whether the heads are the tasks' own.
      views: how pictures are cut before the trunk sees them.
      stepwise: whether loops over batches call it from the host (`experiments.loops`), as
        networks of convolutions need it on a CPU.
    """

    trunk: nn.Module
    heads: tuple[tuple[bool, ...], ...]
    scenario: Scenario = "task"
    views: Views = WHOLE
    stepwise: bool = False

    @property
    def num_outputs(self) -> int:
        """C."""
        return len(self.heads[0])

    @property
    def module(self) -> MultiHead:
        """The Flax module."""
        return MultiHead(self.trunk, self.num_outputs)

    @property
    def anchored(self) -> Any:
        """The mask of what tasks share: a head that belongs to one task alone is not anchored."""
        return {"trunk": True, "heads": False} if self.scenario == "task" else None

    def init(self, key: jax.Array, batch: Batch) -> Any:
        """Fresh parameters."""
        return self.module.init(key, self.views.middle(batch.inputs[:1]))["params"]

    def num_features(self, inputs: Any) -> int:
        """H, for inputs such as these (N, …)."""
        batch = Batch(jax.ShapeDtypeStruct((1, *inputs.shape[1:]), inputs.dtype), None)  # pyright: ignore[reportArgumentType]
        params = jax.eval_shape(self.init, jax.random.key(0), batch)
        return params["heads"]["kernel"].shape[0]

    def seen(self, params: Any, batch: Batch, key: jax.Array | None = None) -> Seen:
        """Features and outputs; with a key as in training: another view, and dropout."""
        if key is None:
            return self._apply(params, self.views.middle(batch.inputs))
        for_view, for_dropout = jax.random.split(key)
        inputs = self.views.drawn(for_view, batch.inputs, batch.tasks)
        return self._apply(params, inputs, train=True, rngs={"dropout": for_dropout})

    def _apply(self, params: Any, inputs: jax.Array, **options: Any) -> Seen:
        """Features and outputs of inputs as the trunk takes them."""
        seen = self.module.apply({"params": params}, inputs, **options)
        assert isinstance(seen, Seen)
        return seen

    def features(self, params: Any, batch: Batch) -> jax.Array:
        """(B, H): what the trunk returns."""
        inputs = self.views.middle(batch.inputs)
        return _array(self.module.apply({"params": params}, inputs, method="features"))

    def all_outputs(self, params: Any, batch: Batch) -> jax.Array:
        """(B, C): the outputs of every head."""
        return self.seen(params, batch).outputs

    def classify(self, params: Any, features: jax.Array) -> jax.Array:
        """(B, C): the outputs of every head for given features (B, H); heads are all it takes."""
        return _array(self.module.apply({"params": params}, features, method="classify"))

    def visible(self, tasks: jax.Array) -> jax.Array:
        """(B, C) bool: which outputs answer for samples of `tasks` (B,)."""
        return jnp.array(self.heads)[tasks]

    def outputs(self, params: Any, batch: Batch) -> jax.Array:
        """(B, C): the network's function F, with the outputs of other tasks' heads at 0."""
        return jnp.where(self.visible(batch.tasks), self.all_outputs(params, batch), 0.0)

    def logits(self, params: Any, batch: Batch) -> jax.Array:
        """(B, C): the outputs, other heads' classes out of the running."""
        return self.masked(self.all_outputs(params, batch), batch.tasks)

    def masked(self, outputs: jax.Array, tasks: jax.Array) -> jax.Array:
        """`outputs` of every head, those that do not answer for the sample out of the running."""
        return masked_logits(outputs, self.visible(tasks))

    def losses(
        self, outputs: jax.Array, tasks: jax.Array, labels: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """(B,), (B,): each sample's cross-entropy, and 1 where it is answered right."""
        logits = self.masked(outputs, tasks)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        return losses, (logits.argmax(-1) == labels).astype(jnp.float32)

    def accuracy(
        self, outputs: jax.Array, tasks: jax.Array, labels: jax.Array, real: jax.Array
    ) -> Accuracy:
        """The accuracy on N examples' outputs (N, C), of those where `real` (N,) is 1."""
        hits = real * self.losses(outputs, tasks, labels)[1]
        groups = (
            jax.nn.one_hot(tasks, len(self.heads)),
            jax.nn.one_hot(labels, self.num_outputs),
            jnp.ones((len(tasks), 1)),
        )
        per_task, per_class, overall = ((hits @ group) / (real @ group) for group in groups)
        return Accuracy(per_task, per_class, overall[0])

    def trained(self, tasks: Sequence[int]) -> np.ndarray:
        """(C,) bool: the outputs that learn while the heads of `tasks` do."""
        return np.any([self.heads[task] for task in tasks], axis=0)

    def fisher_estimator(
        self, labels: Literal["sampled", "exact", "empirical"], **options: Any
    ) -> mas_jax.ImportanceEstimator:
        """Fisher's information of what the network says the answer is; batches as for `labels`."""
        return mas_jax.fisher_estimator(self.logits, labels=labels, **options)


def masked_logits(outputs: jax.Array, visible: jax.Array) -> jax.Array:
    """`outputs` where `visible`, elsewhere a finite −∞: an infinite one makes gradients NaN."""
    return jnp.where(visible, outputs, jnp.finfo(outputs.dtype).min)


def _array(result: Any) -> jax.Array:
    """What apply returned, which is an array here."""
    assert isinstance(result, jax.Array)
    return result
