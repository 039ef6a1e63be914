"""What is put into a store by others: links lead nowhere, and nothing is executed."""

import ast
import contextlib
import os
import pathlib
import pickle
import shutil

import jax.numpy as jnp
import pytest

from mas_jax.anchor import Anchor
from mas_jax.errors import CheckpointCorruptError, MasJaxError, StoreNotWritableError
from mas_jax.store import AnchorStore

# See test_store_damage.py.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

ROOT = pathlib.Path(__file__).parents[1]
LIKE = {"w": jnp.zeros(3)}


def _save(store: AnchorStore, task: str) -> None:
    params = {"w": jnp.ones(3)}
    store.save(task, Anchor(params, params), objective="x", num_samples=1)


@pytest.fixture
def store(tmp_path):
    store = AnchorStore(tmp_path / "anchors")
    _save(store, "birds")
    _save(store, "cars")
    return store


@pytest.fixture
def elsewhere(store, tmp_path):
    """A whole entry outside the store, and one file."""
    shutil.copytree(store.directory / "1", tmp_path / "elsewhere" / "1")
    (tmp_path / "elsewhere" / "thesis").write_text("mine")
    before = _content(tmp_path / "elsewhere")
    yield tmp_path / "elsewhere"
    assert _content(tmp_path / "elsewhere") == before


def _content(folder: pathlib.Path) -> dict[pathlib.Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_an_entry_that_is_a_link_is_refused_by_name(store, elsewhere):
    link = pathlib.Path(store.directory / "7")
    link.symlink_to(elsewhere / "1")
    shutil.rmtree(store.directory / "1")
    for action in (
        store.tasks,
        store.latest,
        lambda: store.restore("cars", like=LIKE),
        lambda: store.metadata("cars"),
        lambda: store.delete("cars"),
        lambda: _save(store, "new"),
    ):
        with pytest.raises(CheckpointCorruptError, match=r"anchors/7 is a link to .*elsewhere/1"):
            action()
    store.restore("birds", like=LIKE)
    link.unlink()  # as the message says
    assert store.tasks() == ["birds"]


def test_no_part_of_an_entry_may_be_a_link(store, elsewhere):
    entry = pathlib.Path(store.directory / "1")
    parts = sorted(path.relative_to(entry) for path in entry.rglob("*"))
    assert any(part.name == "manifest.ocdbt" for part in parts)
    for part in parts:
        path, kept = entry / part, entry.parents[1] / "kept"
        path.rename(kept)
        path.symlink_to(elsewhere / "1" / part)
        with pytest.raises(CheckpointCorruptError, match=f"{part} is a link to .*elsewhere"):
            store.restore("cars", like=LIKE)
        store.restore("birds", like=LIKE)
        path.unlink()
        kept.rename(path)
    store.restore("cars", like=LIKE)


def test_a_link_inside_a_deleted_entry_goes_alone(store, elsewhere):
    entry = pathlib.Path(store.directory / "1")
    shutil.rmtree(entry / "anchor")
    (entry / "anchor").symlink_to(elsewhere / "1" / "anchor")
    store.delete("cars")
    assert store.tasks() == ["birds"]
    assert not entry.exists()


@pytest.mark.parametrize("name", [".deleted", "2.orbax-checkpoint-tmp", "5.orbax-checkpoint-tmp"])
@pytest.mark.parametrize("target", ["1", "thesis", "nothing"])
def test_a_link_among_the_leftovers_goes_alone(store, elsewhere, name, target):
    (pathlib.Path(store.directory) / name).symlink_to(elsewhere / target)
    store.delete("cars")
    assert {path.name for path in store.directory.iterdir()} == {".lock", "0"}


def test_a_link_where_the_next_entry_goes_is_not_written_through(store, elsewhere):
    (pathlib.Path(store.directory) / "2").symlink_to(elsewhere / "nothing")
    with pytest.raises((StoreNotWritableError, CheckpointCorruptError), match="2"):
        _save(store, "new")
    assert not (elsewhere / "nothing").exists()
    store.restore("birds", like=LIKE)


def test_the_directory_itself_may_be_reached_through_a_link(store, tmp_path):
    (tmp_path / "link").symlink_to(store.directory)
    linked = AnchorStore(tmp_path / "link")
    _save(linked, "new")
    linked.restore("new", like=LIKE)
    assert store.tasks() == ["birds", "cars", "new"]


class Hostile:
    """Its pickle runs a command where it is loaded."""

    def __init__(self, trace: pathlib.Path):
        self.trace = trace

    def __reduce__(self) -> tuple:
        return os.system, (f"touch {self.trace}",)


def _attempts(store: AnchorStore) -> None:
    """All that can be done with a store; errors of the library are fine."""
    for action in (
        store.tasks,
        store.latest,
        lambda: store.metadata("cars"),
        lambda: store.restore("cars", like=LIKE),
        lambda: store.restore("cars", like=LIKE, fallback="previous"),
        lambda: _save(store, "new"),
        lambda: store.delete("cars"),
    ):
        with contextlib.suppress(MasJaxError):
            action()


@pytest.mark.filterwarnings("ignore::mas_jax.errors.OlderAnchorWarning")
def test_a_pickle_in_the_place_of_any_file_is_not_executed(store, tmp_path):
    trace = tmp_path / "executed"
    payload = pickle.dumps(Hostile(trace), 2)
    whole = pathlib.Path(store.directory)
    entry = whole / "1"
    names = [path.relative_to(whole) for path in entry.rglob("*") if path.is_file()]
    others = ["checkpoint", "data.pkl", "anchor/checkpoint", "anchor/_sharding", "anchor/params.0"]
    for name in (*names, *(pathlib.Path("1", other) for other in others), pathlib.Path(".lock")):
        copy = tmp_path / "copy"
        shutil.copytree(whole, copy)
        (copy / name).write_bytes(payload)
        _attempts(AnchorStore(copy))
        assert not trace.exists(), f"{name} was executed"
        shutil.rmtree(copy)
    pickle.loads(payload)  # does harm where somebody looks
    assert trace.exists()


EXECUTING = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}


def _executing(source: str) -> set[str]:
    """What of `source` could execute what it reads."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names=names):
                found |= {alias.name for alias in names}
            case ast.ImportFrom(module=str(module)):
                found.add(module)
            case ast.keyword(arg="allow_pickle", value=value):
                allowed = not (isinstance(value, ast.Constant) and value.value is False)
                found |= {"allow_pickle"} if allowed else set()
            case ast.Call(func=ast.Name(id="eval" | "exec" | "__import__" as name)):
                found.add(name)
    roots = {name.split(".")[0] for name in found}
    return roots & (EXECUTING | {"allow_pickle", "eval", "exec", "__import__"})


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import pickle", {"pickle"}),
        ("from pickle import loads", {"pickle"}),
        ("import joblib.memory", {"joblib"}),
        ("numpy.load(path, allow_pickle=True)", {"allow_pickle"}),
        ("numpy.load(path, allow_pickle=False)", set()),
        ("eval(text)", {"eval"}),
        ("import json", set()),
    ],
)
def test_what_could_execute_is_found(source, found):
    assert _executing(source) == found


ALLOWED = {
    # Its unpickler finds no function but its own: see test_weights_pth.py.
    "experiments/weights/pth.py",
    # From memory to memory, among the processes of one program; nothing of it is in a file.
    "experiments/devices.py",
}


def test_nothing_in_the_project_could_execute_what_it_reads():
    for folder in ("mas_jax", "experiments"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            name = path.relative_to(ROOT).as_posix()
            found = _executing(path.read_text())
            assert found <= ({"pickle"} if name in ALLOWED else set()), name


def test_files_are_unpickled_only_by_what_finds_nothing_else():
    source = (ROOT / "experiments" / "weights" / "pth.py").read_text()
    uses = {
        node.attr
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == "pickle"
    }
    assert uses == {"Unpickler", "UnpicklingError"}
