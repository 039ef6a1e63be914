"""Two writers and a reader at once, in processes of their own: refusals, and no loss."""

import subprocess
import sys

import jax.numpy as jnp
import pytest

from mas_jax.anchor import Anchor
from mas_jax.entries import Entries
from mas_jax.errors import TaskNotFoundError
from mas_jax.lock import writer_lock
from mas_jax.store import AnchorStore

# See test_store_damage.py.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

WRITER = """
import sys, time
import jax.numpy as jnp
from mas_jax.anchor import Anchor
from mas_jax.errors import StoreLockedError
from mas_jax.store import AnchorStore

store, name, refused = AnchorStore(sys.argv[1]), sys.argv[2], False
sys.stdin.readline()
for number in range(3):
    params = {"w": jnp.full(2000, number, jnp.float32)}
    while True:
        try:
            store.save(f"{name} {number}", Anchor(params, params), objective="x", num_samples=1)
            break
        except StoreLockedError as error:
            assert "is being written to by" in str(error), error
            if not refused:
                print("refused", flush=True)
            refused = True
            time.sleep(0.002)
"""


def test_of_two_writers_one_is_refused_and_nothing_that_was_acknowledged_is_lost(tmp_path):
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path), name],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for name in "ab"
    ]  # fmt: skip
    # A third one is at work until each of them has been refused.
    with writer_lock(tmp_path):
        for writer in writers:
            assert writer.stdin is not None
            assert writer.stdout is not None
            writer.stdin.write("go\n")
            writer.stdin.flush()
            assert writer.stdout.readline() == "refused\n"
    for writer in writers:
        writer.communicate(timeout=120)
    assert [writer.returncode for writer in writers] == [0, 0]
    store = AnchorStore(tmp_path)
    names = [f"{name} {number}" for name in "ab" for number in range(3)]
    assert sorted(store.tasks()) == names
    for name in names:
        restored = store.restore(name, like={"w": jnp.zeros(2000)})
        assert (restored.params["w"] == int(name[-1])).all()


def test_deleted_and_saved_again_while_it_is_read_is_the_new_one(tmp_path, monkeypatch):
    store, like = AnchorStore(tmp_path), {"w": jnp.zeros(3)}

    def save(value: float) -> None:
        params = {"w": jnp.full(3, value)}
        store.save("birds", Anchor(params, params), objective="x", num_samples=1)

    save(1.0)
    read, left = Entries._arrays, [1]

    def exchanged(*arguments):
        # Between its metadata and its arrays; the same number is given to the next entry.
        if left:
            left.pop()
            store.delete("birds")
            save(2.0)
        return read(*arguments)

    monkeypatch.setattr(Entries, "_arrays", exchanged)
    restored = store.restore("birds", like=like)
    assert {float(value) for tree in restored for value in tree["w"]} == {2}


def test_deleted_while_it_is_read_is_not_found(tmp_path, monkeypatch):
    store = AnchorStore(tmp_path)
    params = {"w": jnp.ones(3)}
    store.save("birds", Anchor(params, params), objective="x", num_samples=1)
    read = Entries._arrays

    def deleted(*arguments):
        if "birds" in store.tasks():
            store.delete("birds")
        return read(*arguments)

    monkeypatch.setattr(Entries, "_arrays", deleted)
    with pytest.raises(TaskNotFoundError):
        store.restore("birds", like=params)
