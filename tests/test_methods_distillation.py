"""LwF and EBLL against hand-written softmaxes, codes and an autoencoder trained in NumPy."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.examples import shuffled_batches
from experiments.methods import ebll
from experiments.methods.ebll import EBLL
from experiments.methods.lwf import LwF
from experiments.networks import Scenario, Seen
from experiments.sequence import stage_at
from experiments.setup import Setup
from tests import oracle_methods as oracle
from tests import watched
from tests.watched import learn, real, seen, setup_of

# What is compared with one softmax each when the third task is learned. With heads of their own,
# those of the first two tasks, (4, 1) and (2, 3); in a head for all, its two outputs; where it
# grows by classes, those of all earlier tasks together.
GROUPS: dict[Scenario, list[list[int]]] = {
    "task": [[1, 4], [2, 3]],
    "domain": [[0, 1]],
    "class": [[1, 2, 3, 4]],
}


def at_third_task(setup: Setup, seed: int = 0) -> Any:
    """The stage before the third task, with parameters drawn at random."""
    params = setup.learner.init(jax.random.key(seed), setup.evaluation)
    return stage_at(setup, 2, params, None, jax.random.key(5))


def seen_by(setup: Setup, params: Any, stage: Any) -> Seen:
    """What the network makes of the stage's training examples."""
    return setup.network.seen(params, stage.train.batch)


def moved(params: Any) -> Any:
    """Other parameters."""
    return jax.tree.map(lambda leaf: 0.8 * leaf + 0.05, params)


@pytest.mark.parametrize("temperature", [2.0, 1.0])
@pytest.mark.parametrize("scenario", GROUPS)
def test_lwf_holds_old_heads_to_what_they_said(scenario: Scenario, temperature: float) -> None:
    setup = setup_of(LwF(temperature=temperature), scenario)
    stage = at_third_task(setup)
    recorded = setup.method.record(None, stage)
    now = moved(stage.params)
    got = setup.method.extra_loss(setup.network, seen_by(setup, now, stage), *recorded)
    inputs, _ = real(stage.train)
    before, after = (oracle.outputs(oracle.net(params), inputs) for params in (stage.params, now))
    expected = [
        oracle.distillation(a, b, GROUPS[scenario], temperature)
        for a, b in zip(after, before, strict=True)
    ]
    np.testing.assert_allclose(got[:75], expected, rtol=1e-4)


def test_lwf_has_temperature_2_and_strength_1() -> None:
    assert dataclasses.asdict(LwF()) == {"strength": 1.0, "temperature": 2.0}


def test_two_equal_outputs_cost_the_entropy_of_a_coin() -> None:
    # Outputs that are all equal: y' = ŷ' = ½, −2 · ½ log ½ = log 2 for each of two old heads.
    setup = setup_of(LwF())
    stage = at_third_task(setup)
    zeros = jax.tree.map(jnp.zeros_like, stage.params)
    recorded = setup.method.record(None, stage._replace(params=zeros))
    got = setup.method.extra_loss(setup.network, seen_by(setup, zeros, stage), *recorded)
    np.testing.assert_allclose(got, np.full(75, 2 * np.log(2)), rtol=1e-6)


@pytest.mark.parametrize("scenario", GROUPS)
def test_what_nothing_moved_has_no_gradient(scenario: Scenario) -> None:
    setup = setup_of(LwF(), scenario)
    stage = at_third_task(setup)
    recorded = setup.method.record(None, stage)

    def loss_fn(params: Any) -> jax.Array:
        extra = setup.method.extra_loss(setup.network, seen_by(setup, params, stage), *recorded)
        return extra.mean()

    for grad in jax.tree.leaves(jax.grad(loss_fn)(stage.params)):
        np.testing.assert_allclose(grad, np.zeros(grad.shape), atol=1e-6)
    # And something that moved has one, in old heads and nowhere else among the heads.
    heads = jax.grad(loss_fn)(moved(stage.params))["heads"]["kernel"]
    old = {c for group in GROUPS[scenario] for c in group}
    assert {c for c in range(heads.shape[1]) if (heads[:, c] != 0).any()} == old


def test_lwf_records_every_output_before_the_task_and_nothing_for_the_first(
    tmp_path: Path,
) -> None:
    setup = setup_of(LwF(), epochs=1)
    learned = learn(setup, tmp_path)
    assert learned.records[0].recorded.targets is None
    assert [end.after for end in learned.ends] == [None] * 3
    for earlier, record in zip(learned.ends, learned.records[1:], strict=False):
        # As the network was when the task before ended.
        inputs, _ = real(record.stage.train)
        expected = oracle.outputs(oracle.net(earlier.stage.params), inputs)
        np.testing.assert_allclose(record.recorded.targets[:75], expected, rtol=1e-4, atol=1e-5)
        groups = [sorted(np.flatnonzero(row).tolist()) for row in record.recorded.constants]
        learned_before = range(record.stage.task)
        assert [group for group in groups if group] == [seen(task) for task in learned_before]


def test_lwf_keeps_what_old_heads_say(tmp_path: Path) -> None:
    # The loss that is added, at the end of the second task, against that of fine-tuning.
    setup = setup_of(LwF(strength=4.0))
    left = []
    for strength in (4.0, 0.0):
        learned = learn(setup, tmp_path / str(strength), strength=strength, stop_after=2)
        stage = learned.ends[1].stage
        recorded = learned.records[1].recorded
        extra = setup.method.extra_loss(
            setup.network, seen_by(setup, stage.params, stage), *recorded
        )
        at_best = setup.method.extra_loss(
            setup.network, seen_by(setup, learned.ends[0].stage.params, stage), *recorded
        )
        left.append(float((extra - at_best).mean()))
    assert 0 <= left[0] < 0.5 * left[1]


# EBLL


def encoders_at_random(tasks: int) -> dict[str, Any]:
    rng = np.random.default_rng(1)
    return {
        f"task_{task}": {
            "kernel": jnp.asarray(rng.normal(size=(6, 3)), jnp.float32),
            "bias": jnp.asarray(rng.normal(size=3), jnp.float32),
        }
        for task in range(tasks)
    }


@pytest.mark.parametrize("scenario", GROUPS)
def test_ebll_adds_the_codes_of_every_earlier_encoder(scenario: Scenario) -> None:
    method = EBLL(code_size=3, code_strength=0.7)
    setup = setup_of(method, scenario)
    stage, memory = at_third_task(setup), encoders_at_random(2)
    recorded = method.record(memory, stage)
    now = moved(stage.params)
    got = method.extra_loss(setup.network, seen_by(setup, now, stage), *recorded)
    inputs, _ = real(stage.train)
    before, after = (oracle.net(params) for params in (stage.params, now))
    for row, x in enumerate(inputs):
        old = oracle.distillation(
            oracle.outputs(after, x), oracle.outputs(before, x), GROUPS[scenario], 2.0
        )
        # (α/2) Σ_t ‖σ_t(F) − σ_t(F*)‖².
        codes = sum(
            np.sum(
                (oracle.code(e, oracle.hidden(after, x)) - oracle.code(e, oracle.hidden(before, x)))
                ** 2
            )
            for e in memory.values()
        )
        np.testing.assert_allclose(got[row], old + 0.5 * 0.7 * codes, rtol=1e-4)


def test_ebll_without_code_strength_is_lwf() -> None:
    setup = setup_of(EBLL(code_size=3, code_strength=0.0))
    stage = at_third_task(setup)
    now = moved(stage.params)
    losses = [
        method.extra_loss(setup.network, seen_by(setup, now, stage), *method.record(memory, stage))
        for method, memory in ((setup.method, encoders_at_random(2)), (LwF(), None))
    ]
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-6)


def test_an_encoder_is_that_of_an_autoencoder_trained_on_features_and_head() -> None:
    method = EBLL(code_size=3, reconstruction=0.3, autoencoder_steps=4)
    setup = setup_of(method)
    stage = at_third_task(setup)
    encoder = method.end_task(None, stage)["task_2"]

    glorot, keys = jax.nn.initializers.glorot_uniform(), jax.random.split(stage.key, 3)
    layers = {
        "W": np.asarray(glorot(keys[0], (6, 3)), np.float64), "b": np.zeros(3),
        "D": np.asarray(glorot(keys[1], (3, 6)), np.float64), "c": np.zeros(6),
    }  # fmt: skip
    inputs, labels = real(stage.train)
    rows, _ = shuffled_batches(keys[2], stage.train, ebll.BATCH_SIZE, steps=4)
    trained = oracle.autoencoder(
        oracle.net(stage.params), layers, inputs, labels, seen(2),
        reconstruction=0.3, batches=list(np.asarray(rows)),
    )  # fmt: skip
    # Adam moves an entry by about 0.001 a step; where its gradient is near 0, rounding decides.
    np.testing.assert_allclose(encoder["kernel"], trained["W"], atol=2e-5)
    np.testing.assert_allclose(encoder["bias"], trained["b"], atol=2e-5)
    assert np.abs(trained["W"] - layers["W"]).max() > 2e-3


def test_memory_grows_by_one_encoder_for_each_task(tmp_path: Path) -> None:
    learned = learn(watched.prepared("ebll"), tmp_path)
    for task, end in enumerate(learned.ends):
        assert list(end.after) == [f"task_{t}" for t in range(task + 1)]
        shapes = {name: leaf.shape for name, leaf in end.after[f"task_{task}"].items()}
        assert shapes == {"kernel": (6, 3), "bias": (3,)}
        for earlier, encoder in (end.before or {}).items():
            jax.tree.map(np.testing.assert_array_equal, encoder, end.after[earlier])
    assert learned.records[0].recorded.targets is None
    kernels = [np.asarray(encoder["kernel"]) for encoder in learned.ends[-1].after.values()]
    assert not np.allclose(kernels[0], kernels[1])


def test_filling_does_not_train_the_autoencoder() -> None:
    method = EBLL(code_size=3, autoencoder_steps=2)
    setup = setup_of(method)
    stage = at_third_task(setup)

    def filled(array: jax.Array, rows: int) -> jax.Array:
        return jnp.concatenate([array, jnp.repeat(array[:1], rows, axis=0)])

    # To 256 rows, of which 75 are real.
    longer = stage.train._replace(
        batch=jax.tree.map(lambda x: filled(x, 181), stage.train.batch),
        labels=filled(stage.train.labels, 181),
    )
    plain, long = (
        method.end_task(None, stage._replace(train=train))["task_2"]
        for train in (stage.train, longer)
    )
    np.testing.assert_allclose(plain["kernel"], long["kernel"], atol=2e-5)
