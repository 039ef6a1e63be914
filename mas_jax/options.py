"""The estimator's static configuration: checked, hashable, and free of arrays."""

from collections.abc import Callable, Hashable
from numbers import Integral
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from mas_jax import checks
from mas_jax.types import ApplyFn, Mask, Objective

Magnitude = Literal["abs", "square"]
Reduction = Literal["sample", "batch"]
EngineName = Literal["vmap"]
OnNonFinite = Literal["raise", "skip"]

MAGNITUDES: dict[str, Callable[[jax.Array], jax.Array]] = {"abs": jnp.abs, "square": jnp.square}


class Options(NamedTuple):
    """What `importance_estimator` was told, as part of a static argument."""

    objective: Objective
    magnitude: Magnitude
    reduction: Reduction
    engine: EngineName
    microbatch_size: int | None
    mask: Hashable
    on_nonfinite: OnNonFinite

    def mask_tree(self) -> Mask:
        """The mask as the user gave it."""
        if not isinstance(self.mask, tuple):
            return self.mask
        leaves, treedef = self.mask
        return treedef.unflatten(leaves)


def checked_options(
    objective: Objective,
    magnitude: Magnitude,
    reduction: Reduction,
    engine: EngineName,
    microbatch_size: int | None,
    mask: Mask,
    on_nonfinite: OnNonFinite,
) -> Options:
    """The options, checked and hashable."""
    checks.check_choice("magnitude", magnitude, MAGNITUDES)
    checks.check_choice("reduction", reduction, ("sample", "batch"))
    checks.check_choice("engine", engine, ("vmap",))
    checks.check_choice("on_nonfinite", on_nonfinite, ("raise", "skip"))
    if microbatch_size is not None and not (
        isinstance(microbatch_size, Integral) and microbatch_size >= 1
    ):
        raise ValueError(
            f"microbatch_size must be a whole number of at least 1, got {microbatch_size}"
        )
    return Options(
        _hashable(objective),
        magnitude,
        reduction,
        engine,
        microbatch_size,
        _freeze(mask),
        on_nonfinite,
    )


class Callee(NamedTuple):
    """An `apply_fn` in two parts, one of which is None: a static function, or a pytree of arrays
    that can be called, which can be an argument of a compiled function."""

    static: ApplyFn | None
    arrays: ApplyFn | None


def split_callable(apply_fn: ApplyFn) -> Callee:
    """`apply_fn` as what a compiled function can be given."""
    if isinstance(apply_fn, jax.tree_util.Partial):
        return Callee(None, apply_fn)
    return Callee(_hashable(apply_fn), None)


def _freeze(mask: Mask) -> Hashable:
    """A mask as a hashable value, so that it can be part of a static argument."""
    if mask is None or callable(mask):
        return mask
    leaves, treedef = jax.tree.flatten(mask)
    return tuple(leaves), treedef


def _hashable(fn: Callable[..., Any]) -> Callable[..., Any]:
    """`fn`, wrapped if it cannot be hashed and so could not be a static argument."""
    try:
        hash(fn)
    except TypeError:
        return lambda *args: fn(*args)
    return fn
