"""A save onto a disk that is really full: a small tmpfs, in a mount namespace of its own."""

import shutil
import subprocess
import sys

import pytest

SCRIPT = """
import pathlib, sys
import jax.numpy as jnp
from mas_jax.anchor import Anchor
from mas_jax.errors import StoreNotWritableError
from mas_jax.store import AnchorStore

def anchor(size):
    params = {"w": jnp.arange(float(size))}
    return Anchor(params, params)

directory = pathlib.Path(sys.argv[1])
store = AnchorStore(directory / "store")
store.save("small", anchor(1000), objective="x", num_samples=1)
try:
    store.save("large", anchor(1_000_000), objective="x", num_samples=1)
except StoreNotWritableError as error:
    assert "No space left on device" in str(error), error
else:
    raise AssertionError("eight megabytes on a disk of two were acknowledged")
assert store.tasks() == ["small"]
restored = store.restore("small", like=anchor(1000).params)
assert (restored.params["w"] == jnp.arange(1000.0)).all()
assert {path.name for path in (directory / "store").iterdir()} == {".lock", "0"}
store.save("next", anchor(1000), objective="x", num_samples=1)

filler = directory / "filler"
with filler.open("wb", buffering=0) as file:
    try:
        while file.write(bytes(4096)):
            pass
    except OSError:
        pass
try:
    store.save("nothing left", anchor(10), objective="x", num_samples=1)
except OSError as error:
    assert "No space left on device" in str(error), error
else:
    raise AssertionError("a save onto a disk without a byte left was acknowledged")
assert store.tasks() == ["small", "next"]
store.delete("small")  # is what makes room
assert store.tasks() == ["next"]
filler.unlink()
store.save("nothing left", anchor(10), objective="x", num_samples=1)
assert store.tasks() == ["next", "nothing left"]
print("done")
"""

IN_NAMESPACE = 'mount -t tmpfs -o size=2m tmpfs "$0" && exec "$@"'


def missing(folder: str) -> str | None:
    """Why there can be no small disk here; None where there can."""
    if shutil.which("unshare") is None:
        return "there is no `unshare`, with which a small disk would be mounted"
    tried = _in_small_disk(folder, ["true"])
    return None if tried.returncode == 0 else f"a tmpfs cannot be mounted: {tried.stderr.strip()}"


def _in_small_disk(folder: str, command: list[str]) -> subprocess.CompletedProcess[str]:
    """Run `command` where `folder` is a disk of two megabytes."""
    return subprocess.run(
        ["unshare", "--map-root-user", "--mount", "sh", "-c", IN_NAMESPACE, folder, *command],
        capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip


def test_a_full_disk_is_an_error_before_save_returns_and_harms_nothing_older(tmp_path):
    if reason := missing(str(tmp_path)):
        pytest.skip(reason)
    done = _in_small_disk(str(tmp_path), [sys.executable, "-c", SCRIPT, str(tmp_path)])
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.endswith("done\n")
