"""What every method has in common: it resumes, starts alike, moves its own heads, counts bytes."""

import dataclasses
import functools
from pathlib import Path
from typing import Any

import chex
import jax
import numpy as np
import pytest

from experiments import checkpoint, sequence
from experiments.methods import MAS, METHODS, every_method
from experiments.methods.ebll import EBLL
from experiments.methods.joint import Joint
from experiments.methods.lwf import LwF
from tests import tiny, watched
from tests.watched import Learned, StopError, learn, prepared, setup_of, without_times

WITH_STRENGTH = [name for name, m in METHODS.items() if "strength" in dataclasses.asdict(m)]
ANCHOR_BYTES = 2 * 4 * (8 * 6 + 6)
"""θ* and Ω of the trunk, float32."""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A finished run of each method, learned once."""

    @functools.cache
    def learned(name: str, carried: bool = False) -> tuple[Learned, Path]:
        folder = tmp_path_factory.mktemp(name)
        return learn(prepared(name, carried=carried), folder), folder

    return learned


def state_of(folder: Path) -> tuple[Any, list[Any]]:
    """The parameters and the optimizer's state in a seed's folder."""
    state = checkpoint.load(folder / sequence.STATE_FILE)
    assert state is not None
    return state[:2]


def test_all_methods_of_the_paper_are_there() -> None:
    wanted = {
        "finetune", "joint", "l2", "ewc", "ewc_online", "si", "lwf", "ebll", "imm_mean",
        "imm_mode", "mas", "mas_vector", "mas_test", "mas_both", "lmas", "alpha",
    }  # fmt: skip
    assert wanted <= set(METHODS)
    assert list(METHODS)[:3] == ["finetune", "joint", "l2"]


@pytest.mark.parametrize("carried", [False, True], ids=["sgd", "adam-carried"])
@pytest.mark.parametrize("name", METHODS)
def test_each_method_goes_on_from_a_stop_bit_for_bit(
    whole: Any, tmp_path: Path, name: str, carried: bool
) -> None:
    expected, folder = whole(name, carried)
    with pytest.raises(StopError):
        learn(prepared(name, carried=carried), tmp_path, stop_at=(2, 1))
    resumed = learn(prepared(name, carried=carried), tmp_path)
    assert without_times(resumed.record) == without_times(expected.record)
    chex.assert_trees_all_equal(state_of(tmp_path), state_of(folder))
    assert len(resumed.ends) == 1  # the last task alone was learned again
    jax.tree.map(np.testing.assert_array_equal, resumed.ends[-1].after, expected.ends[-1].after)


@pytest.mark.parametrize("name", METHODS)
def test_the_first_task_is_finetuning(whole: Any, name: str) -> None:
    (record, ends, _), (expected, plain, _) = whole(name)[0], whole("finetune")[0]
    assert record.loss[0] == expected.loss[0]
    chex.assert_trees_all_equal(ends[0].stage.params, plain[0].stage.params)


@pytest.mark.parametrize("name", WITH_STRENGTH)
def test_strength_0_is_finetuning_on_all_tasks(whole: Any, tmp_path: Path, name: str) -> None:
    free = learn(prepared(name), tmp_path, strength=0.0)
    plain = whole("finetune")[0]
    for ours, theirs in zip(free.ends, plain.ends, strict=True):
        chex.assert_trees_all_close(ours.stage.params, theirs.stage.params, rtol=1e-5, atol=1e-6)
    if not name.startswith("imm"):  # whose merged network answers
        assert free.record.accuracy == plain.record.accuracy


@pytest.mark.parametrize("name", WITH_STRENGTH)
def test_with_its_own_strength_a_method_is_not_finetuning(whole: Any, name: str) -> None:
    ours, plain = whole(name)[0].ends[1].stage.params, whole("finetune")[0].ends[1].stage.params
    apart = jax.tree.map(lambda a, b: float(np.abs(a - b).max()), ours["trunk"], plain["trunk"])
    assert max(jax.tree.leaves(apart)) > 1e-3


@pytest.mark.parametrize("carried", [False, True], ids=["sgd", "adam-carried"])
@pytest.mark.parametrize("name", METHODS)
def test_heads_that_do_not_learn_do_not_move(whole: Any, name: str, carried: bool) -> None:
    ends = whole(name, carried)[0].ends
    for task in (1, 2):
        before, after = (ends[i].stage.params["heads"] for i in (task - 1, task))
        learning = {c for t in METHODS[name].trained_heads(task) for c in watched.seen(t)}
        moved = (np.asarray(before["kernel"]) != np.asarray(after["kernel"])).any(axis=0)
        rest = [c for c in range(6) if c not in learning]
        np.testing.assert_array_equal(before["kernel"][:, rest], after["kernel"][:, rest])
        np.testing.assert_array_equal(before["bias"][..., rest], after["bias"][..., rest])
        assert all(moved[c] for c in watched.seen(task))


def test_only_joint_training_and_recorded_outputs_reach_old_heads() -> None:
    trained = {name: list(method.trained_heads(2)) for name, method in METHODS.items()}
    several = {name for name, heads in trained.items() if heads != [2]}
    assert several == {"joint", "lwf", "ebll"}
    assert all(trained[name] == [0, 1, 2] for name in several)


# Bytes


# Three tasks of 75 examples with 8 inputs and a label, four bytes each.
DATA_BYTES = 75 * (8 * 4 + 4)


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("finetune", [0, 0, 0]),
        ("joint", [DATA_BYTES, 2 * DATA_BYTES, 3 * DATA_BYTES]),
        ("lwf", [0, 0, 0]),
        # An encoder of 6 features into 3 units for each task.
        ("ebll", [4 * 21, 8 * 21, 12 * 21]),
        ("l2", [ANCHOR_BYTES] * 3),
        ("ewc", [ANCHOR_BYTES] * 3),
        ("ewc_online", [ANCHOR_BYTES] * 3),
        ("si", [ANCHOR_BYTES] * 3),
        ("mas", [ANCHOR_BYTES] * 3),
        ("mas_vector", [ANCHOR_BYTES] * 3),
        ("lmas", [ANCHOR_BYTES] * 3),
        # The anchor and four numbers.
        ("alpha", [ANCHOR_BYTES + 16] * 3),
        # Where the latest task ended, and the merged network so far.
        ("imm_mean", [2 * ANCHOR_BYTES] * 3),
        ("imm_mode", [2 * ANCHOR_BYTES] * 3),
    ],
)
def test_kept_bytes_are_those_of_the_arrays(whole: Any, name: str, kept: list[int]) -> None:
    rows = whole(name)[0].record.memory
    assert [row["kept"] for row in rows] == kept
    # A trunk of 8 · 6 + 6 and heads of 6 · 6 + 6 numbers.
    assert {row["parameters"] for row in rows} == {4 * (54 + 42)}


def test_bytes_while_training_are_those_of_what_was_recorded(whole: Any) -> None:
    def training(name: str) -> list[int]:
        return [row["training"] for row in whole(name)[0].record.memory]

    assert training("mas") == training("joint") == [0, 0, 0]
    # Six outputs of 75 examples, and which of them are in which of three heads.
    of_lwf = 4 * 75 * 6 + 4 * 3 * 6
    assert training("lwf") == [0, of_lwf, of_lwf]
    # Beside them the codes of three units by each earlier encoder; the encoders count as kept.
    assert training("ebll") == [0, of_lwf + 4 * 75 * 3, of_lwf + 2 * 4 * 75 * 3]


# Settings


def test_strengths_go_to_a_method_and_its_variants() -> None:
    methods: Any = every_method(mas=3.0, mas_test=4.0, ewc_online=5.0)
    strengths = {name: methods[name].strength for name in WITH_STRENGTH}
    assert strengths["mas"] == strengths["mas_vector"] == strengths["mas_both"] == 3.0
    assert strengths["mas_test"] == 4.0
    assert strengths["ewc_online"] == 5.0
    assert strengths["ewc"] == METHODS["ewc"].strength
    assert dataclasses.replace(methods["mas"], strength=1.0) == METHODS["mas"]


def test_joint_training_takes_passes_of_its_own() -> None:
    assert [Joint(passes=passes).epochs(7) for passes in (None, 2)] == [7, 2]


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: LwF(strength=-1.0), "strength must be at least 0 and temperature above 0"),
        (lambda: LwF(strength=float("nan")), "strength must be at least 0"),
        (lambda: LwF(temperature=0.0), "temperature above 0, both finite, got 1.0 and 0.0"),
        (lambda: EBLL(code_size=0), "code_size must be at least 1, got 0"),
        (lambda: EBLL(autoencoder_steps=0), "autoencoder_steps must be at least 1"),
        (lambda: Joint(passes=0), "passes must be at least 1, got 0"),
        *[
            (lambda name=name: dataclasses.replace(METHODS[name], strength=-0.5), "strength must")
            for name in WITH_STRENGTH
        ],
    ],
)
def test_settings_out_of_range_are_named(make: Any, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        make()


@pytest.mark.parametrize(
    ("method", "text"),
    [
        (MAS(only=(9,)), r"no example of class 9: no task has it\. There are: 0, 1, 2, 3, 4, 5"),
        (EBLL(code_size=6), "code_size must be below the number of features, which is 6, got 6"),
        (EBLL(), "code_size must be below the number of features, which is 6, got 100"),
    ],
)
def test_methods_that_do_not_fit_the_tasks_are_refused_before_training(
    method: Any, text: str
) -> None:
    with pytest.raises(ValueError, match=text):
        setup_of(method)


def test_a_method_without_targets_has_no_loss_for_them() -> None:
    setup = prepared("finetune")
    with pytest.raises(NotImplementedError, match="records targets"):
        setup.method.extra_loss(setup.network, None, None, None)


def test_the_tiny_sequence_is_what_the_numbers_above_are_of() -> None:
    assert [len(task.train.labels) for task in tiny.tasks()] == [75] * 3


def test_a_strength_for_no_method_is_answered_with_the_nearest() -> None:
    with pytest.raises(ValueError, match="'ewcs'; did you mean 'ewc'"):
        every_method(ewcs=1.0)
    with pytest.raises(ValueError, match="no method with a strength is called 'joint'"):
        every_method(joint=1.0)


def test_si_counts_what_its_path_takes(whole: Any) -> None:
    si, mas = (whole(name)[0].record.memory[0] for name in ("si", "mas"))
    # Where the task began, and ω in two parts.
    assert si["training"] - mas["training"] == 3 * ANCHOR_BYTES // 2
