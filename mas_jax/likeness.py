"""Whether the tree that a user restores into is the one that was saved."""

from typing import Any

import jax
import jax.numpy as jnp

from mas_jax import trees
from mas_jax.errors import TreeMismatchError
from mas_jax.manifest import LeafRecord, Manifest
from mas_jax.types import Params


def check_like(manifest: Manifest, like: Params) -> None:
    """Raise TreeMismatchError, naming the leaf, unless `like` fits what was saved."""
    task, wanted = manifest["task"], leaves_by_name(like)
    masked = {jax.tree_util.keystr(path) for path in trees.masked_paths(like)}
    for record in manifest["leaves"]:
        path = record["path"]
        if path not in wanted:
            is_masked = path in masked
            raise TreeMismatchError(
                f"like {'masks' if is_masked else 'has no'} leaf {path or '(a single leaf)'}, "
                f"which the anchor of task {task!r} covers; "
                + ("give the parameter there" if is_masked else "was it saved from another model?")
            )
        _check_leaf(record, wanted[path], task)
    saved = {record["path"] for record in manifest["leaves"]}
    for path in trees.leaves_by_path(like):
        if jax.tree_util.keystr(path) not in saved and not _is_masked(path, manifest):
            raise TreeMismatchError(
                f"the anchor of task {task!r} has no leaf {trees.path_name(path)}, which like "
                "has; was it saved from another model? A parameter that came later, a new head "
                "say, is optax.MaskedNode() in like"
            )


def _check_leaf(record: LeafRecord, leaf: Any, task: str) -> None:
    """Raise TreeMismatchError unless `leaf` has the shape and dtype that were saved."""
    path, shape = record["path"], tuple(record["shape"])
    if jnp.shape(leaf) != shape:
        raise TreeMismatchError(
            f"like{path} has shape {jnp.shape(leaf)}, but the anchor of task {task!r} has {shape} "
            "there; was it saved from another model?"
        )
    dtype = str(dtype_of(leaf))
    if dtype != record["params"]["dtype"]:
        raise TreeMismatchError(
            f"like{path} is {dtype}, but the anchor of task {task!r} is "
            f"{record['params']['dtype']} there; give like that dtype and cast the restored "
            "anchor yourself, nothing is cast silently"
        )
    for saved in (record["params"]["dtype"], record["importance"]["dtype"]):
        if str(jax.dtypes.canonicalize_dtype(saved)) != saved:
            raise TreeMismatchError(
                f"the anchor of task {task!r} is {saved} at {path}, which JAX would cast to "
                "float32 here; turn on jax_enable_x64"
            )


def _is_masked(path: trees.KeyPath, manifest: Manifest) -> bool:
    """Whether the manifest says that the leaf at `path`, or a tree it is in, was masked."""
    prefixes = (jax.tree_util.keystr(path[:length]) for length in range(len(path) + 1))
    return any(prefix in manifest["masked"] for prefix in prefixes)


def dtype_of(leaf: Any) -> Any:
    """A leaf's dtype; that which JAX would give it if it is a Python number."""
    return leaf.dtype if hasattr(leaf, "dtype") else jnp.result_type(leaf)


def leaves_by_name(tree: Any) -> dict[str, Any]:
    """The covered leaves of `tree`, by their paths as the manifest writes them."""
    leaves = trees.leaves_by_path(tree)
    named = {jax.tree_util.keystr(path): leaf for path, leaf in leaves.items()}
    if len(named) != len(leaves):
        raise ValueError("two leaves of the tree have the same path in print; rename one of them")
    return named
