"""An anchor as NumPy arrays by path, which is how the store writes it; and back onto devices."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mas_jax import checks, trees
from mas_jax.anchor import Anchor
from mas_jax.errors import CheckpointCorruptError
from mas_jax.manifest import Manifest, digest, dtype_of, leaves_by_name
from mas_jax.types import Params


def check_anchor(anchor: Anchor) -> None:
    """Raise, naming the leaf, unless both trees are what an anchor's must be."""
    checks.check_same_leaves("importance", anchor.importance, "anchor.params", anchor.params)
    if not jax.tree.leaves(anchor.params):
        raise ValueError("the anchor covers no parameter: there is nothing to save")
    _check_addressable(anchor)
    for path, leaf in trees.leaves_by_path(anchor.params).items():
        if not jnp.issubdtype(dtype_of(leaf), jnp.floating):
            raise TypeError(
                f"anchor.params{trees.path_name(path)} is {dtype_of(leaf)}, wanted floating point; "
                "other parameters are optax.MaskedNode() in an anchor"
            )
    for path, leaf in trees.leaves_by_path(anchor.importance).items():
        if dtype_of(leaf) not in (jnp.float32, jnp.float64):
            raise TypeError(
                f"importance{trees.path_name(path)} is {dtype_of(leaf)}, wanted float32 or float64"
            )
    checks.check_finite("anchor.params", anchor.params)
    checks.check_importance(anchor.importance)


def _check_addressable(anchor: Anchor) -> None:
    """Raise ValueError if a leaf is not whole in this process; to ask for its values may hang."""
    for path, leaf in trees.leaves_by_path(anchor).items():
        if not getattr(leaf, "is_fully_addressable", True):
            raise ValueError(
                f"anchor{trees.path_name(path)} is spread over several processes: gather it with "
                "jax.experimental.multihost_utils.process_allgather(anchor, tiled=True), and save "
                "on one process"
            )


def from_anchor(anchor: Anchor) -> Anchor:
    """`anchor` as NumPy arrays by path in print, both trees in one order."""
    params, importance = map(leaves_by_name, anchor)
    return Anchor(
        {path: np.asarray(leaf, dtype_of(leaf)) for path, leaf in params.items()},
        {path: np.asarray(importance[path], dtype_of(importance[path])) for path in params},
    )


def described(manifest: Manifest) -> Anchor:
    """What `from_anchor` returned when the manifest was made, shapes and dtypes only."""

    def abstract(tree: Any) -> dict[str, jax.ShapeDtypeStruct]:
        return {
            leaf["path"]: jax.ShapeDtypeStruct(leaf["shape"], np.dtype(leaf[tree]["dtype"]))
            for leaf in manifest["leaves"]
        }

    return Anchor(abstract("params"), abstract("importance"))


def stored(held: Anchor) -> dict[str, dict[str, Any]]:
    """The arrays as Orbax gets them: by number, and without the empty ones, which it refuses."""
    return {
        name: {str(number): leaf for number, leaf in enumerate(tree.values()) if leaf.size}
        for name, tree in held._asdict().items()
    }


def verified(arrays: dict[str, dict[str, Any]], manifest: Manifest, where: str) -> Anchor:
    """What `stored` was given, from what came back; every digest computed again."""
    held = Anchor({}, {})
    for number, leaf in enumerate(manifest["leaves"]):
        for name, record in (("params", leaf["params"]), ("importance", leaf["importance"])):
            # Orbax was not given the empty arrays.
            empty = np.zeros(leaf["shape"], record["dtype"]) if 0 in leaf["shape"] else None
            value = arrays[name].get(str(number), empty)
            if not isinstance(value, np.ndarray) or digest(value) != record["sha256"]:
                raise CheckpointCorruptError(
                    f"{name}{leaf['path']} of task {manifest['task']!r} in {where} is not what "
                    "was saved: its digest differs. Put a copy of that folder back, or "
                    f"delete({manifest['task']!r}) to give the task up"
                )
            getattr(held, name)[leaf["path"]] = value
    return held


def placed(held: Anchor, like: Params) -> Anchor:
    """`held` in the structure of `like`, each array where the leaf of `like` is."""
    paths, treedef = jax.tree_util.tree_flatten_with_path(like, is_leaf=trees.is_masked)
    names = [jax.tree_util.keystr(path) for path, _ in paths]

    def build(tree: dict[str, np.ndarray]) -> Any:
        return treedef.unflatten(
            [
                _on_devices_of(tree[name], leaf) if name in tree else optax.MaskedNode()
                for name, (_, leaf) in zip(names, paths, strict=True)
            ]
        )

    return Anchor(build(held.params), build(held.importance))


def _on_devices_of(value: np.ndarray, like: Any) -> jax.Array:
    """`value` with the sharding of `like`, and committed to it only if `like` is."""
    sharding = getattr(like, "sharding", None)
    if sharding is None or not getattr(like, "committed", True):
        return jnp.array(value)
    return jax.device_put(value, sharding)
