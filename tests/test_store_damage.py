"""Damage and sudden death: the right values or a typed error, never something else."""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mas_jax.anchor import Anchor
from mas_jax.errors import CheckpointCorruptError
from mas_jax.store import AnchorStore

# When one of several arrays cannot be read, Orbax closes its event loop while TensorStore is still
# reading the others, whose threads then complain to nobody in particular.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

POSITIONS = 8
"""In how many places of each file a bit is flipped, one at a time."""


def _anchor() -> Anchor:
    # "inline" is small enough to be kept in an index node, "big" has a data file to itself.
    key = jax.random.key(0)
    params = {
        "inline": jnp.arange(3.0),
        "half": jnp.full((4, 10), 0.1, jnp.bfloat16),
        "big": jax.random.normal(key, (128, 128)),
    }
    return Anchor(params, jax.tree.map(lambda leaf: jnp.abs(leaf).astype(jnp.float32), params))


ANCHOR = _anchor()


def _save(store: AnchorStore, task: str, anchor: Anchor = ANCHOR) -> None:
    store.save(task, anchor, objective="squared_l2_norm", num_samples=8)


def _same(one: Anchor, other: Anchor) -> bool:
    return jax.tree.all(
        jax.tree.map(lambda a, b: np.asarray(a).tobytes() == np.asarray(b).tobytes(), one, other)
    )


@pytest.fixture
def two_tasks(tmp_path):
    """A store of two tasks; the first is damaged by the tests."""
    store = AnchorStore(tmp_path / "whole")
    _save(store, "damaged")
    _save(store, "sound")
    return tmp_path / "whole"


def _files(directory: pathlib.Path) -> list[pathlib.Path]:
    paths = sorted(path for path in (directory / "0").rglob("*") if path.is_file())
    return [path.relative_to(directory) for path in paths]


def _outcome(directory: pathlib.Path) -> str:
    """How restoring the damaged task ends: "right" and "refused" are good."""
    try:
        restored = AnchorStore(directory).restore("damaged", like=ANCHOR.params)
    except CheckpointCorruptError as error:
        return "refused" if str(directory / "0") in str(error) else f"unclear: {error}"
    return "right" if _same(restored, ANCHOR) else "wrong"


def _damaged(whole: pathlib.Path, file: pathlib.Path, content: bytes | None) -> str:
    """The outcome with `file` replaced, and whether the other task is still sound."""
    copy = whole.with_name("copy")
    shutil.copytree(whole, copy)
    if content is None:
        (copy / file).unlink()
    else:
        (copy / file).write_bytes(content)
    outcome = _outcome(copy)
    assert outcome in ("right", "refused"), f"{outcome}: {file}"
    assert _same(AnchorStore(copy).restore("sound", like=ANCHOR.params), ANCHOR)
    shutil.rmtree(copy)
    return outcome


def test_a_flipped_bit_anywhere_is_refused_or_harmless(two_tasks):
    outcomes = {}
    for file in _files(two_tasks):
        content = (two_tasks / file).read_bytes()
        for number in range(POSITIONS):
            flipped = bytearray(content)
            flipped[len(content) * (2 * number + 1) // (2 * POSITIONS)] ^= 1 << number % 8
            outcomes.setdefault(file, []).append(_damaged(two_tasks, file, bytes(flipped)))
    # Where the values themselves and our metadata are, nothing may pass.
    biggest = max(outcomes, key=lambda file: (two_tasks / file).stat().st_size)
    for file in (biggest, pathlib.Path("0/metadata/metadata")):
        assert set(outcomes[file]) == {"refused"}


@pytest.mark.parametrize("damage", ["truncated", "emptied", "lengthened", "missing"])
def test_a_file_cut_short_or_gone_is_refused_or_harmless(two_tasks, damage):
    outcomes = {}
    for file in _files(two_tasks):
        content = (two_tasks / file).read_bytes()
        replacement = {
            "truncated": content[: len(content) // 2],
            "emptied": b"",
            "lengthened": content + b"\0",
            "missing": None,
        }[damage]
        outcomes[file] = _damaged(two_tasks, file, replacement)
    if damage != "lengthened":
        assert outcomes[pathlib.Path("0/metadata/metadata")] == "refused"
        assert "refused" in {outcomes[file] for file in outcomes if "anchor" in file.parts}


def test_a_wrong_value_is_refused_by_the_leafs_digest(two_tasks):
    # Only the digest stands between this damage and the user: TensorStore reads it happily.
    file = max(_files(two_tasks), key=lambda file: (two_tasks / file).stat().st_size)
    content = bytearray((two_tasks / file).read_bytes())
    content[len(content) // 2] ^= 1
    (two_tasks / file).write_bytes(content)
    with pytest.raises(CheckpointCorruptError, match=r"\['big'\] of task 'damaged' in .* digest"):
        AnchorStore(two_tasks).restore("damaged", like=ANCHOR.params)


@pytest.mark.parametrize("folder", ["anchor", "metadata"])
def test_a_missing_folder_is_refused(two_tasks, folder):
    shutil.rmtree(two_tasks / "0" / folder)
    assert _outcome(two_tasks) == "refused"


def test_entries_exchanged_between_tasks_are_refused(two_tasks):
    other = Anchor(jax.tree.map(lambda leaf: 2 * leaf, ANCHOR.params), ANCHOR.importance)
    _save(AnchorStore(two_tasks), "other", other)
    shutil.rmtree(two_tasks / "0" / "anchor")
    shutil.copytree(two_tasks / "2" / "anchor", two_tasks / "0" / "anchor")
    assert _outcome(two_tasks) == "refused"


def test_damaged_metadata_stops_listing_and_saving_but_not_the_other_tasks(two_tasks):
    (two_tasks / "0" / "metadata" / "metadata").write_text("{")
    store = AnchorStore(two_tasks)
    for action in (store.tasks, lambda: _save(store, "new"), lambda: store.delete("damaged")):
        with pytest.raises(CheckpointCorruptError, match="cannot read the metadata in") as caught:
            action()
        assert isinstance(caught.value.__cause__, json.JSONDecodeError)
    assert store.latest() == "sound"
    assert store.metadata("sound")["task"] == "sound"
    shutil.rmtree(two_tasks / "0")  # as the message says
    assert store.tasks() == ["sound"]
    _save(store, "new")


def test_a_task_with_damaged_arrays_can_be_deleted(two_tasks):
    shutil.rmtree(two_tasks / "0" / "anchor")
    store = AnchorStore(two_tasks)
    assert store.tasks() == ["damaged", "sound"]
    store.delete("damaged")
    assert store.tasks() == ["sound"]


def test_what_another_program_keeps_there_is_left_alone(two_tasks):
    (two_tasks / "notes").mkdir()
    (two_tasks / "my.orbax-checkpoint-tmp").mkdir()
    (two_tasks / "README.md").write_text("mine")
    store = AnchorStore(two_tasks)
    _save(store, "new")
    assert store.tasks() == ["damaged", "sound", "new"]
    for name in ("notes", "my.orbax-checkpoint-tmp", "README.md"):
        assert (two_tasks / name).exists()


def test_a_numbered_folder_that_is_no_entry_is_refused(two_tasks):
    (two_tasks / "7").mkdir()
    with pytest.raises(CheckpointCorruptError, match="7"):
        AnchorStore(two_tasks).tasks()


KILLED = """
import os, pathlib, signal, sys, threading, time
import jax.numpy as jnp
from mas_jax.anchor import Anchor
from mas_jax.store import AnchorStore

directory, when = pathlib.Path(sys.argv[1]), sys.argv[2]
die = lambda *args, **kwargs: os.kill(os.getpid(), signal.SIGKILL)

def watch():
    while not any(directory.glob("*.orbax-checkpoint-tmp/*")):
        time.sleep(0.0005)
    die()

if when == "writing":
    threading.Thread(target=watch, daemon=True).start()
else:  # everything is written, and the entry not yet in its place
    os.rename = os.replace = die
params = {"w": jnp.ones((3000, 3000))}
AnchorStore(directory).save("killed", Anchor(params, params), objective="l2_norm", num_samples=1)
"""


@pytest.mark.parametrize("when", ["writing", "committing"])
def test_a_save_that_is_killed_leaves_the_older_tasks_and_the_next_save_works(two_tasks, when):
    process = subprocess.run([sys.executable, "-c", KILLED, str(two_tasks), when], check=False)
    assert process.returncode == -signal.SIGKILL
    store = AnchorStore(two_tasks)
    assert store.tasks() == ["damaged", "sound"]
    assert list(two_tasks.glob("*.orbax-checkpoint-tmp"))
    assert _same(store.restore("sound", like=ANCHOR.params), ANCHOR)
    assert list(two_tasks.glob("*.orbax-checkpoint-tmp")), "a reader removed something"
    _save(store, "killed")
    assert _same(store.restore("killed", like=ANCHOR.params), ANCHOR)
    assert {path.name for path in two_tasks.iterdir()} == {".lock", "0", "1", "2"}


def test_a_delete_that_is_killed_leaves_no_half_task(two_tasks):
    # Orbax renames an entry away before its files are removed; the kill comes in between.
    (two_tasks / ".deleted").mkdir()
    os.rename(two_tasks / "0", two_tasks / ".deleted" / "0")
    (two_tasks / ".deleted" / "0" / "metadata" / "metadata").unlink()
    store = AnchorStore(two_tasks)
    assert store.tasks() == ["sound"]
    _save(store, "damaged")
    assert store.tasks() == ["sound", "damaged"]
    assert {path.name for path in two_tasks.iterdir()} == {".lock", "1", "2"}


FULL_DISK = """
import resource, signal, sys
import jax.numpy as jnp
from mas_jax.anchor import Anchor
from mas_jax.errors import StoreNotWritableError
from mas_jax.store import AnchorStore

store = AnchorStore(sys.argv[1])
params = {"w": jnp.ones((500, 500))}
save = lambda: store.save("big", Anchor(params, params), objective="l2_norm", num_samples=1)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # a write beyond the limit fails instead
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
try:
    save()
except StoreNotWritableError as error:
    assert "'big' was not saved" in str(error) and "File too large" in str(error), error
else:
    raise AssertionError("the save did not fail")
assert store.tasks() == ["damaged", "sound"]
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
save()
assert store.tasks() == ["damaged", "sound", "big"]
"""


def test_a_write_that_the_system_refuses_is_an_error_and_the_next_save_works(two_tasks):
    subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(two_tasks)], check=True, capture_output=True
    )
    assert _same(AnchorStore(two_tasks).restore("sound", like=ANCHOR.params), ANCHOR)
    # 2 is where the threads of the failed write may still have been writing.
    assert {path.name for path in two_tasks.iterdir()} == {".lock", "0", "1", "3"}


WRITER = """
import sys
import jax.numpy as jnp
from mas_jax.anchor import Anchor
from mas_jax.store import AnchorStore

store = AnchorStore(sys.argv[1])
for number in range(8):
    params = {"w": jnp.full((300, 300), number, jnp.float32)}
    store.save(f"task {number}", Anchor(params, params), objective="l2_norm", num_samples=number)
    if number % 2:
        store.delete(f"task {number - 1}")
    print(number, flush=True)
"""


def test_a_reader_sees_whole_tasks_while_another_process_writes_and_deletes(tmp_path):
    store, like = AnchorStore(tmp_path), {"w": jnp.zeros((300, 300))}
    seen = set()
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.DEVNULL
    ) as writer:
        while writer.poll() is None:
            latest = store.latest()
            if latest is not None and latest not in seen:
                restored = store.restore(latest, like=like)
                assert (restored.params["w"] == int(latest.removeprefix("task "))).all()
                seen.add(latest)
    assert writer.returncode == 0
    assert store.tasks() == ["task 1", "task 3", "task 5", "task 7"]
    assert seen
