"""The tables in the paper's layout, from results made up here."""

from pathlib import Path

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
    text = two_tasks.compared(tmp_path)
    assert row(text, "method") == ["method", "Flowers-17 → CUB-10", "paper: Flower → Birds"]
    assert row(text, "mas") == ["mas", "80.00 (−5.0) / 60.00", "77.33 (−0.7) / 50.39"]
    assert row(text, "lwf") == ["lwf", "", "73.97 (−4.1) / 53.64"]
    assert row(text, "alpha") == ["alpha", "80.00 (−5.0) / 60.00", ""]
    assert "→ Scenes" not in text


def test_eight_tasks_are_shown_with_what_they_lost_and_took(tmp_path: Path) -> None:
    record = SeedRecord(
        seed=0,
        accuracy=((0.9, 0.0), (0.7, 0.8)),
        memory=({"kept": 2**20}, {"kept": 3 * 2**19}),
        seconds=({"training": 60.0, "saving": 30.0}, {"training": 30.0}),
    )
    keep(tmp_path / "mas", ("a", "b"), record, record)
    got = row(eight_tasks.compared(tmp_path), "mas")
    # Average (0.7 + 0.8) / 2, forgetting 0.9 − 0.7, the most that is kept 1.5 MiB, two minutes.
    assert got == [
        "mas", "70.0 (−20.0)", "80.0 (+0.0)", "75.00 ± 0.00", "20.00 ± 0.00", "1.5", "2.0",
    ]  # fmt: skip


def test_facts_are_shown_per_task_and_over_all(tmp_path: Path) -> None:
    seeds = [
        SeedRecord(seed=s, accuracy=((0.5, 0.1), (0.3, 0.6)), overall=(0.2, 0.25)) for s in (0, 1)
    ]
    keep(tmp_path / "facts_2" / "mas", ("T1", "T2"), *seeds)
    assert row(fact_tables.compared(tmp_path), "mas") == [
        "mas", "0.300 ± 0.000", "0.600 ± 0.000", "0.250 ± 0.000", "0.306", "0.504", "0.290",
    ]  # fmt: skip


def test_the_subset_is_followed_along_the_sequence(tmp_path: Path) -> None:
    sports = [fact in SPORTS for fact in STANFORD40.values()]
    assert sum(sports) == 7
    first, last = (tuple(value if s else 0.0 for s in sports) for value in (0.5, 0.4))
    record = SeedRecord(seed=0, accuracy=((0.5, 0.1), (0.3, 0.6)), class_accuracy=(first, last))
    keep(tmp_path / "mas", ("T1", "T2"), record, record)
    got = row(facts_adaptation.compared(tmp_path), "mas")
    assert got == ["mas", "0.500 ± 0.000", "0.400 ± 0.000"]


@pytest.mark.parametrize("tables", [two_tasks, fact_tables])
def test_a_folder_without_the_sequences_is_said_to_be_one(tmp_path: Path, tables) -> None:
    with pytest.raises(ValueError, match="has none of the folders"):
        tables.compared(tmp_path)


@pytest.mark.parametrize("cell", [two_tasks.cell, eight_tasks.cells, fact_tables.cells])
def test_a_method_without_a_finished_seed_has_no_row(tmp_path: Path, cell) -> None:
    keep(tmp_path / "mas", ("a", "b"), SeedRecord(seed=0, accuracy=((0.9, 0.0),)))
    with pytest.raises(ValueError, match="no seed of e, mas, has learned"):
        cell(results.read(tmp_path / "mas" / results.FILE_NAME))
