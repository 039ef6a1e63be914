"""A damaged task may be replaced by the newest whole one before it, and its caller is told."""

import json
import pathlib
import shutil
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mas_jax import manifest
from mas_jax.anchor import Anchor
from mas_jax.errors import (
    CheckpointCorruptError,
    OlderAnchorWarning,
    StoreFormatError,
    TaskNotFoundError,
    TreeMismatchError,
)
from mas_jax.store import AnchorStore

# See test_store_damage.py.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

LIKE = {"w": jnp.zeros(3), "b": jnp.zeros(())}
TASKS = ["birds", "cars", "flowers", "scenes"]


def _anchor(value: float) -> Anchor:
    params = jax.tree.map(lambda leaf: leaf + value, LIKE)
    return Anchor(params, params)


@pytest.fixture
def store(tmp_path):
    store = AnchorStore(tmp_path)
    for number, task in enumerate(TASKS):
        store.save(task, _anchor(number), objective="x", num_samples=1)
    return store


def _damage_arrays(store: AnchorStore, number: int) -> None:
    shutil.rmtree(store.directory / str(number) / "anchor")


def _damage_metadata(store: AnchorStore, number: int) -> None:
    (store.directory / str(number) / "metadata" / "metadata").write_text("{")


def _restored(store: AnchorStore, task: str) -> tuple[str, float]:
    """The task whose anchor `restore` says it gave, and the value that is in it."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        anchor = store.restore(task, like=LIKE, fallback="previous")
    told = [record.message for record in caught if record.category is OlderAnchorWarning]
    name = told[0].restored if isinstance(told[0], OlderAnchorWarning) else task
    values = {float(value) for leaf in jax.tree.leaves(anchor) for value in np.ravel(leaf)}
    assert len(values) == 1, "a mixture of tasks"
    return name, values.pop()


def test_without_being_asked_nothing_older_is_given(store):
    _damage_arrays(store, 2)
    with pytest.raises(CheckpointCorruptError, match=r"params\['b'\] of task 'flowers'"):
        store.restore("flowers", like=LIKE)


def test_the_newest_whole_one_before_is_given_and_named(store):
    _damage_arrays(store, 2)
    with pytest.warns(OlderAnchorWarning) as caught:
        anchor = store.restore("flowers", like=LIKE, fallback="previous")
    assert jax.tree.all(jax.tree.map(lambda leaf: (leaf == 1).all(), anchor))
    (warning,) = [record.message for record in caught]
    assert isinstance(warning, OlderAnchorWarning)
    assert (warning.task, warning.restored) == ("flowers", "cars")
    assert isinstance(warning.damage, CheckpointCorruptError)
    assert caught[0].filename == __file__
    for words in ("'flowers'", "'cars'", str(store.directory / "2")):
        assert words in str(warning)


def test_damaged_ones_in_between_are_passed_over(store):
    _damage_arrays(store, 3)
    _damage_arrays(store, 2)
    _damage_metadata(store, 1)
    assert _restored(store, "scenes") == ("birds", 0)


def test_where_its_metadata_is_damaged_one_before_all_such_is_given(store):
    _damage_metadata(store, 2)
    assert _restored(store, "flowers") == ("cars", 1)
    _damage_metadata(store, 1)
    # Either of the two may have been "flowers", so "cars" might be newer than it.
    assert _restored(store, "flowers") == ("birds", 0)


def test_a_name_that_no_readable_entry_has_is_not_said_to_have_been_saved(store):
    _damage_metadata(store, 2)
    with pytest.warns(OlderAnchorWarning, match=r"no readable entry is that of task 'typo'") as got:
        store.restore("typo", like=LIKE, fallback="previous")
    (warning,) = [record.message for record in got]
    assert isinstance(warning, OlderAnchorWarning)
    assert (warning.restored, warning.is_known) == ("cars", False)
    assert "See that 'typo' is the name meant" in str(warning)
    assert str(store.directory / "2") in str(warning)


def test_the_first_task_has_nothing_before_it(store):
    _damage_arrays(store, 0)
    with pytest.raises(CheckpointCorruptError, match="of task 'birds'"):
        store.restore("birds", like=LIKE, fallback="previous")


def test_one_of_another_model_is_passed_over(store):
    _damage_arrays(store, 3)
    store.delete("flowers")
    store.delete("cars")
    other = Anchor({"w": jnp.ones(4)}, {"w": jnp.ones(4)})
    store.save("other", other, objective="x", num_samples=1)
    store.save("last", _anchor(9), objective="x", num_samples=1)
    _damage_arrays(store, 5)
    assert _restored(store, "last") == ("birds", 0)


def test_a_whole_task_is_restored_without_a_word(store):
    _damage_arrays(store, 1)
    anchor = store.restore("flowers", like=LIKE, fallback="previous")
    assert float(anchor.params["b"]) == 2


def test_only_damage_falls_back(store):
    with pytest.raises(TaskNotFoundError, match="has no task 'boats'"):
        store.restore("boats", like=LIKE, fallback="previous")
    with pytest.raises(TreeMismatchError):
        store.restore("scenes", like={"w": jnp.zeros(4)}, fallback="previous")
    with pytest.raises(ValueError, match="fallback must be one of 'previous', got 'next'"):
        store.restore("scenes", like=LIKE, fallback="next")
    path = pathlib.Path(store.directory / "3" / "metadata" / "metadata")
    content = json.loads(path.read_text())
    content["format_version"] = manifest.FORMAT_VERSION + 1
    content["sha256"] = manifest.seal(content)
    path.write_text(json.dumps(content))
    with pytest.raises(StoreFormatError):
        store.restore("scenes", like=LIKE, fallback="previous")
