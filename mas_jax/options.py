"""The estimator's static configuration: checked, hashable, and free of arrays."""

from collections.abc import Callable, Hashable
from numbers import Integral
from typing import Any, Literal, NamedTuple, TypedDict, Unpack

import jax
import jax.numpy as jnp

from mas_jax import checks, objectives
from mas_jax.types import ApplyFn, Mask, Objective, OverOutputs

Magnitude = Literal["abs", "square", "l2"]
Reduction = Literal["sample", "batch"]
EngineName = Literal["auto", "fused", "vmap"]
OnNonFinite = Literal["raise", "skip"]

MAGNITUDES: dict[str, Callable[[jax.Array], jax.Array]] = {
    "abs": jnp.abs,
    "square": jnp.square,
    "l2": jnp.abs,
}
"""What becomes of one gradient. Those of a vector objective's entries are combined by
`Options.over_outputs`."""


class EstimatorOptions(TypedDict, total=False):
    """The keyword arguments of `importance_estimator`, described there."""

    objective: Objective
    magnitude: Magnitude
    reduction: Reduction
    mask: Mask
    on_nonfinite: OnNonFinite
    engine: EngineName
    strict: bool | int
    microbatch_size: int | None
    memory_budget: int | None
    mesh: jax.sharding.Mesh | None
    mesh_axis: str
    pad_batch: bool


class Options(NamedTuple):
    """The same, checked and hashable: part of a static argument."""

    objective: Objective = objectives.squared_l2_norm
    magnitude: Magnitude = "abs"
    reduction: Reduction = "sample"
    mask: Hashable = None
    on_nonfinite: OnNonFinite = "raise"
    engine: EngineName = "auto"
    strict: bool | int = False
    microbatch_size: int | None = None
    memory_budget: int | None = None
    mesh: jax.sharding.Mesh | None = None
    mesh_axis: str = "data"
    pad_batch: bool = True

    @property
    def reduce_fn(self) -> Callable[[jax.Array], jax.Array]:
        """What is done to a sample's gradient before it is summed: nothing, for "batch"."""
        return MAGNITUDES[self.magnitude] if self.reduction == "sample" else lambda grads: grads

    @property
    def over_outputs(self) -> OverOutputs | None:
        """How the gradients of a vector objective's entries become one; None: not defined."""
        if self.reduction == "batch":
            return None
        return "l2" if self.magnitude == "l2" else "sum"

    def mask_tree(self) -> Mask:
        """The mask as the user gave it."""
        if not isinstance(self.mask, tuple):
            return self.mask
        leaves, treedef = self.mask
        return treedef.unflatten(leaves)


def checked_options(**given: Unpack[EstimatorOptions]) -> Options:
    """The options, checked and hashable."""
    unknown = [name for name in given if name not in Options._fields]
    if unknown:
        hint = "; weights per sample go to an estimator's update" if "weights" in unknown else ""
        raise TypeError(f"unknown option {', '.join(unknown)}{hint}")
    options = Options(**given)
    checks.check_choice("magnitude", options.magnitude, MAGNITUDES)
    checks.check_choice("reduction", options.reduction, ("sample", "batch"))
    checks.check_choice("engine", options.engine, ("auto", "fused", "vmap"))
    checks.check_choice("on_nonfinite", options.on_nonfinite, ("raise", "skip"))
    _check_whole("microbatch_size", options.microbatch_size, "samples")
    _check_whole("memory_budget", options.memory_budget, "bytes")
    _check_strict(options.strict, options.engine)
    _check_mesh(options.mesh, options.mesh_axis)
    return options._replace(objective=_hashable(options.objective), mask=_freeze(options.mask))


def _check_whole(name: str, value: Any, unit: str) -> None:
    """Raise ValueError unless `value` is None or a whole number of at least 1."""
    if value is not None and not (isinstance(value, Integral) and int(value) >= 1):
        raise ValueError(f"{name} must be a whole number of {unit}, at least 1, got {value}")


def _check_strict(strict: Any, engine: EngineName) -> None:
    """Raise ValueError unless `strict` is a bool or a size, and the engine one that has rules."""
    if not isinstance(strict, bool) and not (isinstance(strict, Integral) and int(strict) >= 0):
        raise ValueError(
            f"strict must be True, False or a number of entries, at least 0, got {strict!r}"
        )
    if strict is not False and engine == "vmap":
        raise ValueError('strict is about the rules of the fused engine, got engine="vmap"')


def _check_mesh(mesh: Any, axis: str) -> None:
    """Raise unless `mesh` is None or a mesh that has the axis."""
    if mesh is None:
        return
    if not isinstance(mesh, jax.sharding.Mesh):
        raise TypeError(f"mesh must be a jax.sharding.Mesh, got {type(mesh).__name__}")
    if axis not in mesh.axis_names:
        raise ValueError(
            f"mesh has no axis {axis!r}, only {', '.join(map(repr, mesh.axis_names))}: name the "
            "axis over which samples are divided with mesh_axis"
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
