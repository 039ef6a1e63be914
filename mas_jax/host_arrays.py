"""An anchor as the NumPy arrays that the store writes; and back, group by group, onto devices."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mas_jax import checks, importance_codes, trees
from mas_jax.anchor import Anchor
from mas_jax.errors import CheckpointCorruptError
from mas_jax.importance_codes import Code
from mas_jax.likeness import dtype_of, leaves_by_name
from mas_jax.manifest import (
    ArrayRecord,
    LeafRecord,
    Manifest,
    StoredArray,
    digest,
    stored_arrays,
)
from mas_jax.types import Importance, Params

GROUP_BYTES = 64 << 20
"""Arrays are read together up to this many bytes: reading takes several times their memory, and
a while for each group."""

ByNumber = dict[str, dict[str, Any]]
"""Arrays as Orbax gets them: by tree and number, without the empty ones, which it refuses."""


def as_stored(anchor: Anchor, importance_as: Code) -> Anchor:
    """Return `anchor` as an `AnchorStore` gives it back that was told `importance_as`.

    θ* as it is, and Ω rounded. Who keeps Ω in a code and learns on with what this returns, learns
    the same whether or not the anchor has been stored and restored in between: what is rounded
    once is not changed by storing it, bit for bit.

    Args:
      anchor: θ* and Ω, float32 unless `importance_as` is "exact".
      importance_as: as for `AnchorStore.save`.

    Returns:
      The anchor, Ω in float32, each array on the devices where it was; `anchor` itself for
      "exact". Not under jit: the codes are the host's.

    Raises:
      ValueError: an unknown code; negative importance.
      TypeError, NonFiniteError: importance that cannot be stored so; names the leaf.

    >>> anchor = Anchor({"w": jnp.zeros(3)}, {"w": jnp.array([1.0, 0.3, 0.0])})
    >>> as_stored(anchor, "log8").importance["w"]
    Array([1.        , 0.30761817, 0.        ], dtype=float32)
    """
    checks.check_choice("importance_as", importance_as, get_args(Code))
    if importance_as == "exact":
        return anchor
    _check_storable(anchor.importance, importance_as)

    def rounded(leaf: Any) -> jax.Array:
        stored, scales = importance_codes.encoded(np.asarray(leaf), importance_as)
        value = importance_codes.decoded(stored, scales, importance_as)
        return _on_devices_of(value, leaf)

    return anchor._replace(importance=jax.tree.map(rounded, anchor.importance))


class HeldAnchor(NamedTuple):
    """An anchor on the host."""

    arrays: ByNumber
    leaves: list[LeafRecord]


def check_anchor(anchor: Anchor, code: Code = "exact") -> None:
    """Raise, naming the leaf, unless both trees are what an anchor's must be."""
    if not isinstance(anchor, Anchor):
        raise TypeError(
            "anchor must be a mas_jax.Anchor(params, importance), got "
            f"{type(anchor).__module__}.{type(anchor).__qualname__}"
        )
    checks.check_same_leaves("importance", anchor.importance, "anchor.params", anchor.params)
    if not jax.tree.leaves(anchor.params):
        raise ValueError("the anchor covers no parameter: there is nothing to save")
    _check_addressable(anchor)
    for path, leaf in trees.leaves_by_path(anchor.params).items():
        dtype = np.dtype(dtype_of(leaf))
        if not dtype.isnative or dtype.itemsize > 8:
            raise TypeError(
                f"anchor.params{trees.path_name(path)} is {dtype}, which JAX does not have; save "
                "it as float64, in this machine's order of bytes"
            )
        if not jnp.issubdtype(dtype, jnp.floating):
            raise TypeError(
                f"anchor.params{trees.path_name(path)} is {dtype_of(leaf)}, wanted floating point; "
                "other parameters are optax.MaskedNode() in an anchor"
            )
    _check_storable(anchor.importance, code)
    checks.check_finite("anchor.params", anchor.params)


def _check_storable(importance: Importance, code: Code) -> None:
    """Raise, naming the leaf, unless Ω can be stored so."""
    for path, leaf in trees.leaves_by_path(importance).items():
        if dtype_of(leaf) not in (jnp.float32, jnp.float64):
            raise TypeError(
                f"importance{trees.path_name(path)} is {dtype_of(leaf)}, wanted float32 or float64"
            )
        if code != "exact" and dtype_of(leaf) != jnp.float32:
            raise TypeError(
                f"importance{trees.path_name(path)} is {dtype_of(leaf)}, and "
                f"importance_as={code!r} is for float32; "
                'keep it with importance_as="exact"'
            )
    checks.check_importance(importance)


def _check_addressable(anchor: Anchor) -> None:
    """Raise ValueError if a leaf is not whole in this process; to ask for its values may hang."""
    for path, leaf in trees.leaves_by_path(anchor).items():
        if not getattr(leaf, "is_fully_addressable", True):
            raise ValueError(
                f"anchor{trees.path_name(path)} is spread over several processes: gather it with "
                "jax.experimental.multihost_utils.process_allgather(anchor, tiled=True), and save "
                "on one process"
            )


def from_anchor(anchor: Anchor, code: Code = "exact") -> HeldAnchor:
    """`anchor` as it is stored: its arrays, without a copy where they are on the host already."""
    params, importance = map(leaves_by_name, anchor)
    held = HeldAnchor({"params": {}, "importance": {}}, [])
    for number, (path, leaf) in enumerate(params.items()):
        value = np.asarray(leaf, dtype_of(leaf))
        omega = np.asarray(importance[path], dtype_of(importance[path]))
        stored, scales = importance_codes.encoded(omega, code)
        record = ArrayRecord(dtype=str(omega.dtype), sha256=digest(stored))
        if code != "exact":
            record["code"] = code
        if scales is not None:
            record["scales"] = digest(scales)
        for tree, array in (("params", value), ("importance", stored), ("scales", scales)):
            if array is not None and array.size:
                held.arrays.setdefault(tree, {})[str(number)] = array
        own = ArrayRecord(dtype=str(value.dtype), sha256=digest(value))
        shape = list(value.shape)
        held.leaves.append(LeafRecord(path=path, shape=shape, params=own, importance=record))
    return held


def restored(
    manifest: Manifest,
    like: Params,
    read: Callable[[list[StoredArray]], ByNumber],
    where: str,
) -> Anchor:
    """The anchor of `manifest` in the structure of `like`, each array where its leaf is.

    `read` gives the arrays of a group. Of what is on the host only one group is held at a time.
    """
    targets = leaves_by_name(like)
    codes: list[Code] = [leaf["importance"].get("code", "exact") for leaf in manifest["leaves"]]
    held = Anchor({}, {})
    for group in groups(manifest):
        arrays = read([array for array in group if array.nbytes])
        values = {
            (array.tree, array.number): _verified(arrays, array, manifest, where) for array in group
        }
        for tree, number, path, *_ in group:
            if tree == "scales":
                continue
            value = values.pop((tree, number))
            if tree == "importance" and codes[number] != "exact":
                scales = values.get(("scales", number))
                value = importance_codes.decoded(value, scales, codes[number])
            getattr(held, tree)[path] = _on_devices_of(value, targets[path])
    return _structured(held, like)


def check_stored(
    manifest: Manifest, read: Callable[[list[StoredArray]], ByNumber], where: str
) -> None:
    """Raise CheckpointCorruptError unless every array of `manifest` is what was saved."""
    for group in groups(manifest):
        arrays = read([array for array in group if array.nbytes])
        for array in group:
            _verified(arrays, array, manifest, where)


def groups(manifest: Manifest) -> Iterator[list[StoredArray]]:
    """The arrays of an entry, those together that are read together."""
    group: list[StoredArray] = []
    for array in stored_arrays(manifest):
        size = sum(other.nbytes for other in group)
        # The scales are of the array before them.
        if group and size + array.nbytes > GROUP_BYTES and array.tree != "scales":
            yield group
            group = []
        group.append(array)
    yield group


def _verified(arrays: ByNumber, array: StoredArray, manifest: Manifest, where: str) -> np.ndarray:
    """One array of those that were read; its digest computed again."""
    # Orbax was not given the empty arrays.
    empty = None if array.nbytes else np.zeros(array.shape, array.dtype)
    value = arrays.get(array.tree, {}).get(str(array.number), empty)
    if not isinstance(value, np.ndarray) or digest(value) != array.sha256:
        raise CheckpointCorruptError(
            f"{array.name} of task {manifest['task']!r} in {where} is not what "
            "was saved: its digest differs. Put a copy of that folder back, or "
            f"delete({manifest['task']!r}) to give the task up"
        )
    return value


def _structured(held: Anchor, like: Params) -> Anchor:
    """Arrays by path in the structure of `like`, which masks what has none."""
    paths, treedef = jax.tree_util.tree_flatten_with_path(like, is_leaf=trees.is_masked)
    names = [jax.tree_util.keystr(path) for path, _ in paths]

    def build(tree: dict[str, jax.Array]) -> Any:
        return treedef.unflatten([tree.get(name, optax.MaskedNode()) for name in names])

    return Anchor(build(held.params), build(held.importance))


def _on_devices_of(value: np.ndarray, like: Any) -> jax.Array:
    """`value` with the sharding of `like`, and committed to it only if `like` is."""
    sharding = getattr(like, "sharding", None)
    if sharding is None or not getattr(like, "committed", True):
        return jnp.array(value)
    return jax.device_put(value, sharding)
