"""A run's folder: resumed, extended by seeds, guarded against other settings."""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest

from experiments import results, runs, tuning
from experiments.methods import MAS
from experiments.results import Result
from experiments.sequence import Epoch
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
    assert stored["config"]["method"] == {
        "name": "mas", "strength": 0.2, "output": "squared_norm", "data": "train", "only": [],
        "rule": "sum",
    }  # fmt: skip
    assert stored["config"]["epochs"] == 3
    assert stored["versions"].keys() >= {"python", "jax", "mas-jax"}
    (record,) = stored["seeds"]
    assert [len(row) for row in record["accuracy"]] == [3, 3, 3]
    assert [len(row) for row in record["loss"]] == [3, 3, 3]
    phases = {"training", "importance", "evaluation", "saving"}
    assert all(row.keys() == phases for row in record["seconds"])


def test_seeds_of_an_earlier_run_stay_in_the_result_with_how_they_were_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run(tmp_path, tiny.Tiny(seeds=2))
    monkeypatch.setattr(results, "versions", lambda: {"jax": "99"})
    later = run(tmp_path, tiny.Tiny(seeds=1, first_seed=7))
    assert [record.seed for record in later.seeds] == [7]
    stored = results.read(tmp_path / "finetune" / "result.json")
    assert [record.seed for record in stored.seeds] == [0, 1, 7]
    assert stored.seeds[0] == first.seeds[0]
    assert stored.versions["jax"] == f"{first.versions['jax']} / 99"


def test_a_finished_run_is_only_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(tmp_path, tiny.Tiny(seeds=1), "mas")
    shutil.rmtree(tmp_path / "mas" / "seed_0" / "anchors")  # not needed any more
    before = (tmp_path / "mas" / "result.json").read_bytes()
    monkeypatch.setattr(results, "versions", lambda: {"jax": "99"})
    run(tmp_path, tiny.Tiny(seeds=1), "mas")
    assert (tmp_path / "mas" / "result.json").read_bytes() == before


def test_a_stopped_seed_is_in_the_result_as_far_as_it_came(tmp_path: Path) -> None:
    def stop(epoch: Epoch) -> None:
        if epoch.task == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        runs.run("tiny", tiny.Tiny(), "finetune", tiny.tasks(), tmp_path, stop, "")
    stored = results.read(tmp_path / "finetune" / "result.json")
    assert [len(record.accuracy) for record in stored.seeds] == [2]
    assert results.finished(stored) == []


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("", r"settings\.json is damaged \(Expecting value"),
        ("[1]", r"settings\.json is damaged"),
        (None, r"holds seeds but no settings\.json"),
    ],
)
def test_lost_or_damaged_settings_are_refused_by_name(
    tmp_path: Path, content: str | None, text: str
) -> None:
    run(tmp_path, tiny.Tiny(seeds=1))
    file = tmp_path / "finetune" / "settings.json"
    file.unlink() if content is None else file.write_text(content)
    with pytest.raises(ValueError, match=text):
        run(tmp_path, tiny.Tiny(seeds=1))


def test_published_test_numbers_are_not_put_beside_validation_numbers(tmp_path: Path) -> None:
    held_out = tiny.Tiny(seeds=1, validation_fraction=0.2, evaluate_on="validation")
    tasks = tiny.tasks(validation_fraction=0.2)
    for name, config, expected in (
        ("validation", held_out, {}),
        ("test", dataclasses.replace(held_out, evaluate_on="test"), dict(tiny.Tiny.published)),
    ):
        result = runs.run("tiny", config, "finetune", tasks, tmp_path / name, lambda _: None, "")
        assert result.published == expected


def test_more_seeds_extend_a_run_and_keep_the_old_ones(tmp_path: Path) -> None:
    one = run(tmp_path, tiny.Tiny(seeds=1))
    two = run(tmp_path, tiny.Tiny(seeds=2))
    assert [record.seed for record in two.seeds] == [0, 1]
    assert one.seeds[0] == two.seeds[0]  # times included: it was read, not learned again


def test_a_folder_that_cannot_be_is_refused_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    wanted = r"file/finetune cannot be written to: .*Mend that, or give another folder with --out"
    with pytest.raises(ValueError, match=wanted):
        run(tmp_path / "file", tiny.Tiny())


def test_other_settings_in_the_same_folder_are_refused_by_name(tmp_path: Path) -> None:
    run(tmp_path, tiny.Tiny(seeds=1))
    with pytest.raises(ValueError, match=r"other settings: epochs is 3 there and 2 here.*--out"):
        run(tmp_path, tiny.Tiny(seeds=1, epochs=2))


def test_an_unknown_method_is_answered_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"'finetun'; did you mean 'finetune'\? .*joint, mas"):
        run(tmp_path, tiny.Tiny(), "finetun")


def test_tuning_starts_from_held_out_examples_and_seeds_of_its_own() -> None:
    config = tuning.held_out(tiny.Tiny())
    assert config.evaluate_on == "validation"
    assert config.validation_fraction == 0.1
    assert config.first_seed >= tuning.FIRST_SEED


def test_tuning_grid_is_every_strength_with_every_rate() -> None:
    grid = tuning.candidates(tuning.held_out(tiny.Tiny()), "mas", (0.1, 1.0), (0.01, 0.02))
    assert [candidate.name for candidate in grid] == [
        "strength=0.1,learning_rate=0.01",
        "strength=0.1,learning_rate=0.02",
        "strength=1,learning_rate=0.01",
        "strength=1,learning_rate=0.02",
    ]
    assert grid[2].config.methods == {"mas": MAS(strength=1.0)}
    assert [candidate.config.learning_rate for candidate in grid] == [0.01, 0.02] * 2


@pytest.mark.parametrize(
    ("config", "method", "strengths", "text"),
    [
        (tuning.held_out(tiny.Tiny()), "joint", (0.1,), "'joint' has no strength"),
        (tuning.held_out(tiny.Tiny()), "mas", (), "--strengths .* at least one value"),
        (tiny.Tiny(), "mas", (0.1,), "never chosen on test data"),
    ],
)
def test_tuning_refuses(
    config: tiny.Tiny, method: str, strengths: tuple[float, ...], text: str
) -> None:
    with pytest.raises(ValueError, match=text):
        tuning.candidates(config, method, strengths, (0.01,))


def test_tuning_chooses_the_highest_validation_accuracy(tmp_path: Path) -> None:
    held_out = tiny.Tiny(seeds=1, validation_fraction=0.2, evaluate_on="validation")
    tasks = tiny.tasks(validation_fraction=0.2)
    result = runs.run("tiny", held_out, "finetune", tasks, tmp_path, lambda _: None, "")
    worse = dataclasses.replace(
        result, seeds=(dataclasses.replace(result.seeds[0], accuracy=((0.0,) * 3,) * 3),)
    )
    assert tuning.best(["worse", "better"], [worse, result]) == "better"
    assert tuning.best(["better", "worse"], [result, worse]) == "better"
