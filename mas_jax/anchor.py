"""The anchor: where the parameters were (θ*) and how much each of them matters (Ω)."""

from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np

from mas_jax import checks, trees
from mas_jax.errors import TreeMismatchError
from mas_jax.types import Importance, Params, at_least_float32

Rule = Literal["sum", "mean", "decay", "max", "replace"]
Center = Literal["latest", "all"]


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
    center: Center = "latest",
) -> Anchor:
    """Join what was learned before with the task just learned: θ* = θ, Ω = rule(Ω_before, Ω).

    - "sum": Ω_before + Ω (Aljundi et al., ECCV 2018, section 4.1).
    - "mean": (n Ω_before + Ω) / (n + 1) with n = num_tasks, the mean over tasks. With n = 1 every
      time it is the half-and-half of Avalanche and FACIL.
    - "decay": decay · Ω_before + Ω, as in online EWC (Schwarz et al., ICML 2018, Eq. 9).
    - "max": max(Ω_before, Ω).
    - "replace": Ω, whatever was before.

    With center="all" the anchor is, up to a constant in θ, the sum of every task's own penalty
    around its own θ*, in the memory of one: completing the square, for "sum" and "decay",

        θ*_all = (Ω_before θ*_before + Ω θ) / (Ω_before + Ω),   and θ where both Ω are 0,

    with decay · Ω_before for Ω_before under "decay". That is EWC with an anchor for each task
    (Kirkpatrick et al., PNAS 2017, Eq. 3). "latest" pulls all importance towards the newest
    parameters, as MAS and online EWC do; Huszár (PNAS 2018) on the difference.

    Measuring again: when more unlabelled data has come, Ω measured on it alone takes the place
    of the old with "replace", and joins it with the other rules ("mean" with num_tasks=1 is half
    and half). To weigh old and new samples alike, go on with the `ImportanceState` of the first
    measurement instead, and "replace" by what it finalizes to: a mean over all samples seen.
    Without training in between, θ and with it θ* are what they were.

    Args:
      anchor: the anchor so far; None before the first task.
      params: θ, the parameters after the task just learned: any pytree of arrays.
      importance: Ω for that task, as `estimate_importance` returns it; `optax.MaskedNode()` for
        parameters that carry none.
      rule: how importance adds up over tasks.
      num_tasks: for "mean", how many tasks `anchor` already holds.
      decay: for "decay", the factor in [0, 1].
      center: "latest", θ* = θ; or "all", θ*_all above. It is computed in float32 or wider, and
        then rounded to the model's dtype, as θ* always is: in bfloat16 to three digits.

    Returns:
      The new anchor. Its arrays are copies: donating `params` to a training step later does not
      reach it.

    Raises:
      TreeMismatchError: params, importance and anchor do not belong to one model.
      ValueError: negative importance; an unknown rule or center, a rule's number missing, or
        center="all" with a rule that has no such sum.
      NonFiniteError: NaN or infinite importance or parameters; names the leaf.

    >>> params, omega = {"w": jnp.ones(2)}, {"w": jnp.array([0.5, 0.0])}
    >>> anchor = consolidate(None, params, omega)
    >>> consolidate(anchor, params, omega).importance["w"]
    Array([1., 0.], dtype=float32)
    """
    checks.check_choice("rule", rule, get_args(Rule))
    checks.check_choice("center", center, get_args(Center))
    _check_rule_numbers(rule, num_tasks, decay)
    _check_center(rule, center)
    new = task_anchor(params, importance)
    if anchor is None:
        return new
    before = aligned_importance(anchor, new.importance)
    if decay is not None:
        before = jax.tree.map(lambda leaf: decay * leaf, before)
    if center == "all":
        new = new._replace(params=folded_params(anchor.params, before, new))
    return new._replace(importance=_combine(rule, before, new.importance, num_tasks))


def task_anchor(params: Params, importance: Importance) -> Anchor:
    """The anchor of one task alone: copies of what `importance` covers; checked to be valid."""
    anchored = anchored_params(params, importance)
    checks.check_finite("params", anchored, "; did training diverge?")
    checks.check_importance(importance)
    return Anchor(
        jax.tree.map(lambda leaf: jnp.array(leaf, copy=True), anchored),
        jax.tree.map(
            lambda leaf: jnp.array(leaf, at_least_float32(jnp.result_type(leaf)), copy=True),
            importance,
        ),
    )


def aligned_importance(anchor: Anchor, new: Importance) -> Importance:
    """Ω of `anchor` in the structure and dtypes, and on the devices, of `new`; checked to fit."""
    checks.check_same_leaves("importance", new, "anchor", anchor.importance)
    checks.check_importance(anchor.importance)
    return jax.tree.map(_to_devices_of, new, trees.like(new, anchor.importance))


def folded_params(before_params: Params, before: Importance, new: Anchor) -> Params:
    """θ* of two penalties in one: (Ω_before θ*_before + Ω θ) / (Ω_before + Ω); checked to fit."""
    checks.check_same_leaves("importance", new.importance, "anchor.params", before_params)
    checks.check_finite("anchor.params", before_params)
    return jax.tree.map(
        _folded, new.params, trees.like(new.params, before_params), before, new.importance
    )


def _folded(theta: jax.Array, old_theta: Any, old_omega: jax.Array, omega: jax.Array) -> jax.Array:
    """The weighted mean of θ and θ*_before, θ if neither weighs anything, in θ's dtype."""
    wide = np.promote_types(at_least_float32(theta.dtype), omega.dtype)
    wide_theta = theta.astype(wide)
    old_theta, old_omega, omega = (
        _to_devices_of(wide_theta, leaf) for leaf in (old_theta, old_omega, omega)
    )
    heavy, light = jnp.maximum(old_omega, omega), jnp.minimum(old_omega, omega)
    # Brought near 1, or the sum of two Ω may be beyond float32, and so may its inverse, by which
    # compiled code multiplies instead of dividing.
    power = jnp.finfo(wide).maxexp // 2
    scale = jnp.where(heavy > 1, jnp.asarray(2.0**-power, wide), jnp.asarray(2.0**power, wide))
    both = scale * heavy + scale * light
    share = scale * light / jnp.where(both > 0, both, 1)
    # From the heavier one's side, so that it stays as it is where the other weighs nothing.
    near = jnp.where(old_omega > omega, old_theta, wide_theta)
    far = jnp.where(old_omega > omega, wide_theta, old_theta)
    return (near + share * (far - near)).astype(theta.dtype)


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


def _check_center(rule: Rule, center: Center) -> None:
    """Raise ValueError unless the penalties of all tasks add up under `rule`, if that is asked."""
    if center == "all" and rule not in ("sum", "decay"):
        raise ValueError(
            'center="all" is the sum of the penalties of all tasks, so it goes with rule="sum" '
            f'and rule="decay" only; got rule={rule!r}'
        )


def _combine(rule: Rule, before: Importance, new: Importance, num_tasks: int | None) -> Importance:
    """Ω over all tasks from Ω before (decayed, if it does) and Ω of the new one."""

    def combine(old: Any, leaf: Any) -> jax.Array:
        match rule:
            case "sum" | "decay":
                return old + leaf
            case "mean":
                assert num_tasks is not None
                return (num_tasks * old + leaf) / (num_tasks + 1)
            case "max":
                return jnp.maximum(old, leaf)
            case "replace":
                return leaf

    return jax.tree.map(combine, before, new)
