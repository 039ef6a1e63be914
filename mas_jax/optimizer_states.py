"""States inside an optimizer's state, however deep: found, changed, and left where they lie."""

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from mas_jax import checks, trees
from mas_jax.errors import TreeMismatchError
from mas_jax.types import Params

State = TypeVar("State")
Kind = TypeVar("Kind")


def find(state: Any, kind: type[Kind], missing: str) -> list[Kind]:
    """The states of type `kind` inside `state`; ValueError, saying `missing`, if there are none."""
    nodes = jax.tree.leaves(state, is_leaf=lambda node: isinstance(node, kind))
    found = [node for node in nodes if isinstance(node, kind)]
    if not found:
        raise ValueError(missing)
    return found


def change(state: State, kind: type[Kind], change_fn: Callable[[Kind], Kind]) -> State:
    """`state` with each state of type `kind` inside it changed."""
    return jax.tree.map(
        lambda node: change_fn(node) if isinstance(node, kind) else node,
        state,
        is_leaf=lambda node: isinstance(node, kind),
    )


def check_fits(name: str, tree: Any, other_name: str, other: Params, **options: bool) -> None:
    """Raise TreeMismatchError unless `other` has every leaf of `tree`, in its shape."""
    leaves = trees.leaves_by_path(other)
    for path, leaf in trees.leaves_by_path(tree).items():
        if path not in leaves:
            raise TreeMismatchError(
                trees.missing_leaf(other_name, name, path) + "; was it made for another model?"
            )
        checks.check_same_leaf(other_name, leaves[path], name, leaf, path, **options)


def placed(new: Any, old: jax.Array) -> jax.Array:
    """A copy of `new` as the training step expects it: `old`'s dtype, devices and commitment."""
    if not checks.is_concrete((new, old)):
        return jnp.array(new, old.dtype, copy=True)
    if getattr(old, "committed", False):
        return jax.device_put(jnp.array(new, old.dtype, copy=True), old.sharding)
    # A committed array (from a store, say) in an uncommitted one's place would recompile.
    return jnp.array(np.asarray(new), old.dtype)
