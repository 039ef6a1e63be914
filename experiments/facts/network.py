"""A network that says facts: a trunk that forks into three heads, all of it shared by all tasks."""

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

import mas_jax
from experiments.facts.embeddings import FactTargets
from experiments.networks import Accuracy, Batch, MultiHead, Network


@dataclasses.dataclass(frozen=True, eq=False)
class Facts:
    """The facts that a network can be asked for; compiled into it as constants.

    Attributes:
      targets: the vectors of F facts, numbered as labels are.
    """

    targets: FactTargets


@dataclasses.dataclass(frozen=True, kw_only=True)
class FactNetwork(Network):
    """From a picture to the vectors of a subject, a predicate and an object.

    A linear layer from the trunk's features, brought to mean 0 and variance 1. Loss of a picture:
    Σ_part present · ‖F_part(x) − v_part‖², the squared distance to the vectors of its fact.
    Answered right is what lies nearest to its own fact. What `accuracy` measures is the retrieval
    of pictures by facts: the mean average precision, as `average_precision`, for each task and each
    fact among the task's own pictures, and for all facts among all. Sources: Elhoseiny et al.,
    AAAI 2017; Aljundi et al., ECCV 2018, section 5.2.

    Attributes:
      facts: those that labels count; heads' rows are not used, since every output is all tasks'.
    """

    facts: Facts

    @property
    def num_outputs(self) -> int:
        return self.facts.targets.vectors[0].size

    @property
    def module(self) -> MultiHead:
        # Word vectors have a length of about 1, features one that depends on the trunk (70 for Tiny
        # Darknet): without this, heads begin with a loss in the thousands.
        return MultiHead(self.trunk, self.num_outputs, standardised=True)

    def visible(self, tasks: jax.Array) -> jax.Array:
        return jnp.ones((len(tasks), self.num_outputs), bool)

    def trained(self, tasks: Sequence[int]) -> np.ndarray:
        del tasks
        return np.ones(self.num_outputs, bool)

    def losses(
        self, outputs: jax.Array, tasks: jax.Array, labels: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        del tasks
        distances_BxF = self.distances(outputs)
        nearest = distances_BxF.argmin(axis=-1) == labels
        own = jnp.take_along_axis(distances_BxF, labels[:, None], axis=1)[:, 0]
        return own, nearest.astype(jnp.float32)

    def distances(self, outputs: jax.Array) -> jax.Array:
        """(B, F): of what the network says to every fact, over the parts that the fact has."""
        vectors_Fx3xD, present_Fx3 = self.facts.targets

        def of_fact(vectors_3xD: jax.Array, present_3: jax.Array) -> jax.Array:
            said_Bx3xD = outputs.reshape(-1, *vectors_3xD.shape)
            parts_Bx3 = jnp.square(said_Bx3xD - vectors_3xD[None]).sum(axis=-1)
            return (parts_Bx3 * present_3[None]).sum(axis=-1)

        return jax.vmap(of_fact, out_axes=1)(jnp.asarray(vectors_Fx3xD), jnp.asarray(present_Fx3))

    def accuracy(
        self, outputs: jax.Array, tasks: jax.Array, labels: jax.Array, real: jax.Array
    ) -> Accuracy:
        distances_FxN = self.distances(outputs).T
        facts = jnp.arange(len(distances_FxN))
        relevant_FxN = (labels[None] == facts[:, None]) & (real[None] > 0)
        of_task_TxN = (tasks[None] == jnp.arange(len(self.heads))[:, None]) & (real[None] > 0)
        precision_fn = jax.vmap(average_precision, (0, 0, None))
        among_all_F = precision_fn(distances_FxN, relevant_FxN, real > 0)
        # NaN in the rows of tasks that a fact is not of.
        among_task_TxF = jax.vmap(precision_fn, (None, None, 0))(
            distances_FxN, relevant_FxN, of_task_TxN
        )
        per_task = jnp.nanmean(among_task_TxF, axis=1)
        return Accuracy(per_task, jnp.nanmean(among_task_TxF, axis=0), jnp.nanmean(among_all_F))

    def fisher_estimator(
        self, labels: Literal["sampled", "exact", "empirical"], **options: Any
    ) -> mas_jax.ImportanceEstimator:
        """Fisher's information of y ~ N(F(x), 1): the square of Σ_o ε_o ∂F_o/∂θ, ε ~ N(0, 1).

        "sampled" draws ε and "exact" sums Σ_o (∂F_o/∂θ)², one backward pass for each output; both
        over all outputs, whatever parts a picture's fact has, which they are not told. "empirical"
        takes the fact's vectors: ε = v − F(x), 0 in parts that the fact lacks. The loss ‖F − v‖² is
        −2 log p, which the strength makes up for.
        """
        if labels == "exact":
            return mas_jax.importance_estimator(
                self.outputs, objective=mas_jax.every_output, magnitude="square", **options
            )
        said = self._drawn if labels == "sampled" else self._known
        return mas_jax.importance_estimator(said, objective=jnp.sum, magnitude="square", **options)

    def _drawn(self, params: Any, batch: tuple[Batch, jax.Array]) -> jax.Array:
        """(B, C): each output times what is drawn for it with the sample's key."""
        pictures, keys = batch
        outputs = self.outputs(params, pictures)
        return outputs * jax.vmap(lambda key: jax.random.normal(key, outputs.shape[1:]))(keys)

    def _known(self, params: Any, batch: tuple[Batch, jax.Array]) -> jax.Array:
        """(B, C): each output times how far it is from that of the sample's fact."""
        pictures, labels = batch
        outputs = self.outputs(params, pictures)
        vectors, present = (jnp.asarray(part)[labels] for part in self.facts.targets)
        missing = (vectors * present[..., None]).reshape(outputs.shape) - outputs
        weights = jnp.broadcast_to(present[..., None], vectors.shape).reshape(outputs.shape)
        return outputs * jax.lax.stop_gradient(weights * missing)


def average_precision(distances: jax.Array, relevant: jax.Array, inside: jax.Array) -> jax.Array:
    """Average precision of N items ranked by rising distance; NaN where none is relevant.

    Items at one distance are each ranked after all of their ties, as in
    `mas_jax.metrics.mean_average_precision`.

    Args:
      distances: (N,) float32.
      relevant: (N,) bool.
      inside: (N,) bool: the items that are ranked.

    >>> average_precision(jnp.array([1., 2., 3.]), jnp.array([1, 0, 1]) > 0, jnp.ones(3) > 0)
    Array(0.8333334, dtype=float32)
    """
    wanted = relevant & inside

    def rank(counted: jax.Array) -> jax.Array:
        """How many of those counted lie no further than each item."""
        ordered = jnp.sort(jnp.where(counted, distances, jnp.inf))
        return jnp.searchsorted(ordered, distances, side="right").astype(jnp.float32)

    precision = jnp.where(wanted, rank(wanted) / rank(inside), 0.0)
    return precision.sum() / wanted.sum()
