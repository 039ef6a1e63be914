"""Learning without forgetting's loss: the old heads' outputs on the new task's own examples."""

import jax
import jax.numpy as jnp
import numpy as np

from experiments.methods.base import Stage
from experiments.networks import masked_logits


def old_heads(stage: Stage) -> np.ndarray:
    """(T, C) of 0 and 1: the outputs that are compared together, one row per old head.

    With a head per task these are the heads of earlier tasks. One head for all is compared whole;
    where it grows by classes, those seen so far.
    """
    heads = np.array(stage.network.heads, np.float32)
    groups = np.zeros_like(heads)
    match stage.network.scenario:
        case "task":
            groups[: stage.task] = heads[: stage.task]
        case "domain":
            groups[0] = 1
        case "class":
            groups[0] = np.isin(stage.labels, stage.earlier_classes)
    return groups


def distillation(
    outputs_BxC: jax.Array, recorded_BxC: jax.Array, groups_TxC: jax.Array, temperature: float
) -> jax.Array:
    """(B,): Σ over old heads of −Σ_c y'_c log ŷ'_c, both softened: y' = softmax(y / T)."""

    def of_head(group_C: jax.Array) -> jax.Array:
        def logits(outputs: jax.Array) -> jax.Array:
            return masked_logits(outputs / temperature, (group_C > 0)[None])

        soft_targets = jax.nn.softmax(logits(recorded_BxC))
        terms = soft_targets * jax.nn.log_softmax(logits(outputs_BxC))
        # Outputs outside the head count nothing, nor do rows without any output.
        return -jnp.sum(jnp.where(group_C[None] > 0, terms, 0.0), axis=-1)

    return jax.vmap(of_head)(groups_TxC).sum(axis=0)
