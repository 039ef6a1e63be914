"""The terminal's table, cell by cell."""

import dataclasses

from rich.console import Console
from rich.measure import Measurement
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


def test_published_numbers_stand_beside_their_method() -> None:
    numbers = {
        "GT-RIPL: MAS": {"average_accuracy": 0.9922, "average_accuracy_interval": 0.0021},
        "a zoo: mas": {"average_accuracy": 0.8},
        "GT-RIPL: lwf": {"average_accuracy": 0.996},
        "a zoo: si": {"forgetting": 0.1},
    }
    table = tables.comparison([_published(RESULT, numbers)])
    assert [str(column.header) for column in table.columns][:3] == [
        "method",
        "average accuracy",
        "published",
    ]
    own, lwf, si = cells(table)
    assert own[2] == "99.22 ± 0.21 (GT-RIPL)\n80.00 (a zoo)"
    assert lwf[:4] == ("GT-RIPL: lwf", "99.60", "", "–")
    assert si[:4] == ("a zoo: si", "–", "", "10.000")


def test_tasks_have_columns_where_they_fit() -> None:
    all_columns = len(tables.comparison([RESULT]).columns)
    assert all_columns == 4 + 2
    assert len(tables.comparison([RESULT], width=200).columns) == all_columns
    assert len(tables.comparison([RESULT], width=60).columns) == 4


def test_the_table_is_as_wide_as_it_must_be_for_its_tasks() -> None:
    console = Console(width=1000)
    needed = Measurement.get(console, console.options, tables.comparison([RESULT])).maximum
    assert len(tables.comparison([RESULT], width=needed).columns) == 6
    assert len(tables.comparison([RESULT], width=needed - 1).columns) == 4


def test_more_than_five_tasks_have_no_columns() -> None:
    seeds = (SeedRecord(seed=0, accuracy=((0.5,) * 6,) * 6),)
    names = tuple("abcdef")
    table = tables.comparison([dataclasses.replace(RESULT, tasks=names, seeds=seeds)])
    assert cells(table)[0] == ("mas", "50.00", "0.000", "0.000")


def test_a_method_without_a_finished_seed_has_dashes() -> None:
    unfinished = dataclasses.replace(RESULT, method="ewc", seeds=RESULT.seeds[2:])
    assert cells(tables.comparison([RESULT, unfinished], width=60))[1] == ("ewc", "–", "–", "–")
    assert tables.as_markdown([unfinished]).splitlines()[-1] == "| ewc | – | – |"


def test_markdown_has_the_means_and_the_published_numbers_in_one_row() -> None:
    numbers = {"GT-RIPL: mas": {"average_accuracy": 0.9922, "average_accuracy_interval": 0.0021}}
    worse = dataclasses.replace(
        RESULT,
        method="a|b",
        seeds=tuple(
            dataclasses.replace(record, accuracy=((0.99, 0.5), (0.96, 0.95)))
            for record in RESULT.seeds[:2]
        ),
    )
    results = [_published(RESULT, numbers), _published(worse, numbers)]
    # The first as above; the second has (0.96 + 0.95) / 2 and loses 0.03, both seeds alike.
    assert tables.as_markdown(results).splitlines() == [
        "| method | average accuracy, % | forgetting, points | published, % |",
        "| --- | ---: | ---: | ---: |",
        "| mas | **96.50** ± 6.35 | **1.500** ± 6.353 | 99.22 ± 0.21 (GT-RIPL) |",
        "| a\\|b | 95.50 ± 0.00 | 3.000 ± 0.000 |  |",
    ]


def test_markdown_without_published_numbers_has_no_column_for_them() -> None:
    lines = tables.as_markdown([dataclasses.replace(RESULT, published={})]).splitlines()
    assert lines[0] == "| method | average accuracy, % | forgetting, points |"
    assert lines[2] == "| mas | 96.50 ± 6.35 | 1.500 ± 6.353 |"


def _published(result: Result, numbers: dict[str, dict[str, float]]) -> Result:
    """`result` with these numbers to hold against."""
    return dataclasses.replace(result, published=numbers)


def test_a_method_with_several_strengths_is_told_apart_by_them() -> None:
    swept = [
        dataclasses.replace(RESULT, config={"method": {"strength": strength}})
        for strength in (0.5, 30.0)
    ]
    *_, first, second = tables.as_markdown(swept).splitlines()
    assert first.startswith("| mas (strength 0.5) |")
    assert second.startswith("| mas (strength 30.0) |")


def test_a_method_with_another_option_is_told_apart_by_it() -> None:
    runs = [
        dataclasses.replace(RESULT, config={"method": {"strength": 3.0, **option}})
        for option in ({}, {"importance_as": "log8"})
    ]
    *_, first, second = tables.as_markdown(runs).splitlines()
    assert first.startswith("| mas |")
    assert second.startswith("| mas (importance_as log8) |")
