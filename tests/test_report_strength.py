"""One method with several strengths: what belongs together, its picture and its table."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from experiments.report import looks, sweeps, write_report
from experiments.report.strength import strength_curves
from experiments.results import Result, SeedRecord
from tests.test_report import Page, finetune, make_result, only_section, words, write_results


def point(strength: float, rate: float = 0.1, **others: object) -> Result:
    """One strength: two seeds, whose accuracy falls and forgetting too as it grows."""
    seeds = tuple(
        SeedRecord(seed=seed, accuracy=((0.9, 0.5), (0.9 - lost, last)))
        for seed, (lost, last) in enumerate([(0.1 / (1 + strength), 0.8), (0.0, 0.9)])
    )
    method = {"name": "mas", "strength": strength}
    config = {"learning_rate": rate, "evaluate_on": "validation", "method": method, **others}
    return make_result(config=config, seeds=seeds, command=f"tune {rate:g}")


GRID = [point(strength, rate) for strength in (10.0, 0.0, 1.0) for rate in (0.1, 0.01)]


def test_results_that_differ_in_strength_and_rate_alone_are_one_sweep() -> None:
    compared = make_result(config={**GRID[0].config, "evaluate_on": "test"})
    alone, runs = sweeps.split([finetune(), *GRID, compared])
    assert [result.method for result in alone] == ["finetune", "mas"]
    assert alone[1] is compared
    assert runs == [GRID]


@pytest.mark.parametrize(
    "results",
    [
        # Another setting differs; only the rate does; the strength is not the method's setting;
        # a run stands there twice.
        [point(1.0), point(2.0, epochs=3)],
        [point(1.0, 0.1), point(1.0, 0.2)],
        [make_result(config={"strength": 1.0}), make_result(config={"strength": 2.0})],
        [point(1.0), point(2.0), point(2.0)],
    ],
)
def test_other_differences_make_methods_of_their_own(results: list[Result]) -> None:
    assert sweeps.split(results) == (results, [])


def test_a_methods_own_learning_rate_counts() -> None:
    own = {"name": "mas", "strength": 1.0, "learning_rate": 0.5}
    assert sweeps.learning_rate(make_result(config={"learning_rate": 0.1, "method": own})) == 0.5
    assert sweeps.learning_rate(make_result(config={})) is None


def test_a_sweep_is_in_no_other_table_or_picture() -> None:
    section = only_section(finetune(), *GRID)
    assert [method.label for method in section.methods] == ["finetune"]
    assert [sweep.whole.label for sweep in section.sweeps] == ["mas, by strength"]
    rows = words(finetune(), *GRID).table("After the last task")
    assert [row[0] for row in rows[2:]] == ["finetune", "published a paper, table 2"]


def test_curves_have_a_line_per_learning_rate() -> None:
    (sweep,) = only_section(*GRID).sweeps
    accuracy, forgetting = strength_curves(sweep, 3).axes
    # The seeds lose l = 0.1 / (1 + s) and nothing of the first task: on average over both tasks
    # they have (0.9 − l + 0.8) / 2 and 0.9, the mean of which is 0.875 − l / 4.
    means = [0.875 - 0.025 / (1 + strength) for strength in (0, 1, 10)]
    lost = [0.05 / (1 + strength) for strength in (0, 1, 10)]
    scaled = (looks.error_scale(means), looks.loss_scale(lost))
    for panel, expected in zip((accuracy, forgetting), scaled, strict=True):
        assert len(panel.lines) == 2
        for line in panel.lines:
            np.testing.assert_allclose(np.asarray(line.get_ydata(), np.float64), expected)
    # Zero stands one decade before the lowest strength above it.
    assert [label.get_text() for label in accuracy.get_xticklabels()] == ["0", "1", "10"]
    np.testing.assert_allclose(accuracy.get_xticks(), [-1, 0, 1])


def test_every_point_is_in_the_table_and_the_best_is_bold() -> None:
    page = words(*GRID)
    rows = page.table("mas, by strength: every point")
    assert [row[:3] for row in rows[1:]] == [
        [strength, rate, "2"] for strength in ("0", "1", "10") for rate in ("0.01", "0.1")
    ]
    # Strength 10: 0.875 − 0.025 / 11; lost 0.05 / 11. The half-widths are 12.7062 / 2 times the
    # seeds' differences, 0.05 + 0.05 / 11 and 0.1 / 11.
    assert rows[-1][3:] == ["87.27± 34.65", "0.455± 5.776"]


def test_how_a_sweep_was_made_is_told_in_one() -> None:
    page = words(*GRID)
    settings = dict(row for row in page.table("Settings")[1:] if len(row) == 2)
    assert settings["method.strength"] == "0.0, 1.0, 10.0"
    assert settings["learning_rate"] == "0.01, 0.1"
    assert "seeds: 0, 1" in page.text
    assert "tune 0.1\ntune 0.01" in page.text


def test_a_sweep_without_a_finished_seed_has_a_table_and_no_picture(tmp_path: Path) -> None:
    unfinished = [dataclasses.replace(r, seeds=(SeedRecord(seed=7),)) for r in GRID]
    page = Page(write_report(write_results(tmp_path, *unfinished)).read_text(encoding="utf-8"))
    assert not page.all("img")
    assert page.table("mas, by strength: every point")[1][2:] == ["none finished", "–", "–"]
    assert "are left out: mas, by strength: 7" in page.text


def test_a_folder_of_tuning_alone_has_its_picture(tmp_path: Path) -> None:
    path = write_report(write_results(tmp_path, *GRID))
    page = Page(path.read_text(encoding="utf-8"))
    ((_, image),) = page.all("img")
    assert "mas (learning_rate=0.01, strength=10.0): 87.27 %" in (image["alt"] or "")
    assert "measured on validation examples" in page.text
    assert sorted(p.name for p in path.parent.glob("*.png")) == [
        "1-split_digits-strength-1-narrow.png",
        "1-split_digits-strength-1.png",
    ]


def test_a_sweep_on_one_task_has_accuracy_alone() -> None:
    seeds = (SeedRecord(seed=0, accuracy=((0.75,),)),)
    grid = [dataclasses.replace(r, tasks=("only",), seeds=seeds) for r in GRID]
    (sweep,) = only_section(*grid).sweeps
    assert len(strength_curves(sweep, 2).axes) == 1
    assert words(*grid).table("mas, by strength: every point")[1][3:] == ["75.00", "–"]
