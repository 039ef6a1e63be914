"""Synaptic intelligence (SI): importance gathered along the path of training itself."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mas_jax import checks, compensated, optimizer_states, trees
from mas_jax.errors import TreeMismatchError
from mas_jax.optimizer_states import State, check_fits, placed
from mas_jax.types import Importance, Mask, Params, at_least_float32

_MISSING = (
    "the optimizer state holds no path integral: wrap the optimizer in mas_jax.path_integral and "
    "initialise it again"
)


class PathState(NamedTuple):
    """Optimizer state of `path_integral`."""

    inner: Any  # the wrapped optimizer's
    start: Params  # θ where the task began, in the model's dtypes; MaskedNode where none is kept
    path: compensated.CompensatedSum  # ω = −Σ g Δθ since then, float32 or wider


def path_integral(
    inner: optax.GradientTransformation, mask: Mask = None
) -> optax.GradientTransformationExtraArgs:
    """Wrap an optimizer, and gather ω = −Σ_steps g Δθ: what each parameter did for the loss.

    Source: Zenke, Poole and Ganguli, ICML 2017, Eq. 3. The updates are those of `inner`. g is
    what arrives, and is to be the gradient of the loss alone: the penalty goes inside. Δθ is how
    far the update that leaves moves θ.

        tx = mas_jax.path_integral(optax.chain(mas_jax.anchor_penalty(2 * c), optax.adam(1e-3)))
        opt_state = tx.init(params)
        ...  # train on a task
        omega = mas_jax.path_importance(opt_state, params)
        anchor = mas_jax.consolidate(anchor, params, omega)
        opt_state = mas_jax.restart_path(mas_jax.with_anchor(opt_state, anchor), params)

    What belongs where:
      - Momentum, Adam, clipping, weight decay, schedules: inside. ω multiplies the gradient as
        it came by the step as it was taken; neither is what the optimizer made of the other.
      - Whatever changes updates afterwards (`anchor_proximal` too): inside, or ω is of steps
        that were not taken.
      - `optax.MultiSteps`: outside. ω then sums mean gradient times step. Inside, only the last
        mini-batch before each step would count, since the others move nothing.
      - `optax.apply_if_finite`: either side; a step refused adds nothing, even if g is NaN.
      - `optax.masked`, `optax.partition`: outside; each keeps the path of its own parameters.

    With the gradients of mini-batches ω is too large by their noise, as in the paper.

    Args:
      inner: the optimizer: any optax transformation.
      mask: which parameters carry importance: a pytree of bools like params, a prefix of one, or
        a function from params to that. Integer, boolean and key leaves never do.

    Returns:
      A gradient transformation; its `update` needs `params`. The state holds three arrays more
      per parameter: θ at the start (a copy), and ω in two parts, because the terms fall with the
      loss until a float32 sum would no longer take them up.

    Raises:
      ValueError: `update` without params.
      TreeMismatchError: parameters of another structure or shape than at `init`.

    >>> params = {"w": jnp.array([1.0, 2.0])}
    >>> tx = path_integral(optax.sgd(0.5))
    >>> state = tx.init(params)
    >>> updates, state = tx.update({"w": jnp.array([1.0, 0.0])}, state, params)
    >>> params = optax.apply_updates(params, updates)
    >>> path_importance(state, params, damping=0.25)["w"]  # 1 · 0.5 / (0.5² + 0.25)
    Array([1., 0.], dtype=float32)
    """
    wrapped = optax.with_extra_args_support(inner)

    def init(params: Params) -> PathState:
        selected = trees.select(params, trees.covered(params, mask))
        # A copy, or a step that donates params and state would donate θ twice.
        start = jax.tree.map(
            lambda leaf: jnp.array(leaf, jnp.result_type(leaf), copy=True), selected
        )
        return PathState(wrapped.init(params), start, compensated.zeros(selected))

    def update(
        updates: Any, state: Any, params: Params | None = None, **extra_args: Any
    ) -> tuple[Any, PathState]:
        if params is None:
            raise ValueError(
                "the path integral needs the parameters: call tx.update(grads, state, params)"
            )
        check_fits("the path integral", state.start, "params", params)
        check_fits("the path integral", state.start, "updates", updates)
        grads = trees.like(state.start, updates)
        updates, inner_state = wrapped.update(updates, state.inner, params, **extra_args)
        theta, steps = trees.like(state.start, params), trees.like(state.start, updates)
        terms = jax.tree.map(_term, state.path.value, grads, theta, steps)
        path = compensated.add(state.path, terms)
        return updates, PathState(inner_state, state.start, path)

    return optax.GradientTransformationExtraArgs(init, update)


def path_importance(opt_state: Any, params: Params, damping: float = 0.1) -> Importance:
    """Compute Ω = max(0, ω) / ((θ − θ_start)² + ξ) of the path since the task began.

    Source: Zenke, Poole and Ganguli, ICML 2017, Eq. 5, whose sum over tasks is
    `consolidate(rule="sum")`. Their surrogate loss (Eq. 4) is c Σ Ω (θ − θ*)², so that their c is
    strength 2c here. Parameters that led the loss up (ω < 0) get no importance.

    Args:
      opt_state: any pytree with a `path_integral` state in it, however deep: the state of an
        optax chain or wrapper, a flax `TrainState`, `nnx.Optimizer.opt_state`.
      params: θ, the parameters now, at the end of the task.
      damping: ξ > 0, the paper's bound for parameters that hardly moved.

    Returns:
      Ω ≥ 0 like params, in float32 (float64 for float64 parameters), and `optax.MaskedNode()`
      for parameters whose path is not kept.

    Raises:
      ValueError: no path integral in opt_state, or two of one parameter; damping not above 0.
      TreeMismatchError: params of another model or dtype; names the leaf.
      NonFiniteError: the path went through NaN or infinity, or params hold such.
    """
    if not (math.isfinite(damping) and damping > 0):
        raise ValueError(f"damping must be a finite number above 0, got {damping}")
    omegas, masked = {}, []
    for state in optimizer_states.find(opt_state, PathState, _MISSING):
        theta = _checked_params(params, state)
        paths = compensated.total(state.path)
        checks.check_finite("the path integral", paths, "; did training diverge?")
        omega = jax.tree.map(
            lambda path, now, start: _damped(path, now, start, damping), paths, theta, state.start
        )
        omegas = _joined(omegas, trees.leaves_by_path(omega))
        masked += trees.masked_paths(state.start)
    return _like_params(params, omegas, masked)


def restart_path(opt_state: State, params: Params) -> State:
    """Return `opt_state` with every path integral inside at the start of a task: ω = 0, at θ.

    The state keeps its structure, dtypes and placement on devices, so that a compiled training
    step is not compiled again; the optimizer's own state goes on.

    Args:
      opt_state: any pytree with a `path_integral` state in it, as for `path_importance`.
      params: θ, the parameters at which the next task begins. Copied.

    Returns:
      The new state.

    Raises:
      ValueError: no path integral in opt_state.
      TreeMismatchError: params of another model or dtype; names the leaf.
      NonFiniteError: NaN or infinite parameters.
    """
    optimizer_states.find(opt_state, PathState, _MISSING)

    def restart(state: PathState) -> PathState:
        theta = _checked_params(params, state)
        start = jax.tree.map(placed, theta, state.start)
        path = jax.tree.map(lambda old: placed(jnp.zeros_like(old), old), state.path)
        return PathState(state.inner, start, path)

    return optimizer_states.change(opt_state, PathState, restart)


def _checked_params(params: Params, state: PathState) -> Params:
    """The parameters whose path is kept, in the structure of `state.start`."""
    check_fits("the path integral", state.start, "params", params, dtypes=True)
    theta = trees.like(state.start, params)
    checks.check_finite("params", theta, "; did training diverge?")
    return theta


def _term(path: jax.Array, grad: Any, theta: Any, step: Any) -> jax.Array:
    """−g Δθ of one step, in the dtype of ω."""
    theta = jnp.asarray(theta)
    wide = np.promote_types(path.dtype, at_least_float32(jnp.result_type(step)))
    before = theta.astype(wide)
    # θ moves by what its dtype resolves of the update: a bfloat16 parameter may not move at all.
    # A cast there and back might not say so, since XLA is free to leave such pairs out.
    resolved = jnp.finfo(theta.dtype)
    after = jax.lax.reduce_precision(
        before + jnp.asarray(step, wide), resolved.nexp, resolved.nmant
    )
    moved = (after - before).astype(path.dtype)
    # Where nothing moved, the gradient may be a NaN that was the reason.
    return jnp.where(moved == 0, jnp.zeros_like(moved), -jnp.asarray(grad, path.dtype) * moved)


def _damped(path: jax.Array, theta: Any, start: Any, damping: float) -> jax.Array:
    """max(0, ω) / ((θ − θ_start)² + ξ)."""
    moved = jnp.asarray(theta, path.dtype) - jnp.asarray(start, path.dtype)
    return jnp.maximum(path, 0) / (jnp.square(moved) + damping)


def _joined(omegas: dict[Any, Any], more: dict[Any, Any]) -> dict[Any, Any]:
    """Both, checked to have no parameter in common."""
    for path in more:
        if path in omegas:
            raise ValueError(
                f"two path integrals in the optimizer state hold {trees.path_name(path)}: wrap "
                "the optimizer in one, or give each its own parameters with mask"
            )
    return omegas | more


def _like_params(params: Params, omegas: dict[Any, Any], masked: list[Any]) -> Importance:
    """Ω in the containers of params; checked to say something of each parameter."""

    def omega(path: Any, _: Any) -> Any:
        if path not in omegas and not trees.lies_under(path, masked):
            raise TreeMismatchError(
                trees.missing_leaf("the path integral", "params", path)
                + "; was it made for another model?"
            )
        return omegas.get(path, optax.MaskedNode())

    return jax.tree_util.tree_map_with_path(omega, params)
