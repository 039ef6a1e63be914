"""What a network of each scenario is asked, what it sees, and what of it is shared."""

import dataclasses
from pathlib import Path
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.data.types import Examples, Task
from experiments.learning import Start, train
from experiments.methods import MAS, METHODS
from experiments.networks import MLP, Network, Scenario, masked_logits
from experiments.setup import Setup, output_labels, prepare, relabelled
from experiments.training import Rates, Recorded
from tests import tiny
from tests.watched import StopError, learn, setup_of, without_times

FINETUNE = METHODS["finetune"]
SCENARIOS: tuple[Scenario, ...] = ("task", "domain", "class")
# The tiny tasks are (4, 1), (2, 3) and (0, 5).
LABELS = {
    "task": [[0, 1, 2, 3, 4, 5]] * 3,
    "domain": [[4, 1], [2, 3], [0, 5]],
    "class": [[0, 1, 2, 3, 4, 5]] * 3,
}
HEADS = {
    "task": [{1, 4}, {2, 3}, {0, 5}],
    "domain": [{0, 1}] * 3,
    "class": [{0, 1, 2, 3, 4, 5}] * 3,
}


def params_of(setup: Setup) -> Any:
    return setup.learner.init(jax.random.key(0), setup.evaluation)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_outputs_stand_for_classes_and_answer_for_tasks(scenario: Scenario) -> None:
    setup = setup_of(FINETUNE, scenario)
    assert [list(labels) for labels in setup.labels] == LABELS[scenario]
    heads = [set(np.flatnonzero(row).tolist()) for row in setup.network.heads]
    assert heads == HEADS[scenario]
    trained = [set(np.flatnonzero(row).tolist()) for row in setup.trained_heads]
    assert trained == HEADS[scenario]
    assert params_of(setup)["heads"]["kernel"].shape == (6, len(LABELS[scenario][0]))


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_labels_are_the_numbers_of_the_outputs(scenario: Scenario) -> None:
    setup = setup_of(FINETUNE, scenario)
    for number, task in enumerate(tiny.tasks()):
        for part, original in (
            (setup.training(number), task.train),
            (setup.measured(number), task.train),
            (setup.tested(number), task.test),
        ):
            size = len(original.labels)
            assert int(part.size) == size
            names = np.array(LABELS[scenario][number])[np.asarray(part.labels)[:size]]
            np.testing.assert_array_equal(names, original.labels)
            np.testing.assert_array_equal(part.batch.inputs[:size], original.inputs)
            assert set(np.asarray(part.batch.tasks).tolist()) == {number}


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_outputs_that_do_not_answer_are_0_and_out_of_the_running(scenario: Scenario) -> None:
    setup = setup_of(FINETUNE, scenario)
    network, params = setup.network, params_of(setup)
    batch = setup.evaluation.batch
    every = np.asarray(network.all_outputs(params, batch))
    outputs, logits = (np.asarray(f(params, batch)) for f in (network.outputs, network.logits))
    lowest = np.finfo(np.float32).min
    for row, task in enumerate(np.asarray(batch.tasks)):
        for c in range(every.shape[1]):
            answers = c in HEADS[scenario][task]
            assert outputs[row, c] == (every[row, c] if answers else 0.0)
            assert logits[row, c] == (every[row, c] if answers else lowest)


def test_masked_logits_have_finite_gradients() -> None:
    visible = jnp.array([[True, False]])

    def loss_fn(outputs: jax.Array) -> jax.Array:
        return -jax.nn.log_softmax(masked_logits(outputs, visible))[0, 0]

    np.testing.assert_array_equal(jax.grad(loss_fn)(np.ones((1, 2), np.float32)), [[0.0, 0.0]])


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_what_tasks_share_is_anchored(scenario: Scenario, tmp_path: Path) -> None:
    end = learn(setup_of(MAS(), scenario, epochs=1), tmp_path, stop_after=1).ends[0]
    paths = {jax.tree_util.keystr(path) for path, _ in jax.tree.leaves_with_path(end.after.params)}
    trunk = {"['trunk']['hidden_0']['bias']", "['trunk']['hidden_0']['kernel']"}
    heads = {"['heads']['bias']", "['heads']['kernel']"}
    assert paths == (trunk if scenario == "task" else trunk | heads)


def test_features_and_heads_make_the_network() -> None:
    network = Network(MLP((5, 4)), ((True, True, True),))
    batch = setup_of(FINETUNE).evaluation.batch
    params = network.init(jax.random.key(0), batch)
    features = network.features(params, batch)
    assert features.shape == (len(batch.tasks), 4)
    np.testing.assert_array_equal(
        network.classify(params, features), network.all_outputs(params, batch)
    )
    # By hand, in float64.
    h = np.asarray(batch.inputs, np.float64)
    for index in range(2):
        layer = params["trunk"][f"hidden_{index}"]
        h = np.maximum(h @ np.float64(layer["kernel"]) + np.float64(layer["bias"]), 0)
    np.testing.assert_allclose(features, h, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_joint_training_solves_each_scenario(scenario: Scenario, tmp_path: Path) -> None:
    # Which of six classes is the hardest question; for round clusters of one size the nearest
    # mean answers it best (0.96 here). With the task known, or within it, there is less to tell.
    train, test = tiny.splits()
    means = np.stack([train.inputs[train.labels == label].mean(axis=0) for label in range(6)])
    nearest = np.square(test.inputs[:, None] - means[None]).sum(-1).argmin(axis=1)
    best = (nearest == test.labels).mean()
    assert best > 0.95
    setup = setup_of(METHODS["joint"], scenario, hidden_sizes=(32,), epochs=15)
    record = learn(setup, tmp_path).record
    assert np.mean(record.accuracy[-1]) > best - 0.05


def test_without_protection_classes_of_earlier_tasks_are_forgotten(tmp_path: Path) -> None:
    record = learn(setup_of(FINETUNE, "class", epochs=15), tmp_path).record
    assert record.accuracy[-1][0] < 0.3
    assert record.accuracy[-1][2] > 0.9


def test_class_accuracy_is_recorded_in_the_order_of_the_outputs(tmp_path: Path) -> None:
    setup = setup_of(FINETUNE, class_accuracy=True)
    record = learn(setup, tmp_path).record
    assert [len(row) for row in record.class_accuracy] == [6, 6, 6]
    for per_task, per_class in zip(record.accuracy, record.class_accuracy, strict=True):
        # Twenty test examples of each class.
        means = [np.mean([per_class[c] for c in group]) for group in tiny.Tiny().classes]
        np.testing.assert_allclose(means, per_task, rtol=1e-5)
    assert learn(setup_of(FINETUNE), tmp_path / "without").record.class_accuracy == ()


# Labels


@pytest.mark.parametrize("known", [[4, 1], [1, 4], [9, 4, 0, 1]])
def test_relabelled_finds_classes_in_any_order(known: list[int]) -> None:
    task = relabelled(tiny.tasks(validation_fraction=0.2)[0], known)
    for part in ("train", "validation", "test"):
        original = getattr(tiny.tasks(validation_fraction=0.2)[0], part).labels
        renamed = getattr(task, part).labels
        assert renamed.dtype == np.int32
        assert [known[label] for label in renamed] == original.tolist()


def with_classes(*groups: tuple[int, ...]) -> list[Task]:
    """Tasks of which only the classes matter."""
    (task, *_) = tiny.tasks()
    return [task._replace(name="/".join(map(str, group)), classes=group) for group in groups]


def test_a_sequence_of_one_task_is_refused() -> None:
    with pytest.raises(ValueError, match=r"at least two tasks, got 1: .* nothing to forget"):
        prepare(tiny.Tiny(), FINETUNE, tiny.tasks()[:1])


@pytest.mark.parametrize("scenario", ["task", "class"])
def test_classes_in_two_tasks_are_refused_but_in_domains(scenario: Scenario) -> None:
    tasks = with_classes((4, 1), (1, 4))
    with pytest.raises(ValueError, match=rf"--scenario {scenario} needs classes .* domain"):
        prepare(tiny.Tiny(scenario=scenario), FINETUNE, tasks)
    assert output_labels("domain", tasks) == [[4, 1], [1, 4]]


def test_domains_of_different_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"same number of classes, got 2 \(4/1\), 3 \(0/1/2\)"):
        output_labels("domain", with_classes((4, 1), (0, 1, 2)))


# Warm-up


def test_warm_up_trains_the_new_head_alone() -> None:
    setup = setup_of(FINETUNE, head_warmup_epochs=4)
    before = params_of(setup)
    examples = setup.measured(1)
    features = setup.learner.features(before, examples)
    heads, _ = setup.learner.warm_up_heads(
        before["heads"],
        setup.base.init(before["heads"]),
        features,
        examples,
        jax.random.key(0),
        0.05,
    )
    moved = np.asarray(heads["kernel"] != before["heads"]["kernel"]).any(axis=0)
    assert np.flatnonzero(moved).tolist() == [2, 3]
    after = {**before, "heads": heads}
    accuracy = [setup.learner.accuracy(params, examples) for params in (before, after)]
    assert accuracy[1].per_task[1] > accuracy[0].per_task[1]


def test_warm_up_comes_before_the_epochs_of_a_task() -> None:
    # By hand: the warm-up's epochs, then the task learned by a run that has none.
    with_warm_up = setup_of(FINETUNE, head_warmup_epochs=2)
    without = setup_of(FINETUNE)
    params = params_of(without)
    opt_state = without.learner.init_optimizer(params)
    start = Start(1, 0, params, opt_state, None, without.training(1), Recorded(), jax.random.key(1))
    rates = Rates(0.05, 0.0)
    got = train(with_warm_up, start, rates, lambda _: None)

    examples = without.measured(1)
    features = without.learner.features(params, examples)
    heads, state = params["heads"], without.base.init(params["heads"])
    for epoch in range(2):
        key = jax.random.fold_in(start.key, 2**30 + epoch)
        heads, state = without.learner.warm_up_heads(heads, state, features, examples, key, 0.05)
    params = {**params, "heads": heads}
    expected = train(without, start._replace(params=params), rates, lambda _: None)
    chex.assert_trees_all_equal(got.params, expected.params)
    assert got.losses == expected.losses
    assert got.losses[0] < train(without, start, rates, lambda _: None).losses[0]


def test_one_head_for_all_tasks_is_warmed_up_before_the_first_alone() -> None:
    runs = []
    for epochs in (0, 2):
        setup = setup_of(FINETUNE, scenario="class", head_warmup_epochs=epochs)
        params = params_of(setup)
        opt_state = setup.learner.init_optimizer(params)
        start = Start(
            0, 0, params, opt_state, None, setup.training(0), Recorded(), jax.random.key(1)
        )
        later = start._replace(task=1, examples=setup.training(1))
        rates = Rates(0.05, 0.0)
        runs.append([train(setup, each, rates, lambda _: None).losses for each in (start, later)])
    (first, second), (first_warmed, second_warmed) = runs
    assert first_warmed[0] < first[0]
    assert second_warmed == second


def test_a_warmed_up_run_goes_on_from_a_stop_bit_for_bit(tmp_path: Path) -> None:
    setup = setup_of(MAS(), head_warmup_epochs=1)
    whole = learn(setup, tmp_path / "whole").record
    assert [len(row) for row in whole.loss] == [3, 3, 3]
    with pytest.raises(StopError):
        learn(setup, tmp_path / "stopped", stop_at=(1, 1))
    resumed = learn(setup, tmp_path / "stopped").record
    assert without_times(resumed) == without_times(whole)


def test_warm_up_is_on_the_new_tasks_examples_alone_in_joint_training() -> None:
    setup = setup_of(METHODS["joint"], head_warmup_epochs=1)
    assert set(np.asarray(setup.measured(2).batch.tasks).tolist()) == {2}
    assert int(setup.measured(2).size) == 75


def test_an_example_without_an_output_is_named() -> None:
    first, *others = tiny.tasks()
    extra = Examples(first.train.inputs[:1], np.array([3], np.int32))
    train = Examples(*(np.concatenate(pair) for pair in zip(first.train, extra, strict=True)))
    config = tiny.Tiny()
    with pytest.raises(ValueError, match="'4/1' has train examples of class 3, for which there"):
        prepare(config, config.methods["mas"], [first._replace(train=train), *others])


def test_an_unknown_scenario_is_answered_with_the_nearest() -> None:
    with pytest.raises(ValueError, match="no scenario is called 'tasks'; did you mean 'task'"):
        dataclasses.replace(tiny.Tiny(), scenario="tasks")
