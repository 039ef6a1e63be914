"""A sequence learned, stopped and resumed; methods as they act in it."""

import dataclasses
import functools
from pathlib import Path
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mas_jax
from experiments import checkpoint, sequence
from experiments.methods import MAS
from experiments.results import SeedRecord
from experiments.sequence import Epoch
from experiments.setup import Setup, learning_rate, prepare
from tests import tiny


class StopError(Exception):
    """What a test stops a run with."""


@functools.cache
def prepared(method: str) -> Setup:
    """Compiled once for all tests."""
    return prepare(tiny.Tiny(), tiny.Tiny().methods[method], tiny.tasks())


def learn(
    method: str, folder: Path, *, stop_at: tuple[int, int] | None = None, seed: int = 0
) -> SeedRecord:
    def report(epoch: Epoch) -> None:
        if stop_at == (epoch.task, epoch.epoch):
            raise StopError

    return sequence.learn(prepared(method), seed, folder, report)


def without_times(record: SeedRecord) -> SeedRecord:
    return dataclasses.replace(record, seconds=())


@pytest.mark.parametrize("method", ["finetune", "joint", "mas"])
@pytest.mark.parametrize("stop_at", [(0, 1), (1, 0), (2, 2)])
def test_a_stopped_run_goes_on_to_the_same_result_bit_for_bit(
    tmp_path: Path, method: str, stop_at: tuple[int, int]
) -> None:
    whole = learn(method, tmp_path / "whole")
    with pytest.raises(StopError):
        learn(method, tmp_path / "stopped", stop_at=stop_at)
    resumed = learn(method, tmp_path / "stopped")
    assert without_times(resumed) == without_times(whole)
    states = [checkpoint.load(tmp_path / name / "state.msgpack") for name in ("whole", "stopped")]
    params = [state[0] for state in states if state is not None]
    chex.assert_trees_all_equal(*params)


def test_a_run_stopped_between_anchor_and_state_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = learn("mas", tmp_path / "whole")
    save, saved = checkpoint.save, []

    def stop_at_second(*arguments: Any) -> None:
        saved.append(arguments)
        if len(saved) == 2:
            raise StopError
        save(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save", stop_at_second)
        with pytest.raises(StopError):
            learn("mas", tmp_path / "stopped")
    assert len(mas_jax.AnchorStore(tmp_path / "stopped" / "anchors").tasks()) == 2
    resumed = learn("mas", tmp_path / "stopped")
    assert without_times(resumed) == without_times(whole)


def test_a_finished_run_is_only_read(tmp_path: Path) -> None:
    whole = learn("mas", tmp_path)
    assert learn("mas", tmp_path, stop_at=(0, 0)) == whole


def test_seeds_differ(tmp_path: Path) -> None:
    assert learn("mas", tmp_path / "0").loss != learn("mas", tmp_path / "1", seed=1).loss


def test_mas_moves_less_of_what_mattered_than_finetuning_does(tmp_path: Path) -> None:
    for method in ("mas", "finetune"):  # the first task, without an anchor, is the same for both
        learn(method, tmp_path / method)
    states = {
        name: checkpoint.load(tmp_path / name / "state.msgpack") for name in ("mas", "finetune")
    }
    params = {name: state[0] for name, state in states.items() if state is not None}
    anchor = mas_jax.AnchorStore(tmp_path / "mas" / "anchors").restore("4/1", like=params["mas"])
    moved = {name: float(mas_jax.penalty(params[name], anchor, 1.0)) for name in params}
    assert 0 < moved["mas"] < 0.5 * moved["finetune"]


def test_strength_0_is_finetuning(tmp_path: Path) -> None:
    free = prepare(tiny.Tiny(), MAS(strength=0.0), tiny.tasks())
    record = sequence.learn(free, 0, tmp_path / "free", lambda _: None)
    assert record.accuracy == learn("finetune", tmp_path / "finetune").accuracy


def test_importance_in_the_record_covers_the_trunk_alone(tmp_path: Path) -> None:
    record = learn("mas", tmp_path)
    assert set(record.importance) == {"trunk/hidden_0/bias", "trunk/hidden_0/kernel"}
    kernel = record.importance["trunk/hidden_0/kernel"]
    assert sum(kernel["counts"]) + kernel["zeros"] == 8 * 6
    assert learn("finetune", tmp_path / "finetune").importance == {}


def test_the_last_stored_anchor_adds_the_last_tasks_importance(tmp_path: Path) -> None:
    learn("mas", tmp_path)
    setup = prepared("mas")
    state = checkpoint.load(tmp_path / "state.msgpack")
    assert state is not None
    params = jax.tree.map(jnp.asarray, state[0])

    store = mas_jax.AnchorStore(tmp_path / "anchors")
    assert store.tasks() == ["4/1", "2/3", "0/5"]
    before, last = (store.restore(name, like=params) for name in ("2/3", "0/5"))
    chex.assert_trees_all_equal(last.params["trunk"], params["trunk"])

    # The last task's examples without their filling, through the library's host loop.
    real = jax.tree.map(lambda x: x[: int(setup.training(2).size)], setup.training(2).batch)
    omega = mas_jax.estimate_importance(
        setup.network.outputs, params, [real], mask={"trunk": True, "heads": False}
    )
    jax.tree.map(
        lambda a, b, c: np.testing.assert_allclose(a + b, c, rtol=1e-5),
        before.importance, omega, last.importance,
    )  # fmt: skip


def test_training_that_diverges_says_what_to_lower(tmp_path: Path) -> None:
    config = dataclasses.replace(tiny.Tiny(), learning_rate=1e30)
    setup = prepare(config, config.methods["finetune"], tiny.tasks())
    with pytest.raises(FloatingPointError, match=r"diverged: loss .* task 4/1.*--learning-rate"):
        sequence.learn(setup, 0, tmp_path, lambda _: None)


def test_a_damaged_state_is_refused_by_name(tmp_path: Path) -> None:
    learn("finetune", tmp_path)
    file = tmp_path / "state.msgpack"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(bytes(content))
    with pytest.raises(ValueError, match=r"state\.msgpack is damaged.*Remove the folder"):
        learn("finetune", tmp_path)


def test_learning_rate_falls_along_a_cosine_within_a_task() -> None:
    config = tiny.Tiny()
    rates = [learning_rate(config, 0.2, epoch, 4) for epoch in range(4)]
    # 0.2 · (1 + cos(π e / 4)) / 2 for e = 0 … 3, with cos(π/4) = 0.70711.
    np.testing.assert_allclose(rates, [0.2, 0.170711, 0.1, 0.029289], atol=1e-6)
    constant = dataclasses.replace(config, schedule="constant")
    assert [learning_rate(constant, 0.2, epoch, 4) for epoch in (0, 3)] == [0.2, 0.2]


def test_accuracy_is_measured_on_the_examples_asked_for() -> None:
    tasks = tiny.tasks(validation_fraction=0.2)
    for part in ("validation", "test"):
        config = dataclasses.replace(tiny.Tiny(), validation_fraction=0.2, evaluate_on=part)
        setup = prepare(config, config.methods["mas"], tasks)
        expected = np.concatenate([getattr(task, part).inputs for task in tasks])
        np.testing.assert_array_equal(setup.evaluation.batch.inputs, expected)
        # Nothing that is held out is trained on.
        trained = np.concatenate([setup.training(task).batch.inputs for task in range(3)])
        assert not (trained[:, None] == expected[None]).all(-1).any()


@pytest.mark.parametrize(
    ("method", "sizes"), [("finetune", [75, 75, 75]), ("joint", [75, 150, 225])]
)
def test_joint_training_sees_all_tasks_so_far(method: str, sizes: list[int]) -> None:
    training = [prepared(method).training(task) for task in range(3)]
    assert [int(examples.size) for examples in training] == sizes
    tasks_seen = [set(np.asarray(each.batch.tasks).tolist()) for each in training]
    assert tasks_seen == ([{0}, {1}, {2}] if method == "finetune" else [{0}, {0, 1}, {0, 1, 2}])


def test_seeds_start_from_different_parameters(tmp_path: Path) -> None:
    records = [learn("finetune", tmp_path / str(seed), seed=seed) for seed in (0, 1)]
    assert len(records[0].untrained) == 3
    assert records[0].untrained != records[1].untrained


def test_the_rule_adds_up_importance(tmp_path: Path) -> None:
    kernels = {}
    for rule in ("sum", "max"):
        # At strength 0 both learn the same, so that only the rule differs.
        setup = prepare(tiny.Tiny(), MAS(strength=0.0, rule=rule), tiny.tasks())
        sequence.learn(setup, 0, tmp_path / rule, lambda _: None)
        params = setup.learner.init(jax.random.key(0), setup.evaluation)
        store = mas_jax.AnchorStore(tmp_path / rule / "anchors")
        anchors = [store.restore(task, like=params) for task in store.tasks()[:2]]
        kernels[rule] = [np.asarray(a.importance["trunk"]["hidden_0"]["kernel"]) for a in anchors]
    first, both = kernels["sum"]
    expected = np.maximum(first, both - first)  # both − first is Ω of the second task
    np.testing.assert_allclose(kernels["max"][1], expected, rtol=1e-3, atol=1e-5)
