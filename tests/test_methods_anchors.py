"""What anchored methods hold on to, against float64 oracles: Ω and θ* after two tiny tasks."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
import pytest

import mas_jax
from experiments.examples import DeviceExamples
from experiments.methods import MAS, Method
from experiments.methods.alpha import AlphaMAS
from experiments.methods.anchored import task_importance
from experiments.methods.ewc import EWC, OnlineEWC
from experiments.methods.imm import IMM
from experiments.methods.l2 import L2
from experiments.methods.lmas import LocalMAS
from experiments.methods.si import SI
from experiments.networks import Scenario
from experiments.sequence import stage_at
from tests import oracle_methods as oracle
from tests.watched import End, Learned, learn, real, real_batch, seen, setup_of

STRENGTH = 0.05
Parts = Callable[[Any], list[DeviceExamples]]
NAMES = ("kernel", "bias")


@pytest.fixture(scope="module")
def two_tasks(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Method], Learned]:
    """The first two tasks of the tiny sequence, learned once by each method."""

    @functools.cache
    def learned(method: Method) -> Learned:
        setup = setup_of(method, epochs=2)
        return learn(setup, tmp_path_factory.mktemp("run"), stop_after=2)

    return learned


def trunk(tree: Any) -> dict[str, np.ndarray]:
    """The arrays of the hidden layer."""
    return {name: np.asarray(tree["trunk"]["hidden_0"][name]) for name in NAMES}


def omega_of(
    kind: str, end: End, parts: Parts = lambda stage: [stage.train], classes: Any = None
) -> oracle.Trunk:
    """Ω of one task by the oracle, over the parts' examples, of the classes given or of all."""
    examples = [real(part) for part in parts(end.stage)]
    inputs, labels = (np.concatenate(arrays) for arrays in zip(*examples, strict=True))
    kept = np.isin(labels, seen(end.stage.task) if classes is None else classes)
    network = oracle.net(end.stage.params)
    return oracle.importance(kind, network, inputs[kept], labels[kept], seen(end.stage.task))


def assert_close(got: Any, expected: Any) -> None:
    """To float32, measured against the largest entry."""
    for name in NAMES:
        scale = np.abs(expected[name]).max()
        np.testing.assert_allclose(got[name], expected[name], rtol=2e-4, atol=2e-6 * scale)


def test_every_parameter_of_the_trunk_is_held_alike_by_l2(two_tasks: Any) -> None:
    for end in two_tasks(L2(strength=STRENGTH)).ends:
        anchor = end.after
        assert all((leaf == 1).all() for leaf in jax.tree.leaves(anchor.importance))
        assert set(jax.tree.leaves(jax.tree.map(np.shape, trunk(anchor.importance)))) == {6, 8}
        assert_close(trunk(anchor.params), trunk(end.stage.params))


# Each with which examples of its stage, and which of their labels, count.
SUMMED: dict[str, tuple[Method, str, Parts, Any]] = {
    "mas": (MAS(strength=STRENGTH), "squared_norm", lambda stage: [stage.train], None),
    "test": (MAS(strength=STRENGTH, data="test"), "squared_norm", lambda s: [s.test], None),
    "both": (
        MAS(strength=STRENGTH, data="both"),
        "squared_norm",
        lambda s: [s.train, s.test],
        None,
    ),
    "vector": (MAS(strength=STRENGTH, output="vector"), "vector", lambda s: [s.train], None),
    "vector_l1": (
        MAS(strength=STRENGTH, output="vector_l1"),
        "vector_l1",
        lambda s: [s.train],
        None,
    ),
    # Class 4 is in the first task; in the second, which has none of these, all count.
    "only": (MAS(strength=STRENGTH, only=(4,)), "squared_norm", lambda s: [s.train], [4, 2, 3]),
    "local": (LocalMAS(strength=STRENGTH), "local", lambda stage: [stage.train], None),
    "local, test": (LocalMAS(strength=STRENGTH, data="test"), "local", lambda s: [s.test], None),
}


@pytest.mark.parametrize("name", SUMMED)
def test_importance_is_the_oracles_summed_over_tasks(two_tasks: Any, name: str) -> None:
    method, kind, parts, classes = SUMMED[name]
    first, second = two_tasks(method).ends
    omegas = [omega_of(kind, end, parts, classes) for end in (first, second)]
    assert_close(trunk(first.after.importance), omegas[0])
    both = {key: omegas[0][key] + omegas[1][key] for key in NAMES}
    assert_close(trunk(second.after.importance), both)
    for end in (first, second):
        assert_close(trunk(end.after.params), trunk(end.stage.params))
    heads = jax.tree.leaves(first.after.importance["heads"])
    assert heads == []  # no array: masked


def test_importance_is_what_the_library_gives_by_hand(two_tasks: Any) -> None:
    anchor = None
    for end in two_tasks(MAS(strength=STRENGTH)).ends:
        stage = end.stage
        omega = mas_jax.estimate_importance(
            stage.network.outputs, stage.params, [real_batch(stage.train)],
            mask={"trunk": True, "heads": False},
        )  # fmt: skip
        anchor = mas_jax.consolidate(anchor, stage.params, omega)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), anchor, end.after
        )


def test_rule_max_takes_the_larger(two_tasks: Any) -> None:
    first, second = two_tasks(MAS(strength=STRENGTH, rule="max")).ends
    omegas = [omega_of("squared_norm", end) for end in (first, second)]
    larger = {key: np.maximum(omegas[0][key], omegas[1][key]) for key in NAMES}
    assert_close(trunk(second.after.importance), larger)


@pytest.mark.parametrize("labels", ["exact", "empirical"])
def test_ewc_folds_every_tasks_penalty_into_one(two_tasks: Any, labels: Any) -> None:
    first, second = two_tasks(EWC(strength=STRENGTH, labels=labels)).ends
    fishers = [omega_of(labels, end) for end in (first, second)]
    thetas = [trunk(end.stage.params) for end in (first, second)]
    assert_close(trunk(first.after.importance), fishers[0])
    both = {key: fishers[0][key] + fishers[1][key] for key in NAMES}
    assert_close(trunk(second.after.importance), both)
    # Σ_t F_t (θ − θ_t)² has its minimum at the mean of θ_t weighted by F_t.
    folded = {
        key: oracle.weighted_mean([t[key] for t in thetas], [f[key] for f in fishers])
        for key in NAMES
    }
    assert_close(trunk(second.after.params), folded)


def test_sampled_labels_are_drawn_with_the_stages_key(two_tasks: Any) -> None:
    end = two_tasks(EWC(strength=STRENGTH)).ends[0]
    stage = end.stage
    # One batch of 200, filled up from 75.
    keys = jax.random.split(jax.random.fold_in(stage.key, 0), (1, 200))[0, :75]
    estimator = mas_jax.fisher_estimator(
        stage.network.logits, labels="sampled", mask={"trunk": True, "heads": False}
    )
    state = estimator.init(stage.params)
    state = estimator.update(state, stage.params, (real_batch(stage.train), keys))
    assert_close(trunk(end.after.importance), trunk(estimator.finalize(state)))
    keys_of_stages = {
        tuple(jax.random.key_data(end.stage.key).tolist())
        for end in two_tasks(EWC(strength=STRENGTH)).ends
    }
    assert len(keys_of_stages) == 2


def test_online_ewc_lets_importance_decay_and_follows_the_latest(two_tasks: Any) -> None:
    method = OnlineEWC(strength=STRENGTH, labels="exact", decay=0.25)
    first, second = two_tasks(method).ends
    fishers = [omega_of("exact", end) for end in (first, second)]
    decayed = {key: 0.25 * fishers[0][key] + fishers[1][key] for key in NAMES}
    assert_close(trunk(second.after.importance), decayed)
    assert_close(trunk(second.after.params), trunk(second.stage.params))


@pytest.mark.parametrize("total", ["importance", "tasks", "one"])
def test_alpha_weighs_tasks_alike(two_tasks: Any, total: Any) -> None:
    first, second = two_tasks(AlphaMAS(strength=STRENGTH, total=total)).ends
    omegas = [omega_of("squared_norm", end) for end in (first, second)]
    sums = [sum(omega[key].sum() for key in NAMES) for omega in omegas]
    # α_t S_t is the same number c for both tasks.
    c = {
        "importance": (sums[0] + sums[1]) / 2,
        "one": 1 / (1 / sums[0] + 1 / sums[1]),
        "tasks": 2 / (1 / sums[0] + 1 / sums[1]),
    }[total]
    weighted = [{key: c / s * o[key] for key in NAMES} for o, s in zip(omegas, sums, strict=True)]
    anchor = second.after.anchor
    assert_close(trunk(anchor.importance), {k: weighted[0][k] + weighted[1][k] for k in NAMES})
    thetas = [trunk(end.stage.params) for end in (first, second)]
    folded = {
        k: oracle.weighted_mean([t[k] for t in thetas], [w[k] for w in weighted]) for k in NAMES
    }
    assert_close(trunk(anchor.params), folded)


def test_si_gathers_the_path_of_the_loss_alone(tmp_path: Path) -> None:
    # All 75 examples in each of four steps, so that nothing is drawn at random.
    method = SI(strength=0.3, damping=0.2)
    settings = {"batch_size": 75, "epochs": 4, "schedule": "constant", "learning_rate": 0.02}
    setup = setup_of(method, **settings)
    ends = learn(setup, tmp_path, stop_after=2).ends
    key = jax.random.key(0)
    params = setup.learner.init(jax.random.fold_in(key, 3), setup.evaluation)
    tasks = [(*real(end.stage.train), seen(end.stage.task)) for end in ends]
    networks, omegas = oracle.synaptic_intelligence(
        oracle.net(params), tasks, steps=4, rate=0.02, momentum=0.9, strength=0.3, damping=0.2
    )
    for end, network, omega in zip(ends, networks, omegas, strict=True):
        for got, expected in zip(oracle.net(end.stage.params), network, strict=True):
            np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-5)
        scale = max(leaf.max() for leaf in omega.values())
        for name in NAMES:
            got = trunk(end.after.importance)[name]
            np.testing.assert_allclose(got, omega[name], rtol=1e-3, atol=1e-5 * scale)
        assert_close(trunk(end.after.params), trunk(end.stage.params))


# Ω in fewer bytes

CODED: list[Method] = [
    MAS(strength=STRENGTH, importance_as="bfloat16"),
    MAS(strength=STRENGTH, importance_as="log8"),
    SI(strength=STRENGTH, importance_as="log8"),
    AlphaMAS(strength=STRENGTH, importance_as="log8"),
    IMM(strength=STRENGTH, merge="mode", importance_as="log8"),
]


@pytest.mark.parametrize(
    "method", CODED, ids=lambda method: f"{type(method).__name__}-{method.importance_as}"
)
def test_the_next_task_is_learned_with_what_the_store_gives_back(
    tmp_path: Path, method: Method
) -> None:
    first, second = learn(setup_of(method, epochs=2), tmp_path, stop_after=2).ends
    stored = method.load_memory(first.stage.params, tmp_path, 0, first.stage.name)
    jax.tree.map(np.testing.assert_array_equal, second.before, stored)
    measured, rounded = (trunk(method.importance(memory)) for memory in (first.after, stored))
    for name in NAMES:
        np.testing.assert_allclose(rounded[name], measured[name], rtol=0.034)
        assert (rounded[name] != measured[name]).any()


@pytest.mark.parametrize("method", [MAS(importance_as="log8"), IMM(importance_as="log8")])
def test_the_runs_store_holds_the_code(tmp_path: Path, method: Method) -> None:
    learn(setup_of(method, epochs=1), tmp_path, stop_after=1)
    stores = [path.parent for path in tmp_path.glob("*/*") if path.is_dir()]
    assert stores
    for folder in stores:
        (task,) = mas_jax.AnchorStore(folder).tasks()
        leaves = mas_jax.AnchorStore(folder).metadata(task)["leaves"]
        assert {leaf["importance"]["code"] for leaf in leaves} == {"log8"}


# IMM


def merged(method: IMM, ends: list[End]) -> dict[str, np.ndarray]:
    """The trunk that answers."""
    return trunk(method.deployed(ends[-1].after, ends[-1].stage.params))


def test_imm_mean_is_the_mean_of_the_trunks(two_tasks: Any) -> None:
    method = IMM(merge="mean", strength=STRENGTH)
    ends = two_tasks(method).ends
    first, second = (trunk(end.stage.params) for end in ends)
    mean = {key: (np.float64(first[key]) + np.float64(second[key])) / 2 for key in NAMES}
    assert_close(merged(method, ends), mean)


def test_imm_mode_is_the_fisher_weighted_mean(two_tasks: Any) -> None:
    method = IMM(merge="mode", strength=STRENGTH, labels="exact")
    ends = two_tasks(method).ends
    thetas = [trunk(end.stage.params) for end in ends]
    fishers = [omega_of("exact", end) for end in ends]
    expected = {
        key: oracle.weighted_mean([t[key] for t in thetas], [f[key] for f in fishers])
        for key in NAMES
    }
    assert_close(merged(method, ends), expected)


@pytest.mark.parametrize("merge", ["mean", "mode"])
def test_imm_learns_on_as_l2_and_merges_no_head(two_tasks: Any, merge: Any) -> None:
    method = IMM(merge=merge, strength=STRENGTH)
    imm, l2 = two_tasks(method), two_tasks(L2(strength=STRENGTH))
    # From the unmerged network: the same as L2, which never merges.
    jax.tree.map(np.testing.assert_array_equal, imm.ends[1].stage.params, l2.ends[1].stage.params)
    jax.tree.map(
        np.testing.assert_array_equal, imm.records[1].stage.params, imm.ends[0].stage.params
    )
    jax.tree.map(np.testing.assert_array_equal, imm.ends[1].after["latest"], l2.ends[1].after)
    end = imm.ends[1]
    deployed = method.deployed(end.after, end.stage.params)
    jax.tree.map(np.testing.assert_array_equal, deployed["heads"], end.stage.params["heads"])
    assert not np.allclose(trunk(deployed)["kernel"], trunk(end.stage.params)["kernel"])


def test_the_merged_network_is_the_one_that_is_measured(tmp_path: Path) -> None:
    method = IMM(merge="mean", strength=0.0)
    setup = setup_of(method, learning_rate=0.2)
    learned = learn(setup, tmp_path)
    end = learned.ends[-1]
    answers = [
        tuple(np.asarray(setup.learner.accuracy(params, setup.evaluation).per_task).tolist())
        for params in (method.deployed(end.after, end.stage.params), end.stage.params)
    ]
    assert learned.record.accuracy[-1] == answers[0]
    assert answers[0] != answers[1]


@pytest.mark.parametrize("scenario", ["domain", "class"])
def test_a_head_for_all_is_anchored_and_merged(scenario: Scenario, tmp_path: Path) -> None:
    method = IMM(merge="mean", strength=STRENGTH)
    ends = learn(setup_of(method, scenario, epochs=1), tmp_path, stop_after=2).ends
    deployed = method.deployed(ends[1].after, ends[1].stage.params)
    for got, first, second in zip(
        *(jax.tree.leaves(t) for t in (deployed, *(end.stage.params for end in ends))), strict=True
    ):
        np.testing.assert_allclose(
            got, (np.float64(first) + np.float64(second)) / 2, rtol=1e-5, atol=1e-6
        )
    assert optax.tree.size(ends[1].after["latest"].importance) == optax.tree.size(deployed)


def test_importance_of_a_class_in_several_domains_is_by_its_own_label() -> None:
    # Domain: output 0 is class 4 in the first task, class 2 in the second. Only class 2 counts.
    setup = setup_of(MAS(only=(2,)), "domain")
    params = setup.learner.init(jax.random.key(0), setup.evaluation)
    method: Any = setup.method
    from_second = []
    for task in (0, 1):
        stage = stage_at(setup, task, params, None, jax.random.key(1))
        inputs, labels = real(stage.train)
        counted = labels >= 0 if task == 0 else labels == 0
        omega = task_importance(method.measure, stage, "train", (2,))
        expected = oracle.importance(
            "squared_norm", oracle.net(params), inputs[counted], labels[counted], [0, 1]
        )
        assert_close(trunk(omega), expected)
        from_second.append(counted.sum())
    assert from_second == [75, 35]
