"""The order-balanced ("alpha") rule: an anchor in which every task weighs the same."""

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np

from mas_jax import checks
from mas_jax.anchor import Anchor, aligned_importance, folded_params, task_anchor
from mas_jax.errors import NonFiniteError
from mas_jax.types import Importance, Params, at_least_float32

Total = Literal["importance", "one", "tasks"]


class BalancedAnchor(NamedTuple):
    """An anchor in which every task weighs the same, and what the next task needs to join it.

    Attributes:
      anchor: an anchor like any other: θ* = B/A and Ω = cA, where A = Σ_t Ω_t / S_t,
        B = Σ_t Ω_t θ*_t / S_t and S_t = Σ Ω_t, the importance of task t over all parameters.
      scale: c, () float32 or wider: what each task weighs, α_t S_t.
      inverse_sum: Σ_t 1 / S_t, () float32 or wider.
      importance_sum: Σ_t S_t, () float32 or wider.
      num_tasks: () int32.
    """

    anchor: Anchor
    scale: jax.Array
    inverse_sum: jax.Array
    importance_sum: jax.Array
    num_tasks: jax.Array

    def scalars(self) -> dict[str, float]:
        """Return all but the anchor as plain numbers, to keep beside it in an `AnchorStore`.

            store.save(task, balanced.anchor, ..., extra={"balanced": balanced.scalars()})

        Returns:
          Names to numbers, exact, which JSON keeps as they are.
        """
        return {name: np.asarray(getattr(self, name)).item() for name in self._fields[1:]}

    @classmethod
    def from_scalars(cls, anchor: Anchor, scalars: Mapping[str, Any]) -> "BalancedAnchor":
        """Put a stored anchor and its `scalars` together again.

            extra = store.metadata(task)["extra"]
            balanced = BalancedAnchor.from_scalars(restored_anchor, extra["balanced"])

        Args:
          anchor: what was `balanced.anchor`.
          scalars: what `scalars` returned for it.

        Returns:
          The balanced anchor, bit for bit as it was.

        Raises:
          ValueError: a number is missing, unknown, not finite or not positive.
        """
        if set(scalars) != set(names := cls._fields[1:]):
            raise ValueError(
                f"scalars must have {', '.join(names)}, as BalancedAnchor.scalars returns them; "
                f"got {', '.join(scalars) or 'none'}"
            )
        for name, value in scalars.items():
            if not (np.isfinite(value) and value > 0):
                raise ValueError(f"scalars[{name!r}] must be finite and above 0, got {value}")
        dtype = _widest(anchor.importance)
        return cls(
            anchor,
            scale=jnp.asarray(scalars["scale"], dtype),
            inverse_sum=jnp.asarray(scalars["inverse_sum"], dtype),
            importance_sum=jnp.asarray(scalars["importance_sum"], dtype),
            num_tasks=jnp.asarray(scalars["num_tasks"], jnp.int32),
        )


def balance(
    balanced: BalancedAnchor | None,
    params: Params,
    importance: Importance,
    *,
    total: Total = "importance",
) -> BalancedAnchor:
    """Join a task to those before it so that each weighs the same, whatever their order.

    The penalty is (λ/2) Σ_t α_t Σ Ω_t (θ − θ*_t)², with α_t S_t the same number c for all t,
    where S_t = Σ Ω_t. Completing the square, it is up to a constant (λ/2) Σ cA (θ − B/A)² with
    A = Σ_t Ω_t / S_t and B = Σ_t Ω_t θ*_t / S_t: one anchor, in the memory of one task.

    How strong all tasks are together is `total`:

    - "importance": Σ_t α_t S_t = Σ_t S_t, c is the mean of S_t: as much importance as under
      `consolidate(rule="sum")`, so that the two are compared at the same strength.
    - "one": Σ_t α_t = 1, c = 1 / Σ_t (1/S_t): the rule as published. The published penalty is
      without ½, so that its λ is strength 2λ here. More tasks are together no stronger than one.
    - "tasks": Σ_t α_t = T, c = T / Σ_t (1/S_t), the harmonic mean of S_t.

    With one task all three are that task's own anchor. `total` may change from call to call.

        balanced = mas_jax.balance(balanced, params, omega)  # after each task
        opt_state = mas_jax.with_anchor(opt_state, balanced.anchor)

    Args:
      balanced: the tasks so far; None before the first.
      params: θ, the parameters after the task just learned: any pytree of arrays.
      importance: Ω for that task; `optax.MaskedNode()` for parameters that carry none.
      total: the strength of all tasks together.

    Returns:
      The balanced anchor. Where no task has importance θ* = θ, and θ* is rounded to the model's
      dtype. Its arrays are copies. But for rounding, it does not depend on the order of tasks.

    Raises:
      TreeMismatchError: params, importance and balanced do not belong to one model.
      ValueError: an unknown total; importance that is negative, or 0 everywhere (under a trace,
        where nothing can raise, Ω becomes NaN).
      NonFiniteError: NaN or infinite importance or parameters; names the leaf. Importance so
        large or small that its sum, or the inverse of that, is beyond the dtype.

    >>> first = balance(None, {"w": jnp.zeros(2)}, {"w": jnp.array([1.0, 0.0])})
    >>> both = balance(first, {"w": jnp.ones(2)}, {"w": jnp.array([1.0, 2.0])})
    >>> both.anchor.importance["w"]  # S = 1 and 3, c = 2: 2 [1, 0] + ⅔ [1, 2]
    Array([2.6666667, 1.3333334], dtype=float32)
    >>> both.anchor.params["w"]  # (2 · 0 + ⅔ · 1) / (8/3), and the second task's own
    Array([0.25, 1.  ], dtype=float32)
    """
    checks.check_choice("total", total, get_args(Total))
    new = task_anchor(params, importance)
    size = _sum(new.importance)
    inverse_sum, importance_sum, num_tasks = 1 / size, size, jnp.ones((), jnp.int32)
    if balanced is not None:
        inverse_sum += balanced.inverse_sum.astype(size.dtype)
        importance_sum += balanced.importance_sum.astype(size.dtype)
        num_tasks += balanced.num_tasks
    scale = _scale(total, inverse_sum, importance_sum, num_tasks.astype(size.dtype))
    _check_sizes(size, scale)
    anchor = new._replace(importance=_times(scale / size, new.importance))
    if balanced is not None:
        anchor = _joined(balanced, scale, anchor)
    return BalancedAnchor(anchor, scale, inverse_sum, importance_sum, num_tasks)


def _joined(balanced: BalancedAnchor, scale: jax.Array, new: Anchor) -> Anchor:
    """The tasks before at their new scale, and a new one that has it, in one anchor."""
    before = aligned_importance(balanced.anchor, new.importance)
    before = _times(scale / balanced.scale.astype(scale.dtype), before)
    return Anchor(
        folded_params(balanced.anchor.params, before, new),
        jax.tree.map(jnp.add, before, new.importance),
    )


def _widest(importance: Importance) -> Any:
    """The widest dtype in Ω, at least float32."""
    dtypes = [at_least_float32(jnp.result_type(leaf)) for leaf in jax.tree.leaves(importance)]
    return max([jnp.dtype(jnp.float32), *dtypes], key=lambda dtype: jnp.dtype(dtype).itemsize)


def _sum(importance: Importance) -> jax.Array:
    """S = Σ Ω over all parameters, bound to no device where its value is known."""
    dtype = _widest(importance)
    sums = [jnp.sum(leaf).astype(dtype) for leaf in jax.tree.leaves(importance)]
    if checks.is_concrete(sums):
        sums = [jnp.asarray(np.asarray(value)) for value in sums]
    return sum(sums, jnp.zeros((), dtype))


def _scale(
    total: Total, inverse_sum: jax.Array, importance_sum: jax.Array, num_tasks: jax.Array
) -> jax.Array:
    """c = α_t S_t, what each task weighs."""
    match total:
        case "importance":
            return importance_sum / num_tasks
        case "one":
            return 1 / inverse_sum
        case "tasks":
            return num_tasks / inverse_sum


def _check_sizes(size: jax.Array, scale: jax.Array) -> None:
    """Raise unless a task has importance to be weighed by, and one that can be (when known)."""
    if not checks.is_concrete((size, scale)):
        return
    if size == 0:
        raise ValueError(
            "importance is 0 everywhere: a task without importance cannot weigh as much as the "
            "others. Leave it out, or see whether Ω was measured on data the network responds to"
        )
    if not (jnp.isfinite(size) and jnp.isfinite(1 / size) and jnp.isfinite(scale)):
        raise NonFiniteError(
            f"importance sums to {size}, beyond what {size.dtype} can weigh against other tasks; "
            "multiply Ω by a constant (no other task's share depends on it)"
        )


def _times(factor: jax.Array, importance: Importance) -> Importance:
    """factor · Ω, in the dtypes of Ω."""
    return jax.tree.map(lambda leaf: factor.astype(leaf.dtype) * leaf, importance)
