"""The tables in the paper's layout, from results made up here."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from experiments import results
from experiments.analyses import eight_tasks, fact_tables, facts_adaptation, two_tasks
from experiments.facts.table import SPORTS, STANFORD40
from experiments.results import Result, SeedRecord


def keep(folder: Path, tasks: tuple[str, ...], *seeds: SeedRecord) -> None:
    """Write a result of these seeds."""
    folder.mkdir(parents=True)
    result = Result(
        experiment="e", method=folder.name, description="", tasks=tasks, published={}, config={},
        command="", versions={}, machine={}, seeds=seeds,
    )  # fmt: skip
    results.write(result, folder / results.FILE_NAME)


def row(text: str, first: str) -> list[str]:
    """The cells of the row that begins with `first`."""
    (line,) = [line for line in text.splitlines() if line.startswith(f"| {first} ")]
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_two_tasks_are_shown_as_in_the_papers_table(tmp_path: Path) -> None:
    # The first task falls from 0.8 and 0.9 to 0.75 and 0.85, the second ends at 0.6.
    seeds = [
        SeedRecord(seed=s, accuracy=((0.8 + s / 10, 0.1), (0.75 + s / 10, 0.6))) for s in (0, 1)
    ]
    keep(tmp_path / "flowers_birds" / "mas", ("Flowers-17", "CUB-10"), *seeds)
    keep(tmp_path / "flowers_birds" / "alpha", ("Flowers-17", "CUB-10"), *seeds)
    keep(tmp_path / "flowers_scenes" / "mas", ("Flowers-17", "Scene-15"), *seeds)
    text, forgotten, not_run = two_tasks.compared(tmp_path).split("\n\n")
    assert row(text, "method") == [
        "method", "Flowers-17 → CUB-10", "paper: Flower → Birds", "Flowers-17 → Scene-15",
        "paper: Flower → Scenes",
    ]  # fmt: skip
    ours = "80.00 (−5.0) / 60.00"
    assert row(text, "mas")[1:] == [ours, "77.33 (−0.7) / 50.39", ours, "77.24 (−0.8) / 57.38"]
    assert row(text, "lwf")[1:] == ["–", "73.97 (−4.1) / 53.64", "–", "76.20 (−1.9) / 58.05"]
    # What the paper does not have; its one row for IMM stands beside both of ours.
    assert row(text, "alpha")[1:] == [ours, "–", "–", "–"]
    assert row(text, "imm_mean")[1:] == row(text, "imm_mode")[1:]
    assert row(text, "imm_mode")[2] == "75.68 (−2.4) / 48.32"
    # Both seeds lose 0.05. Below are the methods that were run, and no others.
    assert [row(line, line.split()[1]) for line in forgotten.splitlines()[2:]] == [
        ["mas", "5.0 ± 0.0", "5.0 ± 0.0"], ["alpha", "5.0 ± 0.0", "–"],
    ]  # fmt: skip
    assert not_run == "Not run: birds_scenes, scenes_birds."


def test_what_two_tasks_forget_has_an_interval_over_seeds(tmp_path: Path) -> None:
    # 0.02 and 0.04 lost: the half-width of two is t(0.975; 1) 0.02 / 2 = 12.706 · 0.01.
    lost = [SeedRecord(seed=s, accuracy=((0.8, 0.1), (0.78 - s / 50, 0.6))) for s in (0, 1)]
    gained = SeedRecord(seed=0, accuracy=((0.8, 0.1), (0.83, 0.6)))
    keep(tmp_path / "birds_scenes" / "si", ("CUB-10", "Scene-15"), *lost)
    keep(tmp_path / "birds_scenes" / "mas", ("CUB-10", "Scene-15"), gained)
    keep(tmp_path / "scenes_birds" / "si", ("Scene-15", "CUB-10"), gained, *lost[1:], UNFINISHED)
    text = two_tasks.compared(tmp_path).split("\n\n")[1]
    heads = ["forgetting, points", "CUB-10 → Scene-15", "Scene-15 → CUB-10"]
    assert row(text, "forgetting, points") == heads
    # −0.03 and 0.04: 0.5 ± 12.706 · 3.5. One seed alone has no interval.
    assert row(text, "si")[1:] == ["3.0 ± 12.7", "0.5 ± 44.5"]
    assert row(text, "mas")[1:] == ["−3.0", "–"]


EIGHT: dict[str, Any] = {
    "accuracy": ((0.9, 0.0), (0.7, 0.8)),
    "memory": (
        {"kept": 2**20, "training": 2**18}, {"kept": 3 * 2**19, "training": 2**19},
    ),
    "seconds": ({"training": 60.0, "saving": 30.0}, {"training": 30.0}),
}  # fmt: skip


def rows(text: str, first: str) -> tuple[list[str], list[str]]:
    """A method's rows in two tables, without its name."""
    one, other = text.split("\n\n")
    return row(one, first)[1:], row(other, first)[1:]


def test_eight_tasks_are_shown_with_what_they_lost_and_took(tmp_path: Path) -> None:
    record = SeedRecord(seed=0, **EIGHT)
    keep(tmp_path / "mas", ("a", "b"), record, dataclasses.replace(record, seed=1))
    # SI ends at 0.72 and 0.74 on average, MAS at 0.75: 3 and 1 points below it.
    ends = ((0.70, 0.74), (0.72, 0.76))
    seeds = [
        dataclasses.replace(record, seed=s, accuracy=((0.9, 0.0), end), memory=())
        for s, end in enumerate(ends)
    ]
    keep(tmp_path / "si", ("a", "b"), *seeds)
    text = eight_tasks.compared(tmp_path)
    tasks, overall = rows(text, "mas")
    assert tasks == ["70.0 (−20.0)", "80.0 (+0.0)"]
    # Average (0.7 + 0.8) / 2, forgetting 0.9 − 0.7, kept 1 and then 1.5 MiB, 0.5 in training, two
    # minutes. The interval of 3 and 1 is 12.706 · 1.
    assert overall == [
        "75.00 ± 0.00", "2.00 ± 12.71", "2", "20.00 ± 0.00", "0.49", "1.0", "1.5", "0.5", "2.0",
    ]  # fmt: skip
    assert "| kept after 1, MiB | kept after 2, MiB |" in text
    # Nothing is above itself, memory was not counted, and the paper says nothing of it.
    overall = rows(text, "si")[1]
    assert (overall[1:3], overall[4:]) == (["–", "–"], ["–", "–", "–", "–", "2.0"])
    assert rows(text, "finetune") == (["–"] * 2, ["–"] * 9)


def test_eight_tasks_without_si_are_not_compared_with_it(tmp_path: Path) -> None:
    keep(tmp_path / "mas", ("a", "b"), SeedRecord(seed=0, **EIGHT))
    # One seed has no interval.
    assert rows(eight_tasks.compared(tmp_path), "mas")[1][:3] == ["75.00", "–", "2"]


def test_facts_are_shown_per_task_and_over_all(tmp_path: Path) -> None:
    seeds = [
        SeedRecord(seed=s, accuracy=((0.5, 0.1), (0.3, 0.6)), overall=(0.2, 0.25)) for s in (0, 1)
    ]
    keep(tmp_path / "facts_2" / "mas", ("T1", "T2"), *seeds)
    keep(tmp_path / "facts_2" / "joint", ("T1", "T2"), seeds[0])
    text = fact_tables.compared(tmp_path)
    assert row(text, "mas") == [
        "mas", "0.300 ± 0.000", "0.600 ± 0.000", "0.250 ± 0.000", "0.306", "0.504", "0.290",
    ]  # fmt: skip
    assert row(text, "joint")[1:] == ["0.300", "0.600", "0.250", "–", "–", "–"]
    assert row(text, "lmas")[1:] == ["–", "–", "–", "0.264", "0.466", "0.278"]
    assert text.endswith("Not run: facts_4.")


def test_facts_over_all_are_not_shown_of_records_from_before_they_were_kept(
    tmp_path: Path,
) -> None:
    old = SeedRecord(seed=0, accuracy=((0.5, 0.1), (0.3, 0.6)))
    keep(tmp_path / "facts_2" / "mas", ("T1", "T2"), old, dataclasses.replace(old, overall=(0, 1)))
    text = fact_tables.compared(tmp_path)
    assert row(text, "mas")[1:4] == ["0.300 ± 0.000", "0.600 ± 0.000", "–"]


def test_the_subset_is_followed_along_the_sequence(tmp_path: Path) -> None:
    sports = [fact in SPORTS for fact in STANFORD40.values()]
    assert sum(sports) == 7
    first, last = (tuple(value if s else 0.0 for s in sports) for value in (0.5, 0.4))
    record = SeedRecord(seed=0, accuracy=((0.5, 0.1), (0.3, 0.6)), class_accuracy=(first, last))
    keep(tmp_path / "mas", ("T1", "T2"), record, record)
    text = facts_adaptation.compared(tmp_path)
    assert row(text, "mas") == ["mas", "0.500 ± 0.000", "0.400 ± 0.000", "–"]
    assert row(text, "mas_sports") == ["mas_sports", "–", "–", "0.50"]


UNFINISHED = SeedRecord(seed=0, accuracy=((0.9, 0.0),))


@pytest.mark.parametrize("tables", [two_tasks, fact_tables])
def test_a_folder_without_the_sequences_is_said_to_be_one(tmp_path: Path, tables: Any) -> None:
    keep(tmp_path / "flowers_birds" / "mas", ("a", "b"), UNFINISHED)
    with pytest.raises(ValueError, match="has finished runs in none of the folders"):
        tables.compared(tmp_path)


@pytest.mark.parametrize("tables", [eight_tasks, facts_adaptation])
def test_a_folder_without_a_finished_seed_is_said_to_be_one(tmp_path: Path, tables: Any) -> None:
    keep(tmp_path / "mas", ("a", "b"), UNFINISHED)
    with pytest.raises(ValueError, match=r"no seed below .* has learned all tasks"):
        tables.compared(tmp_path)


def test_a_method_without_a_finished_seed_is_one_that_was_not_run(tmp_path: Path) -> None:
    record = SeedRecord(seed=0, accuracy=((0.9, 0.0), (0.7, 0.8)), overall=(0.5, 0.5))
    for folder in (tmp_path / "flowers_birds", tmp_path / "facts_2", tmp_path / "eight"):
        keep(folder / "si", ("a", "b"), record)
        keep(folder / "mas", ("a", "b"), UNFINISHED)
    assert rows(two_tasks.compared(tmp_path).rsplit("\n\n", 1)[0], "si")[1] == ["20.0"]
    assert row(two_tasks.compared(tmp_path), "mas")[1] == "–"
    assert row(fact_tables.compared(tmp_path), "mas")[1:4] == ["–"] * 3
    assert rows(eight_tasks.compared(tmp_path / "eight"), "mas")[0] == ["–"] * 2
