"""The store's public face: what goes in comes out, in order, or an error says why not."""

import asyncio
import json
import pathlib
import threading
import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from flax import nnx

from mas_jax import manifest
from mas_jax.anchor import Anchor, consolidate
from mas_jax.errors import (
    StoreFormatError,
    StoreLockedError,
    StoreNotWritableError,
    TaskExistsError,
    TaskNotFoundError,
    TreeMismatchError,
)
from mas_jax.lock import writer_lock
from mas_jax.store import AnchorStore


def _anchor(value: float = 1.0) -> Anchor:
    return Anchor({"w": jnp.full(3, value, jnp.float32)}, {"w": jnp.full(3, abs(value) / 3)})


def _save(store: AnchorStore, task: str, anchor: Anchor | None = None) -> None:
    store.save(task, anchor or _anchor(), objective="squared_l2_norm", num_samples=8)


def _assert_bitwise_equal(got: Any, wanted: Any) -> None:
    assert jax.tree.structure(got) == jax.tree.structure(wanted)
    for one, other in zip(jax.tree.leaves(got), jax.tree.leaves(wanted), strict=True):
        assert isinstance(one, jax.Array)
        assert one.dtype == other.dtype
        assert one.shape == other.shape
        assert np.asarray(one).tobytes() == np.asarray(other).tobytes()


@pytest.fixture
def store(tmp_path):
    return AnchorStore(tmp_path / "anchors")


def _edge_values(dtype: Any) -> jax.Array:
    """−0, the smallest subnormal, the largest number and one that no decimal hits."""
    info = jnp.finfo(dtype)
    return jnp.array([-0.0, info.smallest_subnormal, -info.max, 1 / 3, 0.0], dtype)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16, jnp.float8_e4m3fn])
def test_round_trip_is_bitwise(store, dtype):
    params = {"edges": _edge_values(dtype), "scalar": jnp.array(2, dtype)}
    importance = {"edges": jnp.abs(_edge_values(jnp.float32)), "scalar": jnp.array(-0.0)}
    anchor = Anchor(params, importance)
    _save(store, "birds", anchor)
    _assert_bitwise_equal(store.restore("birds", like=params), anchor)


def test_empty_leaves_and_nothing_but_empty_leaves_come_back(store):
    empty = {"e": jnp.zeros((0, 3), jnp.bfloat16)}
    for task, params in (("some", {**empty, "w": jnp.ones(2)}), ("only", empty)):
        anchor = Anchor(params, jax.tree.map(lambda leaf: leaf.astype(jnp.float32), params))
        _save(store, task, anchor)
        _assert_bitwise_equal(store.restore(task, like=params), anchor)


class _Pair(NamedTuple):
    left: Any
    right: Any


@pytest.mark.parametrize(
    "params",
    [
        jnp.ones(2),
        (jnp.ones(2), [jnp.zeros(1), (jnp.ones(()),)]),
        _Pair({"a": jnp.ones(1)}, None),
        {"a/b.c": {1: jnp.ones(1)}, "a": {"b": {"c": jnp.zeros(1)}}},
        nnx.state(nnx.Linear(2, 3, rngs=nnx.Rngs(0)), nnx.Param),
    ],
)
def test_containers_come_back_as_they_were(store, params):
    anchor = consolidate(None, params, jax.tree.map(jnp.abs, params))
    _save(store, "birds", anchor)
    _assert_bitwise_equal(store.restore("birds", like=params), anchor)
    abstract = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), params)
    _assert_bitwise_equal(store.restore("birds", like=abstract), anchor)


def test_masked_leaves_come_back_masked_and_new_ones_are_asked_for_by_name(store):
    params = {"body": jnp.ones(2), "head": {"k": jnp.ones(1)}, "rng": jax.random.key(0)}
    hidden = {"head": {"k": optax.MaskedNode()}, "rng": optax.MaskedNode()}
    anchor = Anchor({"body": jnp.ones(2), **hidden}, {"body": jnp.ones(2), **hidden})
    _save(store, "birds", anchor)
    _assert_bitwise_equal(store.restore("birds", like=params), anchor)
    _assert_bitwise_equal(store.restore("birds", like=anchor.params), anchor)

    grown = {**params, "head_2": jnp.ones(1)}
    with pytest.raises(TreeMismatchError, match=r"\['head_2'\].*is optax.MaskedNode\(\) in like"):
        store.restore("birds", like=grown)
    restored = store.restore("birds", like={**grown, "head_2": optax.MaskedNode()})
    assert restored.importance["head_2"] == optax.MaskedNode()


def test_another_models_anchor_is_refused(store):
    _save(store, "birds")
    with pytest.raises(TreeMismatchError, match=r"no leaf \['w'\], which the anchor of task"):
        store.restore("birds", like={"kernel": jnp.ones(3)})


def test_restored_arrays_behave_like_those_they_stand_for(store):
    _save(store, "birds")
    free = jnp.ones(3)
    committed = jax.device_put(free, jax.devices()[0])
    assert not store.restore("birds", like={"w": free}).params["w"].committed
    restored = store.restore("birds", like={"w": committed})
    assert restored.params["w"].committed
    assert restored.importance["w"].committed
    doubled = jax.jit(lambda tree: jax.tree.map(lambda leaf: 2 * leaf, tree), donate_argnums=0)
    _assert_bitwise_equal(doubled(restored), jax.tree.map(lambda leaf: 2 * leaf, _anchor()))


def test_numpy_and_python_leaves_are_saved_as_jax_would_hold_them(store):
    anchor = Anchor({"w": np.ones(2, np.float32), "s": 0.5}, {"w": jnp.ones(2), "s": jnp.ones(())})
    _save(store, "birds", anchor)
    restored = store.restore("birds", like={"w": jnp.ones(2), "s": jnp.ones(())})
    _assert_bitwise_equal(restored.params, {"w": jnp.ones(2), "s": jnp.array(0.5)})


def test_tasks_are_listed_in_the_order_in_which_they_were_saved(store):
    names = [f"task {number}" for number in range(11, -1, -1)]
    for number, name in enumerate(names):
        _save(store, name, _anchor(number))
    assert store.tasks() == names
    assert store.latest() == names[-1]
    for number, name in enumerate(names):
        _assert_bitwise_equal(store.restore(name, like=_anchor().params), _anchor(number))


def test_an_existing_task_is_not_overwritten(store):
    _save(store, "birds")
    _save(store, "scenes")
    with pytest.raises(TaskExistsError, match=r"holds task 'birds' already.*latest is 'scenes'"):
        _save(store, "birds", _anchor(7))
    assert store.tasks() == ["birds", "scenes"]
    _assert_bitwise_equal(store.restore("birds", like=_anchor().params), _anchor())


@pytest.mark.parametrize("deleted", ["a", "b", "c"])
def test_a_deleted_task_is_gone_and_its_name_free(store, deleted):
    for name in "abc":
        _save(store, name)
    store.delete(deleted)
    left = [name for name in "abc" if name != deleted]
    assert store.tasks() == left
    with pytest.raises(TaskNotFoundError, match=f"has no task '{deleted}'; it has '{left[0]}'"):
        store.restore(deleted, like=_anchor().params)
    _save(store, deleted, _anchor(5))
    assert store.tasks() == [*left, deleted]
    assert store.latest() == deleted
    _assert_bitwise_equal(store.restore(deleted, like=_anchor().params), _anchor(5))
    entries = {path.name for path in pathlib.Path(store.directory).iterdir()}
    assert len(entries - {".lock"}) == 3


def test_metadata_is_plain_json_with_what_was_given(store):
    extra = {"seed": 3, "accuracy": [0.1, None], "name": "Vögel"}
    store.save("birds", _anchor(), objective="l2_norm", num_samples=5994, extra=extra)
    metadata = store.metadata("birds")
    assert json.loads(json.dumps(metadata)) == metadata
    assert metadata["task"] == "birds"
    assert metadata["objective"] == "l2_norm"
    assert metadata["num_samples"] == 5994
    assert metadata["extra"] == extra
    assert metadata["format_version"] == 1, "older readers know no other, and need no other"
    assert [leaf["path"] for leaf in metadata["leaves"]] == ["['w']"]


@pytest.mark.parametrize("ask", ["restore", "metadata", "delete"])
def test_an_unknown_task_is_an_error_that_lists_the_others(store, ask):
    arguments = {"like": _anchor().params} if ask == "restore" else {}
    with pytest.raises(TaskNotFoundError, match="has no task 'cars'; it has none at all"):
        getattr(store, ask)("cars", **arguments)
    assert not store.directory.exists()
    _save(store, "birds")
    _save(store, "scenes")
    with pytest.raises(TaskNotFoundError, match="has no task 'cars'; it has 'birds', 'scenes'"):
        getattr(store, ask)("cars", **arguments)


def test_reading_creates_nothing(store, tmp_path):
    assert store.tasks() == []
    assert store.latest() is None
    assert not store.directory.exists()
    assert AnchorStore(tmp_path).tasks() == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["file", "file/below/it"])
def test_a_file_in_the_stores_place_is_a_mistake(tmp_path, name):
    (tmp_path / "file").write_text("mine")
    store = AnchorStore(tmp_path / name)
    with pytest.raises(NotADirectoryError, match="file is a file"):
        store.tasks()
    with pytest.raises(StoreNotWritableError, match=name):
        _save(store, "birds")
    assert (tmp_path / "file").read_text() == "mine"


def test_a_bad_anchor_or_name_is_refused_before_anything_is_written(store):
    with pytest.raises(ValueError, match="negative"):
        _save(store, "birds", Anchor({"w": jnp.ones(1)}, {"w": -jnp.ones(1)}))
    with pytest.raises(ValueError, match="task must be a name"):
        _save(store, "bad\nname")
    with pytest.raises(ValueError, match="num_samples"):
        store.save("birds", _anchor(), objective="l2_norm", num_samples=-1)
    assert not store.directory.exists()


@pytest.mark.parametrize("task", ["../escape", "/etc/x", "0", "a b", "鳥", "x" * 200])
def test_a_name_never_becomes_a_path(store, tmp_path, task):
    _save(store, task)
    assert store.tasks() == [task]
    assert sorted(path.name for path in tmp_path.rglob("*") if path.parent == tmp_path) == [
        "anchors"
    ]
    assert {path.name for path in (tmp_path / "anchors").iterdir()} == {".lock", "0"}


def test_relative_paths_stay_where_they_were_given(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    store = AnchorStore("anchors")
    monkeypatch.chdir("/")
    _save(store, "birds")
    assert (tmp_path / "anchors" / "0").is_dir()


def test_remote_directories_keep_their_url():
    assert str(AnchorStore("gs://bucket/anchors").directory) == "gs://bucket/anchors"


def test_a_second_writer_is_refused_and_readers_are_not(store):
    _save(store, "birds")
    with writer_lock(pathlib.Path(store.directory)):
        for write in (lambda: _save(store, "scenes"), lambda: store.delete("birds")):
            with pytest.raises(StoreLockedError, match="is being written to by process"):
                write()
        assert store.tasks() == ["birds"]
        store.restore("birds", like=_anchor().params)
    _save(store, "scenes")


def test_a_newer_format_is_refused_by_name_and_other_tasks_are_not(store, tmp_path):
    _save(store, "new")
    _save(store, "old")
    path = tmp_path / "anchors" / "0" / "metadata" / "metadata"
    content = json.loads(path.read_text())
    content["format_version"] = manifest.FORMAT_VERSION + 1
    content["sha256"] = manifest.seal(content)
    path.write_text(json.dumps(content))
    for read in (store.tasks, lambda: store.restore("new", like=_anchor().params)):
        with pytest.raises(StoreFormatError, match="upgrade mas_jax"):
            read()
    store.restore("old", like=_anchor().params)


def test_a_save_that_orbax_skips_is_an_error(store, monkeypatch):
    _save(store, "birds")
    monkeypatch.setattr(ocp.CheckpointManager, "save", lambda *_args, **_kwargs: False)
    with pytest.raises(StoreNotWritableError, match=r"'scenes' was not saved.*skipped step 1"):
        _save(store, "scenes")


def test_a_write_that_fails_is_an_error_and_leaves_nothing(store, monkeypatch):
    _save(store, "birds")
    (store.directory / "9.orbax-checkpoint-tmp" / "anchor").mkdir(parents=True)

    def fail(*_args, **_kwargs):
        assert not list(store.directory.glob("*-tmp")), "the disk is still full of leftovers"
        (store.directory / "1.orbax-checkpoint-tmp" / "anchor").mkdir(parents=True)
        raise OSError("no space left")

    with monkeypatch.context() as patched:
        patched.setattr(ocp.CheckpointManager, "save", fail)
        with pytest.raises(StoreNotWritableError, match=r"OSError: no space left.*unharmed"):
            _save(store, "scenes")
    assert {path.name for path in store.directory.iterdir()} == {".lock", "0"}
    _save(store, "scenes")
    assert store.tasks() == ["birds", "scenes"]


def test_a_file_that_may_not_be_read_is_not_taken_for_a_damaged_one(store, monkeypatch):
    _save(store, "birds")

    def fail(*_args, **_kwargs):
        raise PermissionError("not yours")

    monkeypatch.setattr(ocp.CheckpointManager, "restore", fail)
    with pytest.raises(PermissionError, match="not yours"):
        store.tasks()


def test_a_task_deleted_while_it_is_read_is_not_found(store, monkeypatch):
    _save(store, "birds")
    restore = ocp.CheckpointManager.restore

    def lose(self, step, **arguments):
        (self.directory / str(step)).rmtree()
        return restore(self, step, **arguments)

    monkeypatch.setattr(ocp.CheckpointManager, "restore", lose)
    with pytest.raises(TaskNotFoundError, match="has no task 'birds'"):
        store.restore("birds", like=_anchor().params)


def test_the_store_works_inside_a_running_event_loop(store):
    async def notebook():
        _save(store, "birds")
        return store.restore("birds", like=_anchor().params)

    _assert_bitwise_equal(asyncio.run(notebook()), _anchor())


def test_nothing_is_printed_and_no_thread_stays(store, capfd):
    before = set(threading.enumerate())
    _save(store, "birds")
    store.restore("birds", like=_anchor().params)
    store.tasks()
    store.delete("birds")
    assert capfd.readouterr() == ("", "")
    deadline = time.monotonic() + 10
    while set(threading.enumerate()) - before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert set(threading.enumerate()) <= before


@pytest.mark.parametrize("error", [OSError(5, "Input/output error"), MemoryError("no memory")])
def test_a_failure_of_the_machine_is_not_called_corruption(tmp_path, monkeypatch, error):
    store = AnchorStore(tmp_path)
    _save(store, "a")

    def fail(*_, **__):
        raise error

    monkeypatch.setattr(ocp.CheckpointManager, "restore", fail)
    with pytest.raises(type(error)):
        store.restore("a", like=_anchor().params)


@pytest.mark.parametrize(
    "directory", ["", "file:///tmp/x", pathlib.Path("gs://bucket/x"), b"x"], ids=repr
)
def test_a_directory_that_is_no_place_is_refused(directory):
    with pytest.raises(ValueError, match="directory must be a local path"):
        AnchorStore(directory)


@pytest.mark.parametrize("dtype", [">f4", np.longdouble])
def test_parameters_that_jax_does_not_have_are_refused(store, dtype):
    anchor = Anchor({"w": np.ones(3, dtype)}, {"w": np.ones(3, np.float32)})
    with pytest.raises(TypeError, match=r"anchor.params\['w'\] is .*, which JAX does not have"):
        store.save("a", anchor, objective="x", num_samples=1)
    assert store.tasks() == []


def test_what_is_no_anchor_is_refused(store):
    trees: Any = ({"w": jnp.ones(3)}, {"w": jnp.ones(3)})
    with pytest.raises(TypeError, match=r"anchor must be a mas_jax.Anchor.*got builtins.tuple"):
        store.save("a", trees, objective="x", num_samples=1)
