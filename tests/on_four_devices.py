"""Experiments on a mesh of four devices: run by test_devices.py, which makes these."""

import dataclasses
import functools
import re
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

import mas_jax
from experiments import checkpoint, devices, results, sequence
from experiments.methods import Method, Stage
from experiments.methods.anchored import BATCH_SIZE, measuring_with, stream_of
from experiments.networks import Network
from experiments.results import SeedRecord
from experiments.sequence import Epoch
from experiments.setup import Setup, prepare
from experiments.training import Rates, Recorded
from tests import tiny


class Stepwise(tiny.Tiny):
    """The same, its steps called from the host."""

    def network(self, heads: Any, tasks: Any) -> Network:
        return dataclasses.replace(super().network(heads, tasks), stepwise=True)


MESHES = {"one": None, "all": devices.all_devices()}


class StopError(Exception):
    """What a test stops a run with."""


@functools.cache
def prepared(
    method: str, devices_used: str, batch_size: int = 16, config_class: type[tiny.Tiny] = tiny.Tiny
) -> Setup:
    """Compiled once for all tests."""
    config = config_class(batch_size=batch_size)
    return prepare(config, config.methods[method], tiny.tasks(), MESHES[devices_used])


def state_of(folder: Path) -> tuple[Any, SeedRecord]:
    """The parameters and the record in the folder of a seed."""
    state = checkpoint.load(folder / sequence.STATE_FILE)
    assert state is not None
    params, _, record, _ = state
    return params, record


def assert_agree(got: Any, expected: Any) -> None:
    """Equal to within 1e-5 of each leaf's largest entry."""
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-5 * np.abs(b).max()),
        got,
        expected,
    )


def assert_same_run(folder: Path, expected: Path) -> None:
    """That both folders hold the same finished run, but for rounding."""
    (params, record), (expected_params, expected_record) = state_of(folder), state_of(expected)
    assert_agree(params, expected_params)
    assert record.accuracy == expected_record.accuracy
    assert record.untrained == expected_record.untrained
    np.testing.assert_allclose(record.loss, expected_record.loss, rtol=1e-5)
    if record.importance:
        stores = [mas_jax.AnchorStore(path / "anchors") for path in (folder, expected)]
        assert_agree(*[store.restore("0/5", like=params) for store in stores])


def epoch_arguments(setup: Setup, params: Any, opt_state: Any, epoch: int = 0) -> tuple[Any, ...]:
    """What an epoch of the first task is given."""
    rates = Rates(0.1 / (epoch + 1), 0.2)
    data = (setup.training(0), Recorded(), jax.random.key(epoch))
    return params, opt_state, *data, rates, setup.trained_heads[0]


def test_there_are_four_devices() -> None:
    assert jax.device_count() == 4


# Four devices can share 16 rows equally, and 13 not.
@pytest.mark.parametrize("config_class", [tiny.Tiny, Stepwise])
@pytest.mark.parametrize("batch_size", [16, 13])
def test_all_devices_learn_what_one_learns(
    tmp_path: Path, batch_size: int, config_class: type[tiny.Tiny]
) -> None:
    for used in MESHES:
        setup = prepared("mas", used, batch_size, config_class)
        sequence.learn(setup, 0, tmp_path / used, lambda _: None)
    assert_same_run(tmp_path / "all", tmp_path / "one")


@pytest.mark.parametrize("first", ["one", "all"])
def test_a_stopped_run_goes_on_with_other_devices(tmp_path: Path, first: str) -> None:
    then = {"one": "all", "all": "one"}[first]

    def stop(epoch: Epoch) -> None:
        if epoch.task == 2:
            raise StopError

    with pytest.raises(StopError):
        sequence.learn(prepared("mas", first), 0, tmp_path / "stopped", stop)
    tasks_learned: list[int] = []
    sequence.learn(
        prepared("mas", then),
        0,
        tmp_path / "stopped",
        lambda epoch: tasks_learned.append(epoch.task),
    )
    assert tasks_learned == [2, 2, 2]
    sequence.learn(prepared("mas", "one"), 0, tmp_path / "whole", lambda _: None)
    assert_same_run(tmp_path / "stopped", tmp_path / "whole")


def test_each_device_computes_its_share_of_a_batch() -> None:
    setup = prepared("mas", "all")
    params = setup.learner.init(jax.random.key(0), setup.evaluation)
    opt_state = setup.learner.init_optimizer(params)
    train_epoch: Any = setup.learner.train_epoch
    text = train_epoch.lower(*epoch_arguments(setup, params, opt_state)).compile().as_text()
    assert "all-reduce" in text
    for collective in ("all-gather", "all-to-all", "collective-permute", "reduce-scatter"):
        assert collective not in text
    # Batches of 16 examples with 8 inputs; 16 / 4 = 4.
    shapes = set(re.findall(r"f32\[(\d+),8\]", text))
    assert "4" in shapes
    assert "16" not in shapes


def test_each_device_measures_importance_on_its_share() -> None:
    setup = prepared("mas", "all")
    params = setup.learner.init(jax.random.key(0), setup.evaluation)
    method: Any = setup.method
    measuring = measuring_with(method.measure, setup.network, setup.mesh)
    part, counted = setup.measured(0), np.ones(6, np.float32)
    stream = stream_of(part, counted, jax.random.key(0), BATCH_SIZE, 1)
    add: Any = measuring.add
    text = add.lower(measuring.init(params), 0, stream, part, params).compile().as_text()
    assert text is not None
    # Steps of 200 samples.
    shapes = set(re.findall(r"f32\[(\d+),8\]", text))
    assert "50" in shapes
    assert "all-reduce" in text


def test_methods_are_told_the_mesh(tmp_path: Path) -> None:
    meshes = []

    class Watching(Method):
        def end_task(self, memory: Any, stage: Stage) -> Any:
            meshes.append(stage.mesh)
            return memory

    setup = prepared("mas", "all")._replace(method=Watching())
    sequence.learn(setup, 0, tmp_path, lambda _: None)
    assert meshes == [MESHES["all"]] * 3


def test_parameters_and_optimizer_state_are_whole_everywhere_and_compile_once() -> None:
    setup = prepared("mas", "all")
    params = setup.learner.init(jax.random.key(0), setup.evaluation)
    opt_state = setup.learner.init_optimizer(params)
    for epoch in range(2):
        for leaf in jax.tree.leaves((params, opt_state)):
            assert leaf.sharding.is_fully_replicated
            assert len(leaf.sharding.device_set) == 4
        params, opt_state, _ = setup.learner.train_epoch(
            *epoch_arguments(setup, params, opt_state, epoch)
        )
    train_epoch: Any = setup.learner.train_epoch
    assert train_epoch._cache_size() == 1


def test_a_record_says_how_many_devices_made_it() -> None:
    machines = [results.provenance("", mesh)["machine"] for mesh in MESHES.values()]
    assert [machine["devices"] for machine in machines] == [1, 4]
    assert [machine["processes"] for machine in machines] == [1, 1]
