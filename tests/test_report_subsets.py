"""A few facts along the sequence: the figure, the table and the words, from results made up."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from experiments.facts import subsets as fact_subsets
from experiments.facts.table import MUSIC, SPORTS, STANFORD40
from experiments.report import subsets, write_report
from experiments.report.pictures import render
from experiments.report.sections import Section
from experiments.results import Result, SeedRecord
from tests.test_report import Page, make_result, only_section, write_results

ENDS = {"finetune": 0.2, "si": 0.25, "mas": 0.4, "mas_sports": 0.55}


def made_up(method: str, end: float, **changes: object) -> Result:
    """Two seeds of four tasks: sports fall from 0.6 and 0.7 to `end` and 0.1 more."""
    seeds = []
    for seed in (0, 1):
        along = np.linspace(0.6, end, 4) + seed / 10
        rows = [[sports if fact in SPORTS else 0.1 for fact in FACTS] for sports in along]
        rows[1:] = [
            [0.3 if fact in MUSIC else v for fact, v in zip(FACTS, r, strict=True)]
            for r in rows[1:]
        ]
        seeds.append(
            SeedRecord(
                seed=seed,
                accuracy=tuple((0.5,) * 4 for _ in range(4)),
                overall=(0.2,) * 4,
                class_accuracy=tuple(map(tuple, rows)),
            )
        )
    result = make_result(
        experiment="facts_adaptation",
        method=method,
        tasks=("T1", "T2", "T3", "T4"),
        published={},
        config={"split_seed": 0, "data": "actions40", "method": {"name": method}},
        measure="mean_average_precision",
        seeds=tuple(seeds),
    )
    return dataclasses.replace(result, **changes)


# By label: the order of the sorted names.
FACTS = [STANFORD40[name] for name in sorted(STANFORD40)]


def section() -> Section:
    return only_section(*[made_up(method, end) for method, end in ENDS.items()])


def test_the_precision_of_a_subset_is_the_mean_over_its_facts() -> None:
    # By loops: seven sports, 40 facts, two seeds, four tasks.
    result = made_up("mas", 0.4)
    wanted = [
        [
            sum(v for v, fact in zip(row, FACTS, strict=True) if fact in SPORTS) / 7
            for row in record.class_accuracy
        ]
        for record in result.seeds
    ]
    np.testing.assert_allclose(fact_subsets.subset_precision(result, SPORTS), wanted, rtol=1e-14)


def test_without_a_precision_of_each_fact_it_is_said_what_to_do() -> None:
    bare = tuple(dataclasses.replace(r, class_accuracy=()) for r in made_up("mas", 0.4).seeds)
    with pytest.raises(ValueError, match=r"mas, has no precision for each .* --class-accuracy"):
        fact_subsets.subset_precision(made_up("mas", 0.4, seeds=bare), SPORTS)
    with pytest.raises(ValueError, match="no seed of facts_adaptation, mas, has learned"):
        fact_subsets.subset_precision(made_up("mas", 0.4, seeds=()), SPORTS)


@pytest.mark.parametrize(
    "changes",
    [
        {"experiment": "facts_4"},
        {"config": {"data": "sixds", "split_seed": 0}},
        {"seeds": (SeedRecord(seed=0, accuracy=((0.5,) * 4,) * 4),)},
    ],
)
def test_only_an_adaptation_to_the_forty_facts_is_followed(changes: dict[str, object]) -> None:
    assert subsets.followed(only_section(made_up("mas", 0.4, **changes))) == []


@pytest.mark.parametrize("columns", [2, 3])
def test_each_method_is_a_line_with_its_band(columns: int) -> None:
    figure = subsets.subset_curves(section(), columns)
    sports, music = figure.axes
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert titles == ["person playing sports", "person playing music"]
    drawn = [np.asarray(line.get_ydata()) for line in sports.lines]
    for line, end in zip(drawn, ENDS.values(), strict=True):
        # The mean of two seeds that are 0.1 apart.
        np.testing.assert_allclose(line, np.linspace(0.6, end, 4) + 0.05)
    assert len(sports.collections) == 4
    np.testing.assert_allclose(np.asarray(music.lines[0].get_ydata()), [0.1, 0.3, 0.3, 0.3])
    # One scale of fractions from 0, no more than 1: the interval's half-width is 0.635.
    assert sports.get_ylim() == music.get_ylim() == (0.0, 1.0)


def test_music_is_grey_until_its_task_is_learned() -> None:
    # With split seed 0 both facts are in the second of four tasks.
    sports, music = subsets.subset_curves(section(), 3).axes
    ends = [axes.patches[0].get_window_extent().x1 for axes in (sports, music)]
    wanted = [axes.transData.transform((x, 0))[0] for axes, x in ((sports, 0.5), (music, 1.5))]
    np.testing.assert_allclose(ends, wanted)


def test_the_words_name_data_paper_and_what_may_be_compared() -> None:
    for text in ("Stanford 40 Actions", "0.50", "near 0.20", "SI", "orders may be compared"):
        assert text in subsets.CAPTION
    assert "mas_sports from 0.650 to 0.600" in subsets.in_words(section())


def test_the_page_has_the_picture_and_the_table(tmp_path: Path) -> None:
    runs = [made_up(method, end) for method, end in ENDS.items()]
    path = write_report(write_results(tmp_path, *runs))
    page = Page(path.read_text(encoding="utf-8"))
    rows = page.table("MAP of person playing sports")
    assert rows[0] == ["Method", "after T1", "after T2", "after T3", "after T4"]
    assert rows[4][0] == "mas_sports"
    assert rows[4][4] == "0.600± 0.635"
    assert "A few facts along the sequence" in page.text
    assert any("one line per method" in (a["alt"] or "") for _, a in page.all("img"))
    assert (path.parent / "1-facts_adaptation-subsets-narrow.png").exists()


def test_the_picture_has_the_same_bytes_again() -> None:
    first, again = (render(subsets.subset_curves(section(), 3), "x.png") for _ in range(2))
    assert first == again
