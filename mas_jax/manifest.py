"""What the store writes beside an anchor's arrays: what they are, and digests that prove it."""

import datetime
import hashlib
import importlib.metadata
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal, NamedTuple, NotRequired, TypedDict, get_args

import jax
import jax.numpy as jnp
import numpy as np

from mas_jax import descriptions, trees
from mas_jax.errors import CheckpointCorruptError, StoreFormatError
from mas_jax.importance_codes import BLOCK, STORED_DTYPES, Code

FORMAT_VERSION = 2
"""The newest format. The seal stays as it is in every format, so that an old reader can tell a
newer format from a damaged file. 1 is written where Ω is "exact", which all readers know."""

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
    version = manifest.get("format_version")
    if isinstance(version, int) and version > FORMAT_VERSION:
        raise StoreFormatError(
            f"{where} has format {version!s:.20}, and mas_jax {_version('mas-jax')} "
            f"reads formats up to {FORMAT_VERSION}: upgrade mas_jax"
        )
    try:
        _check_content(manifest)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise CheckpointCorruptError(
            f"the metadata in {where} is sealed, and not of this library's making "
            f"({type(error).__name__}: {error}). Put a copy of that folder back, or remove it to "
            "give its task up"
        ) from error
    return Manifest(**manifest)


def _check_content(manifest: dict[str, Any]) -> None:
    """Raise ValueError, TypeError, KeyError or AttributeError where `describe` made none such."""
    if missing := Manifest.__required_keys__ - manifest.keys():
        raise ValueError(f"it lacks {', '.join(sorted(missing))}")
    types = {
        "objective": str, "num_samples": int, "saved_at": str, "versions": dict, "leaves": list,
        "masked": list, "extra": dict,
    }  # fmt: skip
    for key, type_ in types.items():
        if not isinstance(manifest[key], type_):
            raise TypeError(f"{key} is {manifest[key]!r:.250}")
    if manifest["format_version"] not in range(1, FORMAT_VERSION + 1):
        raise ValueError(f"its format is {manifest['format_version']!r}")
    descriptions.check_task_name(manifest["task"])
    if not isinstance(manifest.get("entry", 0), int):
        raise TypeError(f"its entry is {manifest['entry']!r}")
    if not all(isinstance(path, str) for path in manifest["masked"]):
        raise TypeError(f"the paths masked in it are {manifest['masked']!r:.250}")
    for leaf in manifest["leaves"]:
        if not all(isinstance(size, int) and size >= 0 for size in leaf["shape"]):
            raise ValueError(f"the shape of {leaf['path']} is {leaf['shape']!r:.250}")
        if leaf["importance"].get("code", "exact") not in get_args(Code):
            raise ValueError(f"the code of {leaf['path']} is {leaf['importance']['code']!r:.250}")
        for record in (leaf["params"], leaf["importance"]):
            dtype = np.dtype(record["dtype"])
            if dtype.name != record["dtype"] or not jnp.issubdtype(dtype, jnp.floating):
                raise ValueError(f"the dtype of {leaf['path']} is {record['dtype']!r:.250}")
    for array in stored_arrays(Manifest(**manifest)):
        if not isinstance(array.path, str) or not isinstance(array.sha256, str):
            raise TypeError(f"the digest of {array.path!r:.250} is {array.sha256!r:.250}")


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
