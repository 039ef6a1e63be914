"""Which leaves of a parameter tree carry importance, and how partial trees are cut and matched.

A parameter that carries no importance (a masked head, an integer, a PRNG key) is represented
in Ω and θ* by `optax.MaskedNode()`, a pytree node without leaves, exactly as `optax.masked`
does it. The leaves of such a tree are therefore just the covered ones, and trees are matched
by key path, so that wrappers which hide parts of the parameters (`optax.masked`,
`optax.partition`) or rename the containers' types (`nnx.Optimizer`) need no special case.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mas_jax.errors import TreeMismatchError
from mas_jax.types import Mask, Params

KeyPath = tuple[Any, ...]


def is_masked(node: Any) -> bool:
    """Whether `node` marks a parameter that carries no importance."""
    return isinstance(node, optax.MaskedNode)


def path_name(path: KeyPath) -> str:
    """A key path as users read it: ['dense']['kernel']."""
    return jax.tree_util.keystr(path) or "(the tree is a single leaf)"


def leaves_by_path(tree: Any) -> dict[KeyPath, Any]:
    """The covered leaves of `tree`, by key path; ValueError if two of them share one."""
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    by_path = dict(leaves)
    if len(by_path) != len(leaves):
        raise ValueError(
            "two leaves have the same key path, so they cannot be told apart; register the "
            "container with jax.tree_util.register_pytree_with_keys and a key for each"
        )
    return by_path


def missing_leaf(name: str, other_name: str, path: KeyPath) -> str:
    """The words for a leaf that `other_name` has and `name` lacks."""
    return f"{name} has no leaf {path_name(path)}, which {other_name} has"


def masked_paths(tree: Any) -> list[KeyPath]:
    """The key paths at which `tree` has `optax.MaskedNode()`."""
    leaves = jax.tree_util.tree_flatten_with_path(tree, is_leaf=is_masked)[0]
    return [path for path, leaf in leaves if is_masked(leaf)]


def lies_under(path: KeyPath, ancestors: list[KeyPath]) -> bool:
    """Whether `path` is one of `ancestors` or below one of them."""
    return any(path[: len(ancestor)] == ancestor for ancestor in ancestors)


def covered(params: Params, mask: Mask = None) -> Any:
    """A tree of bools like `params`: True where the leaf carries importance.

    Integer, boolean and key leaves never do. Raises TypeError for a complex leaf that the mask
    does not exclude, TreeMismatchError where the mask does not fit the parameters.
    """
    asked = jax.tree.map(lambda _: True, params) if mask is None else _broadcast(mask, params)
    return jax.tree_util.tree_map_with_path(_carries_importance, params, asked)


def _broadcast(mask: Mask, params: Params) -> Any:
    """`mask` (a callable, a tree or a prefix of one) as a tree of bools like `params`."""
    marks = leaves_by_path(mask(params) if callable(mask) else mask)
    for path, mark in marks.items():
        if not isinstance(mark, (bool, np.bool_)):
            raise TypeError(
                f"mask leaf {path_name(path)} is {type(mark).__name__}, wanted True or False: "
                "True for parameters that carry importance"
            )
    nodes = {path[:length] for path in _all_paths(params) for length in range(len(path) + 1)}
    for path in marks:
        if path not in nodes:
            raise TreeMismatchError(f"mask has {path_name(path)}, which params has not; {_WANTED}")

    def asked(path: KeyPath, _: Any) -> bool:
        for length in range(len(path) + 1):
            if path[:length] in marks:
                return bool(marks[path[:length]])
        raise TreeMismatchError(f"mask says nothing of params{path_name(path)}; {_WANTED}")

    return jax.tree_util.tree_map_with_path(asked, params)


_WANTED = "wanted one bool per leaf, or one per subtree, or a function from params to that"


def _all_paths(params: Params) -> list[KeyPath]:
    """The key paths of the leaves, and of the places of leaves that a wrapper has masked."""
    return [*leaves_by_path(params), *masked_paths(params)]


def _carries_importance(path: KeyPath, leaf: Any, asked: bool) -> bool:
    """Whether one leaf does, the mask's word for it given."""
    dtype = jax.dtypes.result_type(leaf) if not hasattr(leaf, "dtype") else leaf.dtype
    if asked and jnp.issubdtype(dtype, jnp.complexfloating):
        raise TypeError(
            f"params{path_name(path)} is {dtype}: importance is defined for real parameters. "
            "Hold its real and imaginary parts as two leaves, or exclude it with mask"
        )
    return asked and jnp.issubdtype(dtype, jnp.floating)


def select(tree: Any, keep: Any) -> Any:
    """`tree` with `optax.MaskedNode()` where `keep` is False."""
    return jax.tree.map(lambda leaf, kept: leaf if kept else optax.MaskedNode(), tree, keep)


def like(structure: Any, source: Any) -> Any:
    """The leaves of `source` that `structure` covers (checked to be there), in its containers."""
    leaves = leaves_by_path(source)
    paths, treedef = jax.tree_util.tree_flatten_with_path(structure)
    return treedef.unflatten([leaves[path] for path, _ in paths])


def overlay(tree: Any, patch: Any) -> Any:
    """`tree`, with the leaves that `patch` covers taken from there."""
    leaves = leaves_by_path(patch)
    return jax.tree_util.tree_map_with_path(lambda path, leaf: leaves.get(path, leaf), tree)
