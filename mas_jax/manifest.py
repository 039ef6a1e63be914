"""What the store writes beside an anchor's arrays: what they are, and digests that prove it."""

import datetime
import hashlib
import importlib.metadata
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from numbers import Integral
from typing import Any, Literal, NamedTuple, NotRequired, TypedDict

import jax
import jax.numpy as jnp
import numpy as np

from mas_jax import trees
from mas_jax.errors import CheckpointCorruptError, StoreFormatError, TreeMismatchError
from mas_jax.importance_codes import BLOCK, STORED_DTYPES, Code
from mas_jax.types import Params

FORMAT_VERSION = 2
"""The newest format. The seal stays as it is in every format, so that an old reader can tell a
newer format from a damaged file. 1 is written where Ω is "exact", which all readers know."""

MAX_TASK_NAME = 200

_LIBRARIES = ("mas-jax", "jax", "orbax-checkpoint", "flax", "optax")


class ArrayRecord(TypedDict):
    """One saved array."""

    dtype: str  # as restored
    sha256: str  # of dtype, shape and bytes as stored
    code: NotRequired[Code]  # how Ω is stored, if not "exact"
    scales: NotRequired[str]  # the sha256 of the scales of its blocks, if it has any


class LeafRecord(TypedDict):
    """One leaf: its parameters and their importance."""

    path: str  # as jax.tree_util.keystr writes it
    shape: list[int]
    params: ArrayRecord
    importance: ArrayRecord


class StoredArray(NamedTuple):
    """One array of an entry, as it lies on disk."""

    tree: Literal["params", "importance", "scales"]
    number: int  # of its leaf
    path: str
    shape: tuple[int, ...]
    dtype: np.dtype
    sha256: str

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def name(self) -> str:
        """What it is part of, as users know it."""
        return f"{'params' if self.tree == 'params' else 'importance'}{self.path}"


class Manifest(TypedDict):
    """One task's metadata, plain JSON."""

    format_version: int
    task: str
    objective: str
    num_samples: int
    saved_at: str  # ISO 8601, UTC
    versions: dict[str, str]  # by distribution
    leaves: list[LeafRecord]
    masked: list[str]  # paths of the parameters that carry no importance
    extra: dict[str, Any]  # the user's own
    sha256: str  # the seal: of all the rest
    entry: NotRequired[int]  # the number of its folder; missing in the oldest stores


def describe(
    task: str,
    leaves: list[LeafRecord],
    masked: Iterable[trees.KeyPath],
    objective: str,
    num_samples: int,
    extra: Mapping[str, Any] | None,
) -> Manifest:
    """The manifest of an anchor's leaves."""
    is_coded = any("code" in leaf["importance"] for leaf in leaves)
    content = {
        "format_version": 2 if is_coded else 1,
        "task": task,
        "objective": objective,
        "num_samples": int(num_samples),
        "saved_at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "versions": {name: _version(name) for name in _LIBRARIES},
        "leaves": leaves,
        "masked": sorted(set(map(jax.tree_util.keystr, masked))),
        "extra": dict(extra or {}),
    }
    return Manifest(**content, sha256=seal(content))


def _version(distribution: str) -> str:
    """The installed version of a library."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def digest(value: np.ndarray) -> str:
    """The SHA-256 of an array's dtype, shape and bytes."""
    state = hashlib.sha256(f"{value.dtype} {value.shape} ".encode())
    # ml_dtypes (bfloat16) have no buffer protocol of their own.
    state.update(np.ascontiguousarray(value).reshape(-1).view(np.uint8).data)
    return state.hexdigest()


def stored_arrays(manifest: Manifest) -> Iterator[StoredArray]:
    """The arrays of an entry, leaf by leaf."""
    for number, leaf in enumerate(manifest["leaves"]):
        path, shape = leaf["path"], tuple(leaf["shape"])
        params, importance = leaf["params"], leaf["importance"]
        dtype = np.dtype(params["dtype"])
        yield StoredArray("params", number, path, shape, dtype, params["sha256"])
        dtype = STORED_DTYPES.get(importance.get("code", "exact"), np.dtype(importance["dtype"]))
        yield StoredArray("importance", number, path, shape, dtype, importance["sha256"])
        if "scales" in importance:
            blocks = (-(-math.prod(shape) // BLOCK),)
            dtype = np.dtype(np.float32)
            yield StoredArray("scales", number, path, blocks, dtype, importance["scales"])


def seal(content: Mapping[str, Any]) -> str:
    """The SHA-256 of a manifest's content, its own entry left out."""
    rest = {key: value for key, value in content.items() if key != "sha256"}
    text = json.dumps(rest, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def opened(manifest: Any, where: str) -> Manifest:
    """`manifest`, as read from `where`, verified against its seal and its format."""
    if not isinstance(manifest, dict) or manifest.get("sha256") != seal(manifest):
        raise CheckpointCorruptError(
            f"the metadata in {where} is not what was saved (its digest differs, or another "
            "program wrote it). Put a copy of that folder back, or remove it to give its task up"
        )
    if manifest["format_version"] > FORMAT_VERSION:
        raise StoreFormatError(
            f"{where} has format {manifest['format_version']}, and mas_jax {_version('mas-jax')} "
            f"reads formats up to {FORMAT_VERSION}: upgrade mas_jax"
        )
    return Manifest(**manifest)


def bound(manifest: Manifest, entry: int) -> Manifest:
    """`manifest` as that of the entry with this number, sealed again."""
    content = {**manifest, "entry": entry}
    content["sha256"] = seal(content)
    return Manifest(**content)


def check_entry(manifest: Manifest, entry: int, where: str) -> None:
    """Raise CheckpointCorruptError if an entry has come into another one's folder.

    The folders' order is that of the tasks, and a copy in another's place hides that other.
    """
    saved_as = manifest.get("entry", entry)
    if saved_as != entry:
        raise CheckpointCorruptError(
            f"{where}/{entry} holds task {manifest['task']!r}, which was saved as "
            f"{where}/{saved_as}: an entry was renamed or copied over another. Rename it "
            f"back, put a copy of {entry} back, or remove {entry} to give its task up"
        )


def check_task_name(task: Any) -> None:
    """Raise ValueError unless `task` can name a task."""
    if (
        not isinstance(task, str)
        or not task.strip()
        or not task.isprintable()
        or len(task) > MAX_TASK_NAME
    ):
        raise ValueError(
            f"task must be a name of 1 to {MAX_TASK_NAME} printable characters, got {task!r:.250}"
        )


def check_description(objective: Any, num_samples: Any, extra: Any) -> None:
    """Raise ValueError unless what the user says about an anchor is what JSON can hold."""
    if not isinstance(objective, str) or not objective:
        raise ValueError(f"objective must be a name such as 'squared_l2_norm', got {objective!r}")
    whole = isinstance(num_samples, Integral) and not isinstance(num_samples, bool)
    if not whole or num_samples < 0:
        raise ValueError(f"num_samples must be an int of at least 0, got {num_samples!r}")
    if extra is None:
        return
    try:
        same = isinstance(extra, dict) and json.loads(json.dumps(extra, allow_nan=False)) == extra
    except (TypeError, ValueError) as error:
        raise ValueError(f"extra must be plain JSON: {error}") from error
    if not same:
        raise ValueError(
            "extra must be a dict that comes back from JSON as it was: str keys, lists and not "
            f"tuples; got {extra!r:.250}"
        )


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
