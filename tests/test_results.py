"""Results: what is written is what is read, and the statistics over seeds."""

import dataclasses
import json
import math
import os
from pathlib import Path
from typing import Any

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
from scipy import stats

from experiments import results
from experiments.results import Result, SeedRecord


def make_result(**changes: Any) -> Result:
    """Two seeds of two tasks."""
    record = SeedRecord(
        seed=3,
        accuracy=((0.9, 0.5), (0.8, 1.0)),
        untrained=(0.5, 0.25),
        loss=((0.7, 0.1), (0.6, float("nan"))),
        seconds=({"training": 1.5}, {"training": 2.0, "saving": 0.25}),
        importance={"trunk/kernel": results.histogram([0.0, 0.1, 3.0])},
    )
    result = Result(
        experiment="split_digits",
        method="mas",
        description="Digits, two by two. Ω is exact.",
        tasks=("0 and 1", "2 and 3"),
        published={"a paper": {"average_accuracy": 0.98}},
        config={"strength": 0.2, "hidden_sizes": [8, 8], "head_warmup": None},
        command="python -m experiments run split_digits --method mas",
        versions={"jax": "0.10.2"},
        machine={"cores": 2},
        seeds=(
            record,
            dataclasses.replace(record, seed=4, accuracy=((1.0, 0.5), (0.7, 0.9))),
        ),
    )
    return dataclasses.replace(result, **changes)


def as_json(result: Result) -> str:
    """All of a result, lists and tuples alike."""
    return json.dumps(dataclasses.asdict(result))


def test_what_is_read_is_what_was_written(tmp_path: Path) -> None:
    result = make_result(skipped=(0, 3), num_classes=(2, 5))
    results.write(result, tmp_path / "result.json")
    assert as_json(results.read(tmp_path / "result.json")) == as_json(result)


def test_floats_come_back_bit_for_bit(tmp_path: Path) -> None:
    accuracy = tuple(np.random.default_rng(0).random(2).tolist() for _ in range(2))
    result = make_result(seeds=(SeedRecord(seed=0, accuracy=accuracy),))
    results.write(result, tmp_path / "result.json")
    (record,) = results.read(tmp_path / "result.json").seeds
    assert [list(row) for row in record.accuracy] == [list(row) for row in accuracy]


def test_a_failed_write_leaves_the_old_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "result.json"
    results.write(make_result(), path)
    before = path.read_bytes()

    def power_cut(*_: object) -> None:
        raise OSError("power cut")

    monkeypatch.setattr(os, "fsync", power_cut)
    with pytest.raises(OSError, match="power cut"):
        results.write(make_result(method="joint"), path)
    assert path.read_bytes() == before


def test_content_that_is_not_json_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    results.write_json({"epoch": 1}, path)
    endless: dict[str, Any] = {}
    endless["self"] = endless
    with pytest.raises(ValueError, match="Circular"):
        results.write_json(endless, path)
    assert json.loads(path.read_text()) == {"epoch": 1}


def test_a_bit_that_makes_another_result_is_seen_and_an_older_result_has_no_digest(
    tmp_path: Path,
) -> None:
    path, result = tmp_path / "result.json", make_result()
    results.write(result, path)
    text = path.read_text()
    seed = f'"seed": {result.seeds[0].seed}'
    assert seed in text
    path.write_text(text.replace(seed, '"seed": 4'))
    with pytest.raises(ValueError, match=r"its digest does not fit.*Put a copy back, or remove it"):
        results.read(path)
    content = json.loads(text)
    del content["sha256"]
    results.write_json(content, path)
    assert as_json(results.read(path)) == as_json(result)


def test_a_result_of_another_version_is_not_to_be_thrown_away(tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text('{"format": 99}')
    with pytest.raises(ValueError, match=r"result.json was written in another format") as caught:
        results.read(tmp_path / "result.json")
    assert "remove" not in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "{}",
        "3",
        '{"format": 1}',
        '{"format": 1, "seeds": [3]}',
        '{"format": 1, "seeds": [{"sneed": 3}]}',
        '{"format": 1, "seeds": [], "experiment": "a"}',
        '{"format": 1, "seeds": [], "surplus": "a"}',
    ],
)
def test_foreign_json_is_refused_and_named(tmp_path: Path, content: str) -> None:
    path = tmp_path / "result.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=r"result\.json is not a result of this version"):
        results.read(path)


def test_read_all_finds_results_at_any_depth_in_order(tmp_path: Path) -> None:
    for folder in ("b/mas", "a/joint", "a/finetune/deeper"):
        (tmp_path / folder).mkdir(parents=True)
        results.write(make_result(method=folder), tmp_path / folder / "result.json")
    found = [result.method for result in results.read_all(tmp_path)]
    assert found == ["a/finetune/deeper", "a/joint", "b/mas"]


def test_read_all_of_an_empty_folder_says_what_it_wanted(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no result\.json below .*compare NAME --out DIR"):
        results.read_all(tmp_path)


def test_mean_interval_of_one_two_three() -> None:
    # Mean 2, standard error 1/√3, and t(0.975, 2 degrees of freedom) = 4.302653: 2.484138.
    mean, half_width = results.mean_interval([1.0, 2.0, 3.0])
    assert mean == 2.0
    assert half_width == pytest.approx(2.484138, abs=1e-6)


@hypothesis.given(
    st.lists(st.floats(-1, 1), min_size=2, max_size=12).filter(lambda x: np.std(x) > 1e-6),
    st.floats(0.5, 0.999),
)
def test_mean_interval_is_scipys(values: list[float], confidence: float) -> None:
    mean, half_width = results.mean_interval(values, confidence)
    low, high = stats.t.interval(confidence, len(values) - 1, np.mean(values), stats.sem(values))
    assert (mean - half_width, mean + half_width) == pytest.approx((low, high), abs=1e-9)


def test_mean_interval_of_one_seed_has_no_width() -> None:
    mean, half_width = results.mean_interval([0.25])
    assert mean == 0.25
    assert math.isnan(half_width)


def test_histogram_counts_by_decade_and_zeros_apart() -> None:
    # log10: -0.5 in the upper half of [-1, 0); 0 and 0.3 in the lower half of [0, 1).
    histogram = results.histogram([[0.0, 0.0], [10**-0.5 + 1e-9, 1.0], [2.0, 0.0]], 2)
    assert histogram["log10_edges"] == [-1.0, -0.5, 0.0, 0.5, 1.0]
    assert histogram["counts"] == [0, 1, 2, 0]
    assert histogram["zeros"] == 3


@hypothesis.given(
    st.lists(st.one_of(st.just(0.0), st.floats(2.0**-100, 2.0**100)), max_size=60),
    st.integers(1, 5),
)
def test_histogram_counts_every_value_once(values: list[float], bins_per_decade: int) -> None:
    histogram = results.histogram(values, bins_per_decade)
    assert sum(histogram["counts"]) + histogram["zeros"] == len(values)
    assert histogram["zeros"] == values.count(0.0)
    assert len(histogram["log10_edges"]) == len(histogram["counts"]) + bool(histogram["counts"])


def test_histogram_of_zeros_has_no_bins() -> None:
    assert results.histogram(np.zeros(5)) == {"log10_edges": [], "counts": [], "zeros": 5}


def test_histogram_is_json() -> None:
    histogram = results.histogram(np.array([0.0, 1e-3, 5.0], np.float32))
    assert json.loads(json.dumps(histogram)) == histogram


def test_summary_is_the_mean_over_seeds_of_each_measure() -> None:
    # Average accuracy: (0.8 + 1.0)/2 and (0.7 + 0.9)/2; forgetting: 0.9 - 0.8 and 1.0 - 0.7.
    summary = results.summary(make_result())
    assert summary["average_accuracy"] == pytest.approx(results.mean_interval([0.9, 0.8]))
    assert summary["forgetting"] == pytest.approx(results.mean_interval([0.1, 0.3]))
    assert summary["backward_transfer"] == pytest.approx(results.mean_interval([-0.1, -0.3]))


def test_summary_of_one_task_has_accuracy_alone() -> None:
    seeds = tuple(SeedRecord(seed=seed, accuracy=((0.75,),)) for seed in range(2))
    summary = results.summary(make_result(tasks=("only",), seeds=seeds))
    assert summary == {"average_accuracy": (0.75, 0.0)}


def test_cores_are_those_that_the_process_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3, 5}, raising=False)
    assert results.machine()["cores"] == 2
    # Not every system has it.
    monkeypatch.delattr(os, "sched_getaffinity")
    assert results.machine()["cores"] == 64


def test_versions_and_machine_are_json() -> None:
    content = {"versions": results.versions(), "machine": results.machine()}
    assert json.loads(json.dumps(content)) == content
    assert set(results.VERSIONED_PACKAGES) < set(content["versions"])
