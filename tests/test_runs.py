"""A run's folder: resumed, extended by seeds, guarded against other settings."""

import dataclasses
import json
from pathlib import Path

import pytest

from experiments import results, runs, tuning
from experiments.results import Result
from tests import tiny


def run(out: Path, config: tiny.Tiny, method: str = "finetune") -> Result:
    return runs.run(
        "tiny", config, method, tiny.tasks(), out, lambda _: None, "python -m experiments …"
    )


def test_result_holds_what_the_report_needs(tmp_path: Path) -> None:
    result = run(tmp_path, tiny.Tiny(seeds=1), "mas")
    assert result == results.read(tmp_path / "mas" / "result.json")
    stored = json.loads((tmp_path / "mas" / "result.json").read_text())
    assert stored["format"] == 1
    assert stored["tasks"] == ["4/1", "2/3", "0/5"]
    assert stored["config"]["method"] == {"name": "mas", "strength": 0.2, "rule": "sum"}
    assert stored["config"]["epochs"] == 3
    assert stored["versions"].keys() >= {"python", "jax", "mas-jax"}
    (record,) = stored["seeds"]
    assert [len(row) for row in record["accuracy"]] == [3, 3, 3]
    assert [len(row) for row in record["loss"]] == [3, 3, 3]
    phases = {"training", "importance", "evaluation", "saving"}
    assert all(row.keys() == phases for row in record["seconds"])


def test_more_seeds_extend_a_run_and_keep_the_old_ones(tmp_path: Path) -> None:
    one = run(tmp_path, tiny.Tiny(seeds=1))
    two = run(tmp_path, tiny.Tiny(seeds=2))
    assert [record.seed for record in two.seeds] == [0, 1]
    assert one.seeds[0] == two.seeds[0]  # times included: it was read, not learned again


def test_other_settings_in_the_same_folder_are_refused_by_name(tmp_path: Path) -> None:
    run(tmp_path, tiny.Tiny(seeds=1))
    with pytest.raises(ValueError, match=r"other settings: epochs is 3 there and 2 here.*--out"):
        run(tmp_path, tiny.Tiny(seeds=1, epochs=2))


def test_an_unknown_method_is_answered_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"'finetun'; did you mean 'finetune'\? .*joint, mas"):
        run(tmp_path, tiny.Tiny(), "finetun")


def test_tuning_grid_measures_on_held_out_examples_with_seeds_of_its_own() -> None:
    grid = tuning.candidates(tiny.Tiny(), "mas", (0.1, 1.0), (0.01, 0.02), 2, 0.2)
    assert [candidate.name for candidate in grid] == [
        "strength=0.1,learning_rate=0.01",
        "strength=0.1,learning_rate=0.02",
        "strength=1,learning_rate=0.01",
        "strength=1,learning_rate=0.02",
    ]
    for candidate in grid:
        assert candidate.config.evaluate_on == "validation"
        assert candidate.config.validation_fraction == 0.2
        assert candidate.config.first_seed >= tuning.FIRST_SEED
    assert grid[2].config.methods["mas"] == dataclasses.replace(
        tiny.Tiny().methods["mas"],
        strength=1.0,  # type: ignore[call-arg]
    )


def test_tuning_refuses_a_method_without_strength() -> None:
    with pytest.raises(ValueError, match="'joint' has no strength"):
        tuning.candidates(tiny.Tiny(), "joint", (0.1,), (0.01,), 2, 0.2)


def test_tuning_chooses_the_highest_validation_accuracy(tmp_path: Path) -> None:
    held_out = tiny.Tiny(seeds=1, validation_fraction=0.2, evaluate_on="validation")
    tasks = tiny.tasks(validation_fraction=0.2)
    result = runs.run("tiny", held_out, "finetune", tasks, tmp_path, lambda _: None, "")
    worse = dataclasses.replace(
        result, seeds=(dataclasses.replace(result.seeds[0], accuracy=((0.0,) * 3,) * 3),)
    )
    assert tuning.best(["worse", "better"], [worse, result]) == "better"
    assert tuning.best(["better", "worse"], [result, worse]) == "better"
