"""The anchor: where the parameters were (θ*) and how much each of them matters (Ω)."""

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from mas_jax import checks, trees
from mas_jax.errors import TreeMismatchError
from mas_jax.types import Importance, Params, at_least_float32

Rule = Literal["sum", "mean", "decay", "max"]


class Anchor(NamedTuple):
    """What a network remembers of the tasks it has learned. A pytree; both trees alike.

    Attributes:
      params: θ*, the parameters after the task just learned, in the model's dtypes.
      importance: Ω ≥ 0 over all tasks so far, float32 or wider. Parameters that carry none are
        `optax.MaskedNode()` in both trees.
    """

    params: Params
    importance: Importance


def consolidate(
    anchor: Anchor | None,
    params: Params,
    importance: Importance,
    *,
    rule: Rule = "sum",
    num_tasks: int | None = None,
    decay: float | None = None,
) -> Anchor:
    """Join what was learned before with the task just learned: θ* = θ, Ω = rule(Ω before, Ω).

    - "sum": Ω_before + Ω (Aljundi et al., ECCV 2018, section 4.1).
    - "mean": (n Ω_before + Ω) / (n + 1) with n = num_tasks, the mean over tasks. With n = 1 every
      time it is the half-and-half of Avalanche and FACIL.
    - "decay": decay · Ω_before + Ω, as in online EWC (Schwarz et al., ICML 2018, Eq. 9).
    - "max": max(Ω_before, Ω).

    Args:
      anchor: the anchor so far; None before the first task.
      params: θ, the parameters after the task just learned: any pytree of arrays.
      importance: Ω for that task, as `estimate_importance` returns it; `optax.MaskedNode()` for
        parameters that carry none.
      rule: how importance adds up over tasks.
      num_tasks: for "mean", how many tasks `anchor` already holds.
      decay: for "decay", the factor in [0, 1].

    Returns:
      The new anchor. Its arrays are copies: donating `params` to a training step later does not
      reach it.

    Raises:
      TreeMismatchError: params, importance and anchor do not belong to one model.
      ValueError: negative importance, an unknown rule, or a rule's number missing.
      NonFiniteError: NaN or infinite importance or parameters; names the leaf.

    >>> params, omega = {"w": jnp.ones(2)}, {"w": jnp.array([0.5, 0.0])}
    >>> anchor = consolidate(None, params, omega)
    >>> consolidate(anchor, params, omega).importance["w"]
    Array([1., 0.], dtype=float32)
    """
    checks.check_choice("rule", rule, ("sum", "mean", "decay", "max"))
    _check_rule_numbers(rule, num_tasks, decay)
    anchored = anchored_params(params, importance)
    checks.check_finite("params", anchored, "; did training diverge?")
    checks.check_importance(importance)
    importance = jax.tree.map(
        lambda leaf: jnp.array(leaf, at_least_float32(jnp.result_type(leaf)), copy=True), importance
    )
    if anchor is not None:
        checks.check_same_leaves("importance", importance, "anchor", anchor.importance)
        checks.check_importance(anchor.importance)
        before = jax.tree.map(_to_devices_of, importance, trees.like(importance, anchor.importance))
        importance = _combine(rule, before, importance, num_tasks, decay)
    return Anchor(jax.tree.map(lambda leaf: jnp.array(leaf, copy=True), anchored), importance)


def _to_devices_of(new: jax.Array, old: Any) -> jax.Array:
    """`old` in the dtype of `new`, and on its devices if it has been put there."""
    old = jnp.asarray(old, new.dtype)
    if checks.is_concrete((new, old)) and new.committed:
        return jax.device_put(old, new.sharding)
    return old


def anchored_params(params: Params, importance: Importance) -> Params:
    """The leaves of `params` that `importance` covers, in its structure; checked to fit."""
    known, weighed = trees.leaves_by_path(params), trees.leaves_by_path(importance)
    for path, leaf in weighed.items():
        if path not in known:
            raise TreeMismatchError(
                trees.missing_leaf("params", "importance", path)
                + "; was it computed for another model?"
            )
        checks.check_same_leaf("importance", leaf, "params", known[path], path)
    hidden = trees.masked_paths(importance)
    for path in known:
        if path not in weighed and not trees.lies_under(path, hidden):
            raise TreeMismatchError(
                trees.missing_leaf("importance", "params", path)
                + "; was it computed for another model? A parameter that carries no importance is "
                "optax.MaskedNode() there"
            )
    return trees.like(importance, params)


def _check_rule_numbers(rule: Rule, num_tasks: int | None, decay: float | None) -> None:
    """Raise ValueError unless the rule's own number, and no other, is given and in range."""
    if (num_tasks is not None) != (rule == "mean") or (num_tasks is not None and num_tasks < 1):
        raise ValueError(
            "num_tasks, the number of tasks the anchor already holds (at least 1), goes with "
            f'rule="mean" and only with it; got rule={rule!r}, num_tasks={num_tasks}'
        )
    if (decay is not None) != (rule == "decay") or (decay is not None and not 0 <= decay <= 1):
        raise ValueError(
            'decay, a factor between 0 and 1, goes with rule="decay" and only with it; '
            f"got rule={rule!r}, decay={decay}"
        )


def _combine(
    rule: Rule, before: Importance, new: Importance, num_tasks: int | None, decay: float | None
) -> Importance:
    """Ω over all tasks from Ω before and Ω of the new one."""

    def combine(old: Any, leaf: Any) -> jax.Array:
        match rule:
            case "sum":
                return old + leaf
            case "mean":
                assert num_tasks is not None
                return (num_tasks * old + leaf) / (num_tasks + 1)
            case "decay":
                return decay * old + leaf
            case "max":
                return jnp.maximum(old, leaf)

    return jax.tree.map(combine, before, new)
