"""A store of the version that wrote tests/golden loads for ever, bit for bit."""

import hashlib
import pathlib
import shutil

import jax
import numpy as np
import optax
import pytest

from mas_jax.importance_codes import decoded, encoded
from mas_jax.store import AnchorStore
from tests import golden_store

GOLDEN = pathlib.Path(__file__).parent / "golden"

DIGESTS = {
    "birds": "522fdd68605e5e8689476558a4dc81b62009c179c02634555be69ab7e6597695",
    "cars": "0ce34ad911985b70ee211ccb7220a5bce83af41072970b1573e2be868809e4e1",
    "flowers": "ac2d0df659a3d257fec67d110985940945d07d36d4bb9aa0391323092dd0043f",
}
"""The SHA-256 of all leaves' bytes, θ* before Ω, each by name: of what is restored."""


@pytest.fixture
def store(tmp_path):
    return AnchorStore(shutil.copytree(GOLDEN, tmp_path / "golden"))


def test_its_tasks_are_those_it_was_made_with(store):
    assert store.tasks() == list(golden_store.CODES) == ["birds", "cars", "flowers"]
    for task in golden_store.CODES:
        metadata = store.metadata(task)
        assert metadata["objective"] == golden_store.OBJECTIVE
        assert metadata["num_samples"] == golden_store.NUM_SAMPLES
        assert metadata["extra"] == golden_store.EXTRA
        assert metadata["masked"] == ["['head']['kernel']"]


@pytest.mark.parametrize("task", golden_store.CODES)
def test_it_loads_bit_for_bit(store, task):
    restored = store.restore(task, like=golden_store.like())
    assert restored.params["head"] == {"kernel": optax.MaskedNode()}
    wanted = golden_store.anchor(task)
    state = hashlib.sha256()
    for name, leaf in sorted(wanted.params.items()):
        if name == "head":
            continue
        assert restored.params[name].dtype == leaf.dtype
        assert np.asarray(restored.params[name]).tobytes() == leaf.tobytes(), name
        code = golden_store.CODES[task]
        omega = decoded(*encoded(wanted.importance[name], code), code)
        assert np.asarray(restored.importance[name]).tobytes() == omega.tobytes(), name
        state.update(np.asarray(restored.params[name]).tobytes())
        state.update(np.asarray(restored.importance[name]).tobytes())
    # Literal, since the code that decodes Ω is also what the values above come from.
    assert state.hexdigest() == DIGESTS[task]


def test_a_task_can_be_added_to_it(store):
    anchor = jax.tree.map(np.asarray, golden_store.anchor("birds"))
    store.save("new", anchor, objective="x", num_samples=1)
    assert store.tasks() == ["birds", "cars", "flowers", "new"]


def test_it_is_small():
    assert sum(path.stat().st_size for path in GOLDEN.rglob("*") if path.is_file()) < 60_000
