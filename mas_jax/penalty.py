"""The quadratic pull towards the anchor: a loss term, and optax transformations that hold it."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import optax

from mas_jax import checks, optimizer_states, trees
from mas_jax.anchor import Anchor
from mas_jax.errors import TreeMismatchError
from mas_jax.optimizer_states import State, check_fits, placed
from mas_jax.types import Mask, Params, Strength, at_least_float32


class AnchorState(NamedTuple):
    """Optimizer state of the anchor's transformations."""

    step: jax.Array  # () int32: steps taken, for schedules
    anchor: Anchor  # neutral (θ* = 0, Ω = 0) until `with_anchor` sets it


def penalty(params: Params, anchor: Anchor, strength: chex.Numeric) -> jax.Array:
    """Compute (λ/2) Σ Ω (θ − θ*)², the loss term of Memory Aware Synapses.

    Source: Aljundi et al., ECCV 2018, Eq. 3, which is printed with λ/2 in one version and with
    λ in another. The gradient here is λ Ω (θ − θ*); the authors' code has 2 λ Ω (θ − θ*), so
    that their λ = 1 is strength 2 here.

    Args:
      params: θ, any pytree of arrays that has the leaves which `anchor` covers.
      anchor: θ* and Ω.
      strength: λ ≥ 0, a number or a scalar array.

    Returns:
      A scalar, in float32 or wider.

    Raises:
      TreeMismatchError: the anchor has a leaf that params lacks, or with another shape.
      ValueError: a strength that is negative or not finite.

    >>> anchor = Anchor({"w": jnp.array([1.0, 1.0])}, {"w": jnp.array([3.0, 0.0])})
    >>> float(penalty({"w": jnp.array([3.0, 9.0])}, anchor, strength=0.5))
    3.0
    """
    checks.check_strength("strength", strength)
    checks.check_same_leaves("importance", anchor.importance, "anchor.params", anchor.params)
    checks.check_importance(anchor.importance)
    check_fits("anchor", anchor.params, "params", params)

    def term(star: Any, theta: Any, omega: Any) -> jax.Array:
        moved = _difference(theta, star)
        return 0.5 * jnp.sum(_scaled(strength, omega, moved.dtype) * jnp.square(moved))

    terms = jax.tree.leaves(
        jax.tree.map(
            term,
            anchor.params,
            trees.like(anchor.params, params),
            trees.like(anchor.params, anchor.importance),
        )
    )
    dtypes = [jnp.dtype(jnp.float32), *(value.dtype for value in terms)]
    widest = max(dtypes, key=lambda dtype: dtype.itemsize)
    return sum((value.astype(widest) for value in terms), jnp.zeros((), widest))


def anchor_penalty(strength: Strength, mask: Mask = None) -> optax.GradientTransformationExtraArgs:
    """Add the penalty's gradient λ Ω (θ − θ*) to the updates; the anchor is in the state.

    Chain it before the optimizer, and it is the loss term `penalty`; after one (before the
    learning rate), and it is decoupled from the optimizer's preconditioning, as weight decay is
    in AdamW. Before `with_anchor` first sets an anchor it adds nothing.

        tx = optax.chain(mas_jax.anchor_penalty(strength=1.0), optax.sgd(1e-2, momentum=0.9))
        opt_state = mas_jax.with_anchor(tx.init(params), anchor)

    An explicit step of rate η diverges where η λ Ω > 2: see `anchor_proximal` for one that never
    does. Source: Aljundi et al., ECCV 2018, Eq. 3.

    Args:
      strength: λ ≥ 0: a number, a scalar array, or a schedule from the number of steps taken
        (counted from `init`, not from the last anchor) to one. `optax.inject_hyperparams` works.
      mask: which parameters can be anchored: a pytree of bools like params, a prefix of one, or a
        function from params to that. Integer, boolean and key leaves never are. (Give a function
        `optax.inject_hyperparams` as `static_args=("mask",)`, or it is taken for a schedule.)

    Returns:
      A gradient transformation; its `update` needs `params` and keeps the updates' dtypes.

    Raises:
      ValueError: a strength that is negative or not finite; `update` without params.
      TreeMismatchError: parameters of another structure or shape than at `init`.
    """
    checks.check_strength("strength", strength)

    def pull(lam: Any, update: jax.Array, theta: Any, star: Any, omega: Any) -> jax.Array:
        moved = _difference(theta, star)
        return update + (_scaled(lam, omega, moved.dtype) * moved).astype(update.dtype)

    return _anchored(pull, lambda step: _at("strength", strength, step), mask)


def anchor_proximal(
    strength: Strength, learning_rate: Strength, mask: Mask = None
) -> optax.GradientTransformationExtraArgs:
    """End a chain with the exact proximal step of the penalty, stable for every strength.

    The updates u that arrive, learning rate and sign included, lead to θ⁺ = θ + u; the step
    returned leads to argmin_z (λ/2) Σ Ω (z − θ*)² + ‖z − θ⁺‖² / 2η = (θ⁺ + ηλΩθ*) / (1 + ηλΩ).
    Where Ω = 0 that is θ⁺; as ηλΩ grows it tends to θ*, and never beyond.

        tx = optax.chain(optax.sgd(1e-2, momentum=0.9), mas_jax.anchor_proximal(1.0, 1e-2))

    Args:
      strength: λ, as for `anchor_penalty`.
      learning_rate: η ≥ 0, the optimizer's: a number, a scalar array or a schedule.
      mask: as for `anchor_penalty`.

    Returns:
      A gradient transformation, the last of its chain; its `update` needs `params`.

    Raises:
      ValueError, TreeMismatchError: as `anchor_penalty`.
    """
    checks.check_strength("strength", strength)
    checks.check_strength("learning_rate", learning_rate)

    def step(rate: Any, update: jax.Array, theta: Any, star: Any, omega: Any) -> jax.Array:
        moved = _difference(theta, star)
        stiffness = _scaled(rate, omega, moved.dtype)
        stiffness = jnp.minimum(stiffness, jnp.finfo(moved.dtype).max)  # ∞ / ∞ would be NaN
        # (θ⁺ + sθ*) / (1 + s) − θ, written so that nothing of the size of θ cancels.
        free, held = 1 / (1 + stiffness), stiffness / (1 + stiffness)
        return (free * update.astype(moved.dtype) - held * moved).astype(update.dtype)

    def rate(count: jax.Array) -> Any:
        return _at("strength", strength, count) * _at("learning_rate", learning_rate, count)

    return _anchored(step, rate, mask)


def with_anchor(state: State, anchor: Anchor) -> State:
    """Return `state` with `anchor` in every anchor transformation inside, however deep.

    Works on the state of any optax chain or wrapper, on a flax `TrainState`, and on
    `nnx.Optimizer.opt_state`. The state keeps its structure, dtypes and placement on devices, so
    a compiled training step is not compiled again. Leaves that the state covers and the anchor
    masks become free (Ω = 0); leaves that the state masks stay free.

    Args:
      state: any pytree with at least one `anchor_penalty` or `anchor_proximal` state in it.
      anchor: θ* and Ω.

    Returns:
      The new state. The anchor's arrays are copied into it: donating the state to a training
      step does not reach `anchor`.

    Raises:
      ValueError: `state` holds no anchor transformation; negative importance.
      NonFiniteError: NaN or infinite importance or θ*.
      TreeMismatchError: the anchor belongs to another model; names the leaf.

    >>> params = {"w": jnp.array([1.0, 2.0])}
    >>> tx = optax.chain(anchor_penalty(strength=2.0), optax.sgd(0.1))
    >>> anchor = Anchor({"w": jnp.zeros(2)}, {"w": jnp.array([1.0, 0.0])})
    >>> state = with_anchor(tx.init(params), anchor)
    >>> tx.update({"w": jnp.zeros(2)}, state, params)[0]["w"]  # −0.1 · 2 · Ω · (θ − θ*)
    Array([-0.2, -0. ], dtype=float32)
    """
    checks.check_same_leaves("importance", anchor.importance, "anchor.params", anchor.params)
    checks.check_importance(anchor.importance)
    checks.check_finite("anchor.params", anchor.params)

    missing = (
        "the optimizer state holds no anchor: put mas_jax.anchor_penalty or "
        "mas_jax.anchor_proximal into the optax chain and initialise it again"
    )
    optimizer_states.find(state, AnchorState, missing)
    return optimizer_states.change(state, AnchorState, lambda held: _refilled(held, anchor))


def _anchored(
    combine: Callable[[Any, jax.Array, jax.Array, Any, Any], jax.Array],
    factor: Callable[[jax.Array], Any],
    mask: Mask,
) -> optax.GradientTransformationExtraArgs:
    """A transformation that applies `combine(factor, update, θ, θ*, Ω)` to each anchored leaf."""

    def init(params: Params) -> AnchorState:
        return AnchorState(jnp.zeros((), jnp.int32), _neutral(params, mask))

    def update(
        updates: Any, state: Any, params: Params | None = None, **extra_args: Any
    ) -> tuple[Any, AnchorState]:
        del extra_args
        if params is None:
            raise ValueError(
                "the anchor needs the parameters: call tx.update(grads, state, params)"
            )
        check_fits("the optimizer's anchor", state.anchor.params, "params", params)
        check_fits("the optimizer's anchor", state.anchor.params, "updates", updates)
        structure = state.anchor.params
        moved = jax.tree.map(
            functools.partial(combine, factor(state.step)),
            trees.like(structure, updates),
            trees.like(structure, params),
            state.anchor.params,
            trees.like(structure, state.anchor.importance),
        )
        state = state._replace(step=optax.safe_increment(state.step))
        return trees.overlay(updates, moved), state

    return optax.GradientTransformationExtraArgs(init, update)


def _difference(theta: Any, star: Any) -> jax.Array:
    """θ − θ* in float32 or wider, so that a bfloat16 model's small moves are not lost."""
    dtype = at_least_float32(jnp.result_type(theta))
    return jnp.asarray(theta, dtype) - jnp.asarray(star, dtype)


def _scaled(factor: Any, omega: Any, dtype: Any) -> jax.Array:
    """factor · Ω in `dtype`."""
    return jnp.asarray(factor, dtype) * jnp.asarray(omega, dtype)


def _at(name: str, value: Strength, step: jax.Array) -> Any:
    """A number or schedule at `step`, checked to be a scalar."""
    number = value(step) if callable(value) else value
    checks.check_strength(name, number)
    return number


def _neutral(params: Params, mask: Mask) -> Anchor:
    """The anchor that pulls nothing: zeros of its own (θ itself would be donated twice)."""
    selected = trees.select(params, trees.covered(params, mask))
    return Anchor(
        jax.tree.map(lambda leaf: jnp.zeros_like(leaf, jnp.result_type(leaf)), selected),
        jax.tree.map(
            lambda leaf: jnp.zeros_like(leaf, at_least_float32(jnp.result_type(leaf))), selected
        ),
    )


def _refilled(state: AnchorState, anchor: Anchor) -> AnchorState:
    """`state` with the values of `anchor` in its own structure."""
    held = state.anchor
    places, news = trees.leaves_by_path(held.params), trees.leaves_by_path(anchor.params)
    _check_covers("the optimizer's state", held.params, "anchor", news)
    _check_covers("anchor", anchor.params, "the optimizer's state", places)
    for path in places.keys() & news.keys():
        checks.check_same_leaf(
            "anchor", news[path], "the optimizer's state", places[path], path, dtypes=True
        )

    def fill(old_tree: Any, new_tree: Any) -> Any:
        new = trees.leaves_by_path(new_tree)
        return jax.tree_util.tree_map_with_path(
            lambda path, old: placed(new[path], old) if path in new else jnp.zeros_like(old),
            old_tree,
        )

    filled = Anchor(fill(held.params, anchor.params), fill(held.importance, anchor.importance))
    return state._replace(anchor=filled)


def _check_covers(name: str, tree: Any, other_name: str, leaves: dict[Any, Any]) -> None:
    """Raise TreeMismatchError unless `tree` has, or masks, each of the leaves of `other_name`."""
    known, masked = trees.leaves_by_path(tree), trees.masked_paths(tree)
    for path in leaves:
        if path not in known and not trees.lies_under(path, masked):
            raise TreeMismatchError(
                trees.missing_leaf(name, other_name, path)
                + "; was the anchor computed for another model? A parameter that is not to be "
                "anchored, such as a new task's head, is excluded with anchor_penalty(mask=…)"
            )
