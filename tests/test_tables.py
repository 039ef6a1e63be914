"""The terminal's table, cell by cell."""

import dataclasses

from rich.table import Table

from experiments import tables
from experiments.results import Result, SeedRecord

RESULT = Result(
    experiment="tiny",
    method="mas",
    description="",
    tasks=("1/2", "3/4"),
    published={"a paper": {"average_accuracy": 0.9886, "backward_transfer": -0.00071}},
    config={"evaluate_on": "validation"},
    command="",
    versions={},
    machine={},
    seeds=(
        SeedRecord(seed=0, accuracy=((0.99, 0.5), (0.97, 0.95))),
        SeedRecord(seed=1, accuracy=((0.99, 0.5), (0.98, 0.96))),
        SeedRecord(seed=2, accuracy=((0.99, 0.5),)),  # not finished
    ),
)


def cells(table: Table) -> list[tuple[str, ...]]:
    return list(
        zip(*[[str(cell) for cell in column.cells] for column in table.columns], strict=True)
    )


def test_rows_of_methods_and_of_published_numbers() -> None:
    table = tables.comparison([RESULT])
    assert str(table.title) == (
        "tiny: mean ± 95 % interval over 2 seeds, percent of validation examples"
    )
    own, published = cells(table)
    # Averages 0.96 and 0.97; forgetting 0.02 and 0.01. With two seeds the interval is
    # t(0.975; 1) = 12.706 times the standard error 0.005: 6.353 points for both.
    assert own == ("mas", "96.50 ± 6.35", "1.500 ± 6.353", "-1.500 ± 6.353", "97.50", "95.50")
    assert published == ("a paper", "98.86", "–", "-0.071", "", "")


def test_one_seed_and_one_task_have_no_interval_and_no_forgetting() -> None:
    one = dataclasses.replace(
        RESULT, tasks=("1/2",), published={}, seeds=(SeedRecord(seed=0, accuracy=((0.5,),)),)
    )
    table = tables.comparison([one])
    assert "one seed" in str(table.title)
    assert cells(table) == [("mas", "50.00", "–", "–", "50.00")]
