"""The store's metadata: sealed, complete, and strict about what it is compared with."""

import json
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import optax
import pytest

from mas_jax import descriptions, likeness, manifest
from mas_jax.errors import CheckpointCorruptError, StoreFormatError, TreeMismatchError


def _manifest(**changes: Any) -> manifest.Manifest:
    """The manifest of an anchor with one leaf and one masked subtree, sealed after `changes`."""
    path = (jax.tree_util.DictKey("head"),)
    value = np.arange(6, dtype=np.float32).reshape(2, 3)
    record = manifest.ArrayRecord(dtype="float32", sha256=manifest.digest(value))
    leaf = manifest.LeafRecord(path="['w']", shape=[2, 3], params=record, importance=record)
    content = manifest.describe("birds", [leaf], [path], "squared_l2_norm", 5, {"seed": 1})
    changed: Any = {**content, **changes}
    changed["sha256"] = manifest.seal(changed)
    return changed


def _like(**leaves):
    return {"w": jnp.zeros((2, 3)), "head": {"kernel": jnp.zeros(3)}, **leaves}


def test_a_manifest_survives_json_and_opens():
    content = _manifest()
    assert manifest.opened(json.loads(json.dumps(content)), "here") == content
    assert content["leaves"][0]["path"] == "['w']"
    assert content["leaves"][0]["shape"] == [2, 3]
    assert content["leaves"][0]["params"]["dtype"] == "float32"
    assert content["masked"] == ["['head']"]
    assert set(content["versions"]) == {"mas-jax", "jax", "orbax-checkpoint", "flax", "optax"}
    assert content["versions"]["jax"] == jax.__version__


@pytest.mark.parametrize("key", list(_manifest()))
def test_any_entry_changed_or_gone_is_corrupt(key):
    for changed in ({**_manifest(), key: "other"}, _manifest()):
        if changed[key] != "other":
            del changed[key]
        with pytest.raises(CheckpointCorruptError, match="metadata in here is not what was saved"):
            manifest.opened(changed, "here")


@pytest.mark.parametrize("content", [None, [], "text", 1, {}])
def test_json_that_is_no_manifest_is_corrupt(content):
    with pytest.raises(CheckpointCorruptError):
        manifest.opened(content, "here")


def test_a_newer_format_is_said_to_be_one():
    newer = _manifest(format_version=manifest.FORMAT_VERSION + 1, leaves="of another kind")
    with pytest.raises(StoreFormatError, match=r"here has format 3, .* up to 2: upgrade mas_jax"):
        manifest.opened(newer, "here")


def _with_leaf(**changes: Any) -> manifest.Manifest:
    """A sealed manifest whose leaf was changed."""
    (leaf,) = _manifest()["leaves"]
    return _manifest(leaves=[{**leaf, **changes}])


RECORD = {"dtype": "float32", "sha256": "0" * 64}


@pytest.mark.parametrize(
    "content",
    [
        *(_manifest(**{key: None}) for key in _manifest() if key != "sha256"),
        *(_manifest(format_version=version) for version in (0, -1, "2", 1.5, None, [])),
        _manifest(task="a\x1b[1m"),
        _manifest(num_samples="1"),
        _manifest(extra=[]),
        _manifest(masked=[1]),
        _manifest(entry="0"),
        _manifest(leaves=[1]),
        _manifest(leaves=[{}]),
        _manifest(leaves=[[]]),
        _with_leaf(path=1),
        _with_leaf(shape="23"),
        _with_leaf(shape=[-1, 3]),
        _with_leaf(shape=[2.0, 3]),
        _with_leaf(shape=3),
        _with_leaf(params={**RECORD, "dtype": "no dtype"}),
        _with_leaf(params={**RECORD, "dtype": "object"}),
        _with_leaf(params={**RECORD, "dtype": ">f4"}),
        _with_leaf(params={**RECORD, "dtype": "f4,f4"}),
        _with_leaf(params={**RECORD, "sha256": 1}),
        _with_leaf(params=None),
        _with_leaf(importance={**RECORD, "code": "int4"}),
        _with_leaf(importance={**RECORD, "code": []}),
        _with_leaf(importance={**RECORD, "scales": 1}),
    ],
)
def test_a_right_seal_does_not_make_it_a_manifest(content):
    content = json.loads(json.dumps(content))
    with pytest.raises(CheckpointCorruptError, match=r"metadata in here is sealed, and not of"):
        manifest.opened(content, "here")


@pytest.mark.parametrize("key", sorted(manifest.Manifest.__required_keys__ - {"sha256"}))
def test_a_sealed_manifest_lacks_nothing(key):
    content: Any = _manifest()
    del content[key]
    content["sha256"] = manifest.seal(content)
    with pytest.raises(CheckpointCorruptError, match="metadata in here is sealed"):
        manifest.opened(content, "here")


def test_what_a_later_library_of_this_format_adds_is_left_alone():
    content: Any = _manifest(note="more")
    assert manifest.opened(content, "here")["note"] == "more"  # type: ignore[typeddict-item]


def test_digest_depends_on_bytes_shape_and_dtype():
    zeros = np.zeros(4, np.float32)
    others = [
        zeros.reshape(2, 2),
        zeros.view(np.int32),
        -zeros,
        np.zeros(8, np.float16),
        np.zeros(8, ml_dtypes.bfloat16),
        np.zeros(0, np.float32),
        np.zeros((0, 2), np.float32),
        np.zeros((), np.float32),
    ]
    digests = {manifest.digest(value) for value in (zeros, *others)}
    assert len(digests) == len(others) + 1


def test_digest_does_not_depend_on_memory_layout():
    value = np.arange(6.0).reshape(2, 3)
    assert manifest.digest(np.asfortranarray(value)) == manifest.digest(value)


@pytest.mark.parametrize(
    "like",
    [
        _like(),
        {**_like(), "w": jax.ShapeDtypeStruct((2, 3), jnp.float32)},
        {**_like(), "w": np.zeros((2, 3), np.float32)},
        {"w": jnp.zeros((2, 3)), "head": optax.MaskedNode()},
        {"w": jnp.zeros((2, 3))},
        _like(later=optax.MaskedNode()),
    ],
)
def test_like_that_fits(like):
    likeness.check_like(_manifest(), like)


@pytest.mark.parametrize(
    ("like", "message"),
    [
        (_like(w=jnp.zeros((3, 2))), r"like\['w'\] has shape \(3, 2\), but the anchor of task"),
        (_like(w=jnp.zeros((2, 3), jnp.bfloat16)), r"like\['w'\] is bfloat16.*is float32 there"),
        (_like(w=jnp.zeros((2, 3), jnp.int32)), r"like\['w'\] is int32.*nothing is cast"),
        (_like(w=1.0), r"like\['w'\] has shape \(\)"),
        (_like(w=optax.MaskedNode()), r"like masks leaf \['w'\].*give the parameter there"),
        ({"head": jnp.zeros(3)}, r"like has no leaf \['w'\].*another model"),
        (_like(later=jnp.zeros(2)), r"no leaf \['later'\], which like has.*optax.MaskedNode\(\)"),
        (_like(head_b=jnp.zeros(2)), r"no leaf \['head_b'\]"),
    ],
)
def test_like_that_does_not_fit_is_told_the_leaf(like, message):
    with pytest.raises(TreeMismatchError, match=message):
        likeness.check_like(_manifest(), like)


@pytest.mark.parametrize(
    "task", ["", "  ", "a\n", "\x00", "\x1b[1m", "\ud800", "a" * 201, None, 3, b"birds"]
)
def test_a_task_needs_a_printable_name(task):
    with pytest.raises(ValueError, match="task must be a name of 1 to 200 printable characters"):
        descriptions.check_task_name(task)


@pytest.mark.parametrize("task", ["birds", "../../etc", "a/b", "3", "Vögel 鳥", "a" * 200])
def test_any_printable_name_will_do(task):
    descriptions.check_task_name(task)


def _nested(depth: int) -> list:
    value: list = []
    for _ in range(depth - 1):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"objective": ""}, "objective must be a name"),
        ({"objective": len}, "objective must be a name"),
        ({"num_samples": -1}, "num_samples must be an int from 0 to 2⁶³ - 1, got -1"),
        ({"num_samples": 10**5000}, "num_samples must be an int .* got one of 16610 bits"),
        (
            {"num_samples": -(10**5000)},
            "num_samples must be an int .* got a negative one of 16610 bits",
        ),
        ({"num_samples": 1.5}, "num_samples must be"),
        ({"num_samples": True}, "num_samples must be"),
        ({"extra": {"a": float("nan")}}, "extra must be plain JSON"),
        ({"extra": {"a": np.ones(2)}}, "extra must be plain JSON"),
        ({"extra": {"a": (1, 2)}}, "lists and not tuples"),
        ({"extra": {1: "a"}}, "str keys"),
        ({"extra": [1]}, "extra must be a dict"),
        ({"extra": {"a": 10**5000}}, "extra must be plain JSON"),
        ({"extra": {"a": _nested(100)}}, "extra must be at most 100 containers deep"),
        ({"extra": {"a": _nested(100_000)}}, "extra must be plain JSON: .*recursion"),
    ],
)
def test_what_describes_an_anchor_is_checked(changes, message):
    good = {"objective": "l2_norm", "num_samples": 0, "extra": {"a": [1, None, {"b": 0.1}]}}
    descriptions.check_description(**good)
    descriptions.check_description(
        **{**good, "extra": {"a": _nested(99)}, "num_samples": 2**63 - 1}
    )
    with pytest.raises(ValueError, match=message):
        descriptions.check_description(**{**good, **changes})


def test_a_manifest_knows_the_folder_that_it_was_saved_in():
    content = manifest.opened(manifest.bound(_manifest(), 3), "here")
    manifest.check_entry(content, 3, "store")
    with pytest.raises(
        CheckpointCorruptError, match="store/0 holds task 'birds', which was saved as store/3"
    ):
        manifest.check_entry(content, 0, "store")


def test_a_manifest_from_before_entries_had_numbers_fits_any_folder():
    manifest.check_entry(_manifest(), 7, "store")
