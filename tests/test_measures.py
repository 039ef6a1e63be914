"""Mean average precision under its own name: what results hold, tables and the report say."""

import dataclasses
import json
from pathlib import Path

import pytest

from experiments import registry, results, tables
from experiments.config import settings
from experiments.report import figures
from experiments.report.outcomes import outcomes
from experiments.report.pictures import section_pictures
from experiments.results import Result, SeedRecord
from tests.test_report import make_result, only_section, words
from tests.test_report_many import longer, many
from tests.test_tables import cells

FACTS = make_result(
    experiment="facts_2",
    published={},
    config={"num_tasks": 2, "split_seed": 0},
    measure="mean_average_precision",
    seeds=(
        SeedRecord(seed=0, accuracy=((0.5, 0.1), (0.3, 0.6)), overall=(0.2, 0.25)),
        SeedRecord(seed=1, accuracy=((0.5, 0.1), (0.4, 0.6)), overall=(0.2, 0.25)),
    ),
)
"""Ends at 0.45 and 0.5 on average, having forgotten 0.2 and 0.1."""


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A record of facts from before results said what they measure, and had a digest."""
    path = tmp_path / results.FILE_NAME
    results.write(FACTS, path)
    content = json.loads(path.read_text(encoding="utf-8"))
    del content["measure"], content["sha256"]
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def test_old_records_of_facts_are_known_by_their_settings(old: Path) -> None:
    assert results.read(old) == FACTS
    content = json.loads(old.read_text(encoding="utf-8"))
    old.write_text(json.dumps({**content, "config": {}}), encoding="utf-8")
    assert results.read(old).measure == "accuracy"


def test_an_unknown_measure_is_refused_by_name(old: Path) -> None:
    results.write(dataclasses.replace(FACTS, measure="recall"), old)
    with pytest.raises(ValueError, match=r"measure must be one of accuracy, .* got 'recall'"):
        results.read(old)


@pytest.mark.parametrize(
    ("experiment", "measure"),
    [
        ("facts_2", "mean_average_precision"),
        ("facts_adaptation", "mean_average_precision"),
        ("flowers_birds", "accuracy"),
    ],
)
def test_experiments_say_what_they_measure(experiment: str, measure: str) -> None:
    config = registry.find(experiment).config
    assert config.measure == measure
    # Not a setting: runs that were begun before go on.
    assert "measure" not in {field.name for field in dataclasses.fields(config)}


def test_it_is_no_setting_of_a_run() -> None:
    assert "measure" not in settings(registry.find("split_mnist").config, "mas")


def test_the_terminals_table_has_fractions_and_all_facts() -> None:
    table = tables.comparison([FACTS])
    assert str(table.title) == (
        "facts_2: mean ± 95 % interval over 2 seeds, mean average precision (MAP) on test examples"
    )
    heads = [str(column.header) for column in table.columns][1:5]
    assert heads == ["average MAP", "MAP, all facts", "forgetting", "backward transfer"]
    # t(0.975; 1) = 12.706 times the standard errors 0.025 and 0.05.
    assert cells(table)[0][1:] == (
        "0.475 ± 0.318", "0.250 ± 0.000", "0.150 ± 0.635", "-0.150 ± 0.635", "0.350", "0.600",
    )  # fmt: skip


def test_the_markdown_table_does_too() -> None:
    head, _, row = tables.as_markdown([FACTS]).splitlines()
    assert head == "| method | average MAP | MAP, all facts | forgetting |"
    assert row == "| mas | 0.475 ± 0.318 | 0.250 ± 0.000 | 0.150 ± 0.635 |"


def test_the_page_speaks_of_map_and_not_of_accuracy_or_percent() -> None:
    page = words(FACTS)
    assert page.table("After the last task")[:3] == [
        ["Method", "Seeds", "Average MAP", "MAP, all facts", "Forgetting", "Backward transfer",
         "MAP on each task"],
        ["0 and 1", "2 and 3"],
        ["mas", "2", "0.475± 0.318", "0.250± 0.000", "0.150± 0.635", "−0.150± 0.635",
         "0.350± 0.635", "0.600± 0.000"],
    ]  # fmt: skip
    assert page.table("Every seed")[1:3] == [
        ["MAP", "forgetting", "seconds"],
        ["0", "0.450", "0.200", "0.0"],
    ]
    results_part = page.text[page.text.index("Results") : page.text.index("How it was made")]
    assert "Mean average precision (MAP), a fraction" in results_part
    assert "ccuracy" not in results_part


def test_a_methods_row_without_all_facts_has_a_dash() -> None:
    before = tuple(dataclasses.replace(record, overall=()) for record in FACTS.seeds)
    other = dataclasses.replace(FACTS, method="si", seeds=before)
    rows = words(FACTS, other).table("After the last task")
    assert (rows[2][3], rows[3][3]) == ("0.250± 0.000", "–")
    assert len(words(other).table("After the last task")[0]) == 6


def test_many_tasks_and_methods_have_their_tables_under_that_name() -> None:
    facts = [dataclasses.replace(r, measure="mean_average_precision") for r in many()]
    page = words(*[longer(result, 6) for result in facts])
    assert page.table("MAP on each task after the last")[2][2] == "0.250"
    assert page.table("MAP (forgetting; seconds) of every seed")[1][1] == "0.2500.000; 0.0 s"


def texts(figure: figures.Figure) -> str:
    """Everything that a figure says."""
    parts = [text.get_text() for axes in figure.axes for text in axes.texts]
    for axes in figure.axes:
        parts += [axes.get_title(loc="left"), axes.get_xlabel(), axes.get_ylabel()]
        parts += [tick.get_text() for tick in axes.get_xticklabels() + axes.get_yticklabels()]
    return "\n".join([*parts, figure.get_supylabel(), figure.get_supxlabel()])


def test_pictures_are_labelled_with_it() -> None:
    section = only_section(FACTS, dataclasses.replace(FACTS, method="si"))
    drawn = outcomes(section, 3)
    assert drawn.axes[0].get_title(loc="left") == "average MAP (log scale of 1 − MAP)"
    heat_map = figures.accuracy_heat_map(section.methods[0], figures.accuracy_limits(section))
    assert [text.get_text() for text in heat_map.axes[0].texts] == [
        "0.500", "0.100", "0.350", "0.600",
    ]  # fmt: skip
    along = figures.accuracy_along_sequence(section, 3)
    for figure in (drawn, heat_map, along):
        assert "MAP" in texts(figure)
        assert "ccuracy" not in texts(figure)
        assert "%" not in texts(figure)


def test_what_is_read_aloud_names_it() -> None:
    pictures = section_pictures(only_section(FACTS), "1")
    assert pictures is not None
    assert pictures.sequence is not None
    assert "mean average precision (MAP)" in pictures.sequence.alternative
    assert "mas: 0 and 1 0.350, 2 and 3 0.600" in pictures.sequence.alternative
    assert "accuracy" not in pictures.sequence.alternative + pictures.sequence.caption


def test_accuracies_are_as_before(tmp_path: Path) -> None:
    result: Result = make_result()
    results.write(result, tmp_path / results.FILE_NAME)
    assert results.read(tmp_path / results.FILE_NAME).measure == "accuracy"
    assert "overall" not in results.summary(result)
