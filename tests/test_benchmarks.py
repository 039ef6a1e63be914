"""Benchmarks are commands; here they have to run, and to measure and print what they say."""

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mas_jax
from experiments.benchmarks import (
    comparison,
    curves,
    importance,
    microbatch,
    models,
    passes,
    penalty,
    pictures,
    record,
    scaling,
)
from experiments.benchmarks.comparison import Measuring
from experiments.benchmarks.models import CNN, LARGE, MLP, SMALL, Network
from experiments.benchmarks.timing import measured_in_turns
from experiments.trunks import TRUNKS, SqueezeNet

NETWORKS = SMALL | LARGE
TINY = Network("tiny", MLP((5,), 3), (6,), 4)
QUICK = {"repeats": 2, "vmap_repeats": 1, "timing_seconds": 0.0}


@jax.tree_util.Partial
def linear(params: Any, x: jax.Array) -> jax.Array:
    """One output per sample, w·x."""
    return x @ params["w"]


LINEAR_PARAMS = {"w": jnp.array([[1.0], [2.0]])}
# Outputs 1 and −2 on these two samples.
LINEAR_BATCH = jnp.array([[1.0, 0.0], [0.0, -1.0]])


def test_pictures_benchmark_compares_epochs_with_the_bare_step(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    narrow = SqueezeNet(2, 3, (1,) * 8, (1, 3, 5))
    monkeypatch.setitem(TRUNKS, "narrow", narrow)
    sizes: dict[str, int] = {"side": 20, "kept_side": 22, "batch_size": 4, "steps": 2, "repeats": 3}
    pictures.main(pictures.Options(backbone="narrow", **sizes))
    drawn, middle, *report = capsys.readouterr().out.splitlines()
    assert drawn.startswith("drawn: ")
    assert middle.startswith("middle: ")
    measured = json.loads("\n".join(report))["milliseconds_per_picture"]
    assert measured.keys() == {"drawn", "middle", "step"}
    assert min(measured.values()) > 0


def test_penalty_benchmark_prints_ratios_and_json(capsys: pytest.CaptureFixture[str]) -> None:
    penalty.main(penalty.Options(sizes=(6, 5, 3), batch_size=4, steps=2, repeats=3))
    first, second, *rest = capsys.readouterr().out.splitlines()
    assert first.startswith("anchor_penalty: ")
    assert second.startswith("anchor_proximal: ")
    report = json.loads("\n".join(rest))
    assert report["parameters"] == 6 * 5 + 5 + 5 * 3 + 3
    assert report["milliseconds_per_step"].keys() == {"plain", "anchor_penalty", "anchor_proximal"}


def test_microbatch_benchmark_prints_each_size(capsys: pytest.CaptureFixture[str]) -> None:
    options = microbatch.Options(sizes=(6, 5, 3), batch_size=4, microbatch_sizes=(1, 2), repeats=1)
    microbatch.main(options)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == [
        "micro-batch default",
        "micro-batch 1",
        "micro-batch 2",
    ]
    assert all(float(line.split()[-4]) > 0 for line in lines)


# Timing.


def test_runners_take_turns_and_the_first_round_does_not_count() -> None:
    calls: list[str] = []
    runners = {name: lambda name=name: calls.append(name) for name in "ab"}
    seconds = measured_in_turns(runners, repeats=2)
    assert calls == ["a", "b"] * 3
    assert {name: len(times) for name, times in seconds.items()} == {"a": 2, "b": 2}


def test_a_fast_runner_fills_its_timing(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])

    def run() -> None:
        now[0] += 0.25

    # A second is full after four runs; the warm-up round before is one run.
    assert measured_in_turns({"run": run}, repeats=1, at_least=1.0) == {"run": [0.25]}
    assert now[0] == 1.25


# The networks.


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("mlp", 784 * 1024 + 1024 + 1024 * 1024 + 1024 + 1024 * 10 + 10),
        ("cnn32", 27 * 32 + 32 + 9 * 32 * 64 + 64 + 9 * 64 * 128 + 128 + 16 * 128 * 10 + 10),
        ("cnn96", 27 * 96 + 96 + 9 * 96 * 256 + 256 + 9 * 256 * 384 + 384 + 64 * 384 * 10 + 10),
        # Patches and positions; four blocks of attention, MLP and two norms; norm and head.
        (
            "vit",
            (48 + 1 + 64) * 192
            + 4 * (4 * 193 * 192 + 193 * 768 + 769 * 192 + 4 * 192)
            + 2 * 192
            + 193 * 10,
        ),
        # As torchvision's documentation gives them (`num_params` of each model's weights).
        ("squeezenet", 1_248_424),
        ("vgg16", 138_357_544),
        ("resnet50", 25_557_032),
        ("vit_b16", 86_567_656),
    ],
)
def test_networks_have_as_many_parameters_as_published(name: str, parameters: int) -> None:
    network = NETWORKS[name]
    apply_fn, params = jax.eval_shape(network.init)
    assert models.num_parameters(params) == parameters
    inputs = jax.ShapeDtypeStruct((2, *network.sample_shape), jnp.float32)
    outputs = jax.eval_shape(lambda apply_fn, *args: apply_fn(*args), apply_fn, params, inputs)
    assert outputs.shape == (2, 10 if name in ("mlp", "cnn32", "cnn96", "vit") else 1000)


@pytest.mark.parametrize("name", NETWORKS)
def test_no_large_leaf_of_the_networks_falls_back(name: str) -> None:
    network = NETWORKS[name]
    apply_fn, params = jax.eval_shape(network.init)
    batch = jax.ShapeDtypeStruct((2, *network.sample_shape), jnp.float32)
    # ViT-B's positions, 197 × 768, are added to the tokens, as biases are.
    strict = 197 * 768 if name == "vit_b16" else True

    def omega(*args: Any) -> Any:
        return passes.importance(*args, engine="fused", strict=strict)

    assert jax.eval_shape(omega, apply_fn, params, batch) == params


def test_every_small_network_has_limits() -> None:
    assert importance.LIMITS.keys() == SMALL.keys()


# The passes.


def test_gradient_is_of_the_mean_and_importance_of_each_sample() -> None:
    args = (linear, LINEAR_PARAMS, LINEAR_BATCH)
    # 2 F x of the two samples is (2, 0) and (0, 4).
    np.testing.assert_allclose(passes.gradient(*args)["w"], [[1.0], [2.0]])
    for engine in ("fused", "vmap"):
        omega = passes.one_batch(passes.importance, *args, engine=engine).run()
        np.testing.assert_allclose(omega["w"], [[1.0], [2.0]])
    # Outputs 1 and −1, so that 2 F x is (2, 0) and (−6, 4): means (−2, 2), of magnitudes (4, 2).
    batch = jnp.array([[1.0, 0.0], [3.0, -2.0]])
    np.testing.assert_allclose(passes.gradient(linear, LINEAR_PARAMS, batch)["w"], [[-2], [2]])
    np.testing.assert_allclose(
        passes.importance(linear, LINEAR_PARAMS, batch, engine="fused")["w"], [[4], [2]]
    )


def test_streams_add_one_batch_per_run() -> None:
    args = (linear, LINEAR_PARAMS, LINEAR_BATCH)
    total = passes.streaming(passes.add_gradient, {"w": jnp.zeros((2, 1))}, *args)
    estimator = mas_jax.importance_estimator(linear)
    state = passes.streaming(passes.add_importance, estimator.init(LINEAR_PARAMS), *args)
    for _ in range(3):
        total.wait()
        state.wait()
    np.testing.assert_allclose(total.run()["w"], [[4.0], [8.0]])  # the fourth
    final = state.run()
    assert int(final.num_samples) == 8
    np.testing.assert_allclose(estimator.finalize(final)["w"], [[1.0], [2.0]])


def test_memory_is_what_xla_plans() -> None:
    args = (linear, LINEAR_PARAMS, LINEAR_BATCH)
    memory = passes.one_batch(passes.gradient, *args).memory
    assert memory["output"] >= 8  # two float32, and perhaps a pointer to them
    many = jnp.ones((512, 2))
    at_once = passes.one_batch(
        passes.importance, linear, LINEAR_PARAMS, many, engine="vmap", microbatch_size=512
    )
    assert at_once.memory["temporary"] > 4 * many.size


def test_largest_difference_is_relative_to_the_leaf() -> None:
    reference = {"a": jnp.array([4.0, 1.0]), "b": jnp.array([0.5])}
    ours = {"a": jnp.array([4.0, 1.5]), "b": jnp.array([0.75])}
    assert passes.largest_difference(ours, reference) == 0.5  # of b: 0.25 / 0.5; of a: 0.5 / 4


def test_a_leaf_that_is_zero_but_for_rounding_is_measured_against_the_largest() -> None:
    reference = {"a": jnp.array([4.0]), "b": jnp.array([1e-9])}
    ours = {"a": jnp.array([4.0]), "b": jnp.array([3e-9])}
    assert passes.largest_difference(ours, reference) == pytest.approx(2e-9 / 4, rel=1e-5)


# The comparison.


@pytest.fixture
def tiny_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """One small network, named as that whose limits are known, and one large one."""
    monkeypatch.setattr(importance, "SMALL", {"mlp": TINY})
    monkeypatch.setattr(importance, "LARGE", {"cnn": Network("tiny CNN", CNN((2,)), (4, 4, 1), 4)})


@pytest.mark.usefixtures("tiny_only")
def test_importance_benchmark_writes_what_it_prints(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new" / "importance.json"
    importance.main(importance.Options(out=out, **QUICK))
    printed = capsys.readouterr().out
    report = json.loads(out.read_text())
    assert list(report["networks"]) == ["mlp"]
    network = report["networks"]["mlp"]
    assert network["limits"] == importance.LIMITS["mlp"]
    assert network["parameters"] == 6 * 5 + 5 + 5 * 3 + 3
    assert network["largest_difference"] <= 1e-5
    assert [list(turn) for turn in network["turns"]] == [
        ["plain", "fused"],
        ["sum", "update"],
        ["fused", "vmap", "whole"],
    ]
    assert all(
        len(times) == (1 if "vmap" in turn else 2) and min(times) > 0
        for turn in network["turns"]
        for times in turn.values()
    )
    assert {"python", "jax", "jaxlib", "numpy"} <= report["versions"].keys()
    assert {"cpu", "cores", "platform", "device"} <= report["machine"].keys()
    assert report["options"]["repeats"] == 2
    assert str(tmp_path) not in out.read_text()

    importance.main(importance.Options(read=out))
    assert capsys.readouterr().out == printed


@pytest.mark.usefixtures("tiny_only")
def test_networks_are_chosen_by_name_and_take_another_batch() -> None:
    networks = importance.chosen(importance.Options(models=("cnn", "mlp"), batch_size=2))
    assert [network.batch_size for network in networks.values()] == [2, 2]
    assert list(networks) == ["cnn", "mlp"]
    assert importance.limits("mlp", networks["mlp"]) == {}  # they are for its own batch
    with pytest.raises(ValueError, match="no model resnet: there are mlp, cnn"):
        importance.chosen(importance.Options(models=("mlp", "resnet")))


def test_an_accelerator_measures_the_large_networks_without_limits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert importance.chosen(importance.Options()) == LARGE
    assert importance.limits("mlp", SMALL["mlp"]) == {}


def test_a_whole_batch_of_gradients_that_is_too_large_is_left_out() -> None:
    whole = 4 * 53 * 4  # bytes of 53 float32 for each of 4 samples
    fits, not_quite = (
        importance.turns(TINY, importance.Options(whole_bytes=limit))
        for limit in (whole, whole - 1)
    )
    assert fits[-1] == ("fused", "vmap", "whole")
    assert not_quite == [*fits[:-1], ("fused", "vmap")]
    measurements = comparison.measured(TINY, not_quite, Measuring(**QUICK))
    report = {**record.conditions(Measuring(**QUICK)), "networks": {"mlp": measurements}}
    measurements["limits"] = {}
    assert " – |" in importance.tables(report)


def network_report(seconds: dict[str, float], kibibytes: dict[str, int], **limits: float) -> Any:
    """A report as if every pass always took so long and held so much."""
    memory = {name: {"temporary": 2**10 * size, "output": 0} for name, size in kibibytes.items()}
    names = ("plain", "fused", "vmap", "sum", "update")
    measurements = {
        "title": "net",
        "batch_size": 8,
        "parameters": 1234,
        "largest_difference": 2e-7,
        "limits": limits,
        "memory": {name: memory.get(name, {"temporary": 0, "output": 0}) for name in names},
        "turns": [{name: [seconds.get(name, 1.0)] * 3 for name in names}],
    }
    return {**record.conditions(Measuring()), "networks": {"net": measurements}}


@pytest.mark.parametrize(
    ("limits", "cells"),
    [
        (
            {"time": 1.5, "memory": 1.25, "vmap_time": 10},
            ["1.500 (1.500–1.500) ≤ 1.5", "1.250 ≤ 1.25", "–", "10.0 (10.0–10.0) ≥ 10"],
        ),
        (
            {"time": 1.49, "memory": 1.24, "vmap_time": 10.1},
            ["1.500 (1.500–1.500) > 1.49", "1.250 > 1.24", "–", "10.0 (10.0–10.0) < 10.1"],
        ),
        ({}, ["1.500 (1.500–1.500)", "1.250", "–", "10.0 (10.0–10.0)"]),
    ],
)
def test_the_table_says_whether_limits_are_held(limits: dict[str, float], cells: list[str]) -> None:
    seconds = {"plain": 0.002, "fused": 0.003, "vmap": 0.03}
    kibibytes = {"plain": 1024, "fused": 1280}
    text = importance.tables(network_report(seconds, kibibytes, **limits))
    row = next(line for line in text.splitlines() if line.startswith("| net, 8"))
    assert [cell.strip() for cell in row.split("|")[2:-1]] == cells
    assert "| 3.0 ms, 1.2 MiB |" in text
    assert f"jax {jax.__version__}" in text


# Growth.

SIZES = {
    "families": ("mlp", "cnn"),
    "batch_sizes": (2, 3, 4),
    "mlp_widths": (2, 3),
    "cnn_widths": (2,),
    "depths": (1, 2),
}


def test_curves_cross_in_the_middle_and_share_that_point() -> None:
    points = scaling.points(SIZES)
    assert len(set(points)) == len(points)
    assert [point[1:] for point in points if point.family == "mlp"] == [
        (2, 3, 2),
        (3, 3, 2),
        (4, 3, 2),
        (3, 2, 2),
        (3, 3, 1),
    ]
    report = {"options": SIZES, "points": [point._asdict() for point in points]}
    assert [point["depth"] for point in curves.curve(report, "mlp", "depth")] == [1, 2]
    assert [point["batch_size"] for point in curves.curve(report, "cnn", "batch_size")] == [2, 3, 4]
    assert [point["width"] for point in curves.curve(report, "mlp", "width")] == [2, 3]


def test_scaling_benchmark_draws_what_it_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "scaling.json"
    sizes = {"families": ("mlp",), "batch_sizes": (2, 3), "mlp_widths": (2,), "depths": (1,)}
    scaling.main(scaling.Options(out=out, **sizes, **QUICK))
    printed = capsys.readouterr().out
    picture = out.with_suffix(".png").read_bytes()
    report = json.loads(out.read_text())
    assert len(report["points"]) == len(printed.splitlines()) - 2 == 2
    for point in report["points"]:
        assert point["memory"].keys() == {"plain", "fused", "vmap", "whole"}
        assert [list(turn) for turn in point["turns"]] == [["plain", "fused"], ["fused", "vmap"]]

    again = tmp_path / "again" / "picture.json"
    scaling.main(scaling.Options(read=out, out=again))
    assert capsys.readouterr().out == printed
    assert again.with_suffix(".png").read_bytes() == picture
    assert not again.exists()


def test_the_picture_has_a_curve_for_every_pass() -> None:
    point = network_report({"plain": 0.002}, {"plain": 64})["networks"]["net"]
    point["memory"]["whole"] = {"temporary": 1, "output": 1}
    points = [{**point, **each._asdict()} for each in scaling.points(SIZES)]
    figure = curves.draw({"options": SIZES, "points": points})
    times, memories = figure.axes[0], figure.axes[3]
    assert [line.get_label() for line in times.lines] == ["plain", "fused", "vmap"]
    assert len(memories.lines) == 4
    assert np.asarray(times.lines[0].get_xdata()).tolist() == [2, 3, 4]
    assert np.asarray(times.lines[0].get_ydata()).tolist() == [2.0] * 3
    assert np.asarray(memories.lines[0].get_ydata()).tolist() == [1 / 16] * 3
    assert times.get_xlabel() == "batch (width 3, depth 2)"
    assert len(figure.axes) == 12


def test_fused_memory_grows_with_the_batch_as_activations_do() -> None:
    widths = (64, 256, 256, 10)

    def extra(batch_size: int) -> int:
        network = Network("MLP", MLP(widths[1:-1]), widths[:1], batch_size)
        compiled = comparison.compiled_passes(*network.init(), network.batch(), {"plain", "fused"})
        plain, fused = (sum(compiled[name].memory.values()) for name in ("plain", "fused"))
        return fused - plain

    # Beside what the plain pass holds, one more copy of each layer's output per sample at most;
    # a gradient per sample would be 85,000 numbers.
    assert extra(1024) - extra(64) <= 4 * sum(widths) * (1024 - 64)
