"""The benchmark of l-MAS is a command: it has to run, and to measure and print what it says."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.benchmarks import local, models, record
from experiments.benchmarks.models import MLP, Network

TINY = Network("tiny", MLP((5,), 3), (6,), 4)


def test_it_prints_and_records(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(models.SMALL, "tiny", TINY)
    out = tmp_path / "local.json"
    options = local.Options(models=("tiny",), repeats=2, timing_seconds=0.0, out=out)
    local.main(options)
    printed = capsys.readouterr().out
    network = record.read(out)["networks"]["tiny"]
    assert network["parameters"] == 6 * 5 + 5 + 5 * 3 + 3
    (turn,) = network["turns"]
    assert {name: len(times) for name, times in turn.items()} == dict.fromkeys(local.PASSES, 2)
    assert printed.splitlines()[2].startswith("| tiny, 4")
    local.main(local.Options(read=out))
    assert capsys.readouterr().out == printed


def test_ratios_are_what_they_are_called() -> None:
    network = {
        "title": "tiny",
        "batch_size": 4,
        "memory": {"plain": {"output": 2}, "global": {"output": 4}, "local": {"output": 3}},
        "turns": [{"plain": [1.0], "global": [2.0], "local": [1.5]}],
    }
    machine = {"device": "cpu", "platform": "cpu", "cpu": "a processor", "cores": 2}
    versions = {"jax": "1", "jaxlib": "2", "python": "3"}
    report = {"networks": {"tiny": network}, "machine": machine, "versions": versions}
    line = local.tables(report | {"options": {"repeats": 1}}).splitlines()[2]
    cells = [cell.split(" (")[0].strip() for cell in line.split("|")[2:6]]
    assert cells == ["0.750", "1.500", "2.000", "0.750"]


def test_the_local_pass_is_that_of_one_layer_where_there_is_one() -> None:
    # One linear layer: the local Ω is the global one.
    @jax.tree_util.Partial
    def linear(params: dict[str, jax.Array], x: jax.Array) -> jax.Array:
        return x @ params["w"]

    params, batch = {"w": jnp.array([[1.0], [2.0]])}, jnp.array([[1.0, 0.0], [0.0, -1.0]])
    compiled = local.compiled_passes(linear, params, batch)
    # Outputs 1 and −2: Ω is the mean of 2 |y| |x|.
    for name in ("global", "local"):
        np.testing.assert_allclose(compiled[name].run()["w"], [[1.0], [2.0]], rtol=1e-6)
    np.testing.assert_allclose(compiled["plain"].run()["w"], [[1.0], [2.0]], rtol=1e-6)


def test_an_unknown_model_is_named() -> None:
    with pytest.raises(ValueError, match="no model mpl: there are mlp, "):
        local.chosen(local.Options(models=("mpl",)))
