"""The tables made of several runs, from results made up here, and Ω of one network on two sets."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mas_jax
from experiments import checkpoint, registry, results
from experiments.alpha_order import CONFIGS
from experiments.analyses import (
    adaptation,
    alpha_order,
    code_errors,
    importance_codes,
    importance_data,
)
from experiments.analyses.linear_code import LinearMAS, linear8
from experiments.analyses.printed import print_table
from experiments.results import Result, SeedRecord
from experiments.sequence import STATE_FILE
from experiments.setup import prepare
from mas_jax.importance_codes import BLOCK, decoded, encoded
from tests import tiny, watched


def keep(
    folder: Path,
    tasks: tuple[str, ...],
    *seeds: SeedRecord,
    experiment: str = "e",
    num_classes: tuple[int, ...] = (),
) -> None:
    """Write a result of these seeds."""
    folder.mkdir(parents=True)
    result = Result(
        experiment=experiment, method=folder.name, description="", tasks=tasks, published={},
        config={}, command="", versions={}, machine={}, seeds=seeds, num_classes=num_classes,
    )  # fmt: skip
    results.write(result, folder / results.FILE_NAME)


def test_the_order_table_says_what_balancing_changes_seed_by_seed(tmp_path: Path) -> None:
    for place, name in enumerate(CONFIGS):
        tasks = ["a", "b", "c", "d"]
        tasks.insert(place, "0/1")
        for rule, lost in (("mas", (0.02, 0.04)), ("alpha", (0.01, 0.02))):
            # What is lost of each task but the last, between learning it and the end.
            matrices = np.array([[[0.9] * 5] * 5] * 2)
            matrices[:, -1, :4] -= np.array(lost)[:, None]
            seeds = [
                SeedRecord(seed=s, accuracy=tuple(map(tuple, matrices[s].tolist()))) for s in (0, 1)
            ]
            keep(tmp_path / name / rule, tuple(tasks), *seeds)
    *_, first, _, _, _, last, every = alpha_order.compared(tmp_path).splitlines()

    def cells(line: str) -> list[str]:
        return [cell.strip() for cell in line.strip("|").split("|")]

    # Losses of 2 and 4 points against 1 and 2: the difference is −1 and −2, −1.5 in the mean, with
    # a 95 % interval of 12.706 · 0.5 for two seeds.
    assert cells(first)[5] == "-1.500 ± 6.353"
    assert cells(first)[6:8] == ["3.000 ± 12.706", "1.500 ± 6.353"]
    assert cells(last)[6:] == ["0.000 ± 0.000"] * 3  # in the last place nothing follows it
    # Mean over five places, in one of which nothing is lost of it: 3 · 4/5.
    assert cells(every)[6].startswith("2.400")
    assert cells(every)[0] == "all"


@pytest.mark.parametrize("experiment", adaptation.ASKED)
def test_the_adaptation_table_sets_a_class_apart_from_the_rest(
    experiment: str, tmp_path: Path
) -> None:
    _, asked, count, _ = adaptation.ASKED[experiment]
    learned = [1.0] * count + [0.0] * 4
    for name in ("finetune", "mas", *(f"mas_class_{label}" for label in asked)):
        kept = int(name.split("_")[-1]) if "class" in name else None
        end = [0.99 if label == kept else 0.9 for label in range(count)] + [0.8] * 4
        record = SeedRecord(
            seed=0,
            accuracy=((1.0, 0.0, 0.0), (1.0, 0.5, 0.0), (0.9, 0.7, 0.8)),
            class_accuracy=(tuple(learned), tuple(learned), tuple(end)),
        )
        seeds = record, dataclasses.replace(record, seed=1)
        keep(tmp_path / name, ("MNIST", "b", "c"), *seeds, experiment=experiment)
    lines = [line for line in adaptation.compared(tmp_path).splitlines() if "images of" in line]
    assert len(lines) == len(asked)
    for line in lines:
        forgotten, others, later, last = [cell.strip() for cell in line.split("|")[3:-1]]
        assert (forgotten, others) == ("1.00 ± 0.00", "10.00 ± 0.00")
        assert (later, last) == ("75.00 ± 0.00", "80.00 ± 0.00")


def test_the_adaptation_table_counts_the_classes_of_the_data_that_was_learned(
    tmp_path: Path,
) -> None:
    # Of fourteen classes one is kept and 10 points are lost of each other; what follows is another
    # task's.
    end = [0.99 if label == 2 else 0.9 for label in range(14)] + [0.0] * 10
    record = SeedRecord(
        seed=0, accuracy=((1.0,) * 3,) * 3, class_accuracy=((1.0,) * 24, (1.0,) * 24, tuple(end))
    )
    folder, tasks = tmp_path / "mas_class_2", ("another set", "b", "c")
    keep(folder, tasks, record, experiment="flowers_adaptation", num_classes=(14, 6, 4))
    text = adaptation.compared(tmp_path)
    (line,) = [line for line in text.splitlines() if line.startswith("| images of 2 ")]
    assert [cell.strip() for cell in line.split("|")[3:5]] == ["1.00", "10.00"]


def test_a_method_of_the_adaptation_table_that_was_not_run_is_left_empty(tmp_path: Path) -> None:
    rows = ((0.5,) * 31,) * 3
    record = SeedRecord(seed=0, accuracy=((0.5,) * 3,) * 3, class_accuracy=rows)
    keep(tmp_path / "mas_class_2", ("a", "b", "c"), record, experiment="flowers_adaptation")
    text = adaptation.compared(tmp_path)
    empty, *_ = [line for line in text.splitlines() if "fine-tuning" in line]
    assert [cell.strip() for cell in empty.split("|")[2:-1]] == ["2", "–", "–", "–", "–"]
    # One seed has no interval; the paper's flowers stand below.
    (ours,) = [line for line in text.splitlines() if line.startswith("| images of 2 ")]
    assert [cell.strip() for cell in ours.split("|")[3:-1]] == ["0.00", "0.00", "50.00", "50.00"]
    paper = text.splitlines()[-1]
    assert [cell.strip() for cell in paper.split("|")[1:-1]] == [
        "paper: one class", "one", "2", "8 of all", "–", "84",
    ]  # fmt: skip


def test_adaptation_without_the_accuracy_of_classes_says_how_to_have_it(tmp_path: Path) -> None:
    record = SeedRecord(seed=0, accuracy=((0.5,) * 3,) * 3)
    keep(tmp_path / "mas", ("a", "b", "c"), record, experiment="adaptation")
    with pytest.raises(ValueError, match=r"adaptation, mas, has no .* with --class-accuracy"):
        adaptation.compared(tmp_path)


def test_a_folder_without_the_runs_is_said_to_be_one(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"No such file .*mas.* Wanted what `python -m experim"):
        print_table(alpha_order.compared, tmp_path)


def test_importance_of_one_network_is_compared_between_sets(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    entry = registry.Experiment(tiny.Tiny(), tasks=lambda _: tiny.tasks())
    monkeypatch.setitem(registry.EXPERIMENTS, "tiny", entry)
    options = importance_data.Options(experiment="tiny")
    measured: dict[str, Any] = importance_data.measure(options, "the command")
    assert measured["kind"] == "importance_pairs"
    assert [pair["y"] for pair in measured["pairs"]] == [
        "test data",
        "training data of class 4",
    ]
    for pair in measured["pairs"]:
        assert pair["x"] == "training data"
        assert pair["count"] == 8 * 6
        assert len(pair["points"]) == 48
    # Nearly the same from other images of both classes, and not from those of one class alone.
    of_test, of_class = (pair["rank_correlation"] for pair in measured["pairs"])
    assert of_class < 0.5 < of_test < 1.0


def test_the_codes_table_says_what_each_forgets_more_seed_by_seed(tmp_path: Path) -> None:
    lost = {"exact": (0.02, 0.04), "log8": (0.03, 0.07)}
    for code, of_seeds in lost.items():
        seeds = [
            SeedRecord(seed=seed, accuracy=((0.9, 0.1), (0.9 - of_seed, 0.8)))
            for seed, of_seed in enumerate(of_seeds)
        ]
        keep(tmp_path / code / "mas", ("a", "b"), *seeds)
    *_, exact, log8 = importance_codes.compared(tmp_path).splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in (exact, log8)]
    # Averages of 84 and 83, and of 83.5 and 81.5; 12.706 half differences of two seeds.
    assert cells[0][-3:] == ["83.50 ± 6.35", "3.000 ± 12.706", "–"]
    assert cells[1][-3:] == ["82.50 ± 12.71", "5.000 ± 25.412", "2.000 ± 12.706"]
    assert [row[:2] for row in cells] == [["exact (default)", "4"], ["log8", "1.03"]]
    keep(tmp_path / "bfloat16" / "mas", ("a", "b"), seeds[0])
    with pytest.raises(ValueError, match="bfloat16 has finished other seeds than"):
        importance_codes.compared(tmp_path)


def test_the_codes_errors_are_counted_over_what_is_above_0(tmp_path: Path) -> None:
    params = {"w": np.zeros(4, np.float32)}
    omega = {"w": np.array([1.0, 0.5, 0.001, 0.0], np.float32)}
    checkpoint.save(tmp_path / STATE_FILE, params, [], SeedRecord(seed=0))
    store = mas_jax.AnchorStore(tmp_path / "anchors")
    store.save("a", mas_jax.Anchor(params, omega), objective="MAS", num_samples=1)
    *_, log8, linear = code_errors.errors(tmp_path).splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in (log8, linear)]
    # In steps of 1/255: 1, 128/255, which is 1/255 more than 0.5 relative to that, and 0.
    assert cells[1][1:3] == ["33.33", "0.0039"]
    assert cells[1][-1] == "1"
    assert cells[0][1] == "0.00"
    assert float(cells[0][-1]) < 0.034


def test_the_control_learns_on_with_importance_in_equal_steps(tmp_path: Path) -> None:
    method = LinearMAS(strength=0.2)
    setup = prepare(tiny.Tiny(epochs=1, methods={"mas": method}), method, tiny.tasks())
    first, second = watched.learn(setup, tmp_path, stop_after=2).ends
    measured, rounded = (
        np.asarray(memory.importance["trunk"]["hidden_0"]["kernel"])
        for memory in (first.after, second.before)
    )
    np.testing.assert_array_equal(rounded, linear8(measured))
    assert (rounded != measured).any()
    # 48 values, one scale: every step is the 255th part of the largest.
    steps = rounded * 255 / rounded.max()
    np.testing.assert_allclose(steps, steps.round(), atol=1e-3)


@pytest.mark.parametrize("code", ["exact", "bfloat16", "log8"])
def test_the_readme_says_how_many_bytes_a_parameter_takes(code):
    omega = np.ones(1000 * BLOCK, np.float32)
    stored, scales = encoded(omega, code)
    size = (stored.nbytes + (0 if scales is None else scales.nbytes)) / omega.size
    assert importance_codes.CODES[code][1:3] == (f"{size:.3g}", f"{size + 4:.3g}")


def test_equal_steps_lose_what_logarithms_keep():
    # 95 % of these lie within a factor of 50 of the median, up and down.
    omega = np.random.default_rng(0).lognormal(0, 2, 1000 * BLOCK).astype(np.float32)
    logarithms = decoded(*encoded(omega, "log8"), "log8").astype(np.float64)
    steps = linear8(omega)
    assert np.abs(logarithms / omega - 1).max() < 0.034
    assert np.mean(steps == 0) > 0.25
    # Equal steps are the finer ones for large entries alone.
    large = omega > np.quantile(omega, 0.9)
    errors = [np.median(np.abs(coded / omega - 1)[large]) for coded in (steps, logarithms)]
    assert errors[0] < errors[1]
