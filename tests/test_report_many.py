"""The report about many methods: tables that stay readable, panels per method, memory."""

import dataclasses
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.colors import to_hex

from experiments.report import looks, multiples, sections, write_report
from experiments.report import memory as memory_report
from experiments.report.outcomes import outcomes
from experiments.report.pictures import section_pictures
from experiments.report.tables import results_table, zeros_table
from experiments.results import Result, SeedRecord, histogram
from tests.test_report import (
    KERNEL,
    Page,
    in_frames,
    make_result,
    needs_browser,
    only_section,
    words,
    write_results,
)

NAMES = ("finetune", "joint", "si", "mas", "alpha")
PUBLISHED = {
    "GT-RIPL: MAS": {"average_accuracy": 0.9922, "average_accuracy_interval": 0.0021},
    "GT-RIPL: lwf": {"average_accuracy": 0.996},
    "a zoo: si": {"average_accuracy": 0.8333, "forgetting": 0.0125},
    "a demo": {"average_accuracy": 0.9886, "backward_transfer": -0.00071},
}


def many(names: tuple[str, ...] = NAMES, **changes: Any) -> list[Result]:
    """Methods that differ: after both tasks method n has 0.9 − n / 100 and 0.7 on average."""
    return [
        make_result(
            method=name,
            published=PUBLISHED,
            config={"epochs": 4, "method": {"name": name, **({"c": number} if number else {})}},
            seeds=tuple(
                dataclasses.replace(record, accuracy=((0.95, 0.5), (0.8 - number / 50, last)))
                for record, last in zip(make_result().seeds, (1.0, 0.6), strict=True)
            ),
            **changes,
        )
        for number, name in enumerate(names)
    ]


def longer(result: Result, length: int) -> Result:
    """The same with `length` tasks, on each of which every accuracy is 0.25."""
    seeds = (SeedRecord(seed=0, accuracy=((0.25,) * length,) * length),)
    return dataclasses.replace(result, tasks=tuple(map(str, range(length))), seeds=seeds)


def with_memory(result: Result, **bytes_at_tasks: tuple[int, int]) -> Result:
    """`result` with the bytes counted at its two tasks, the same for all seeds."""
    rows = tuple(
        {kind: counts[task] for kind, counts in bytes_at_tasks.items()} for task in range(2)
    )
    seeds = tuple(dataclasses.replace(record, memory=rows) for record in result.seeds)
    return dataclasses.replace(result, seeds=seeds)


def test_tasks_have_a_table_of_their_own_that_opens_on_demand() -> None:
    page = words(*many())
    assert page.table("After the last task")[0] == [
        "Method",
        "Seeds",
        "Average accuracy, %",
        "Published by GT-RIPL, %",
        "Published by a zoo, %",
        "Forgetting, points",
        "Backward transfer, points",
    ]
    per_task = page.table("Accuracy on each task after the last, %")
    assert per_task[1] == ["0 and 1", "2 and 3"]
    # mas is number 3: 0.8 − 3/50 on the first task; 1.0 and 0.6 on the second, whose half-width
    # is t(0.975; 1) 0.4 / 2 = 12.7062 · 0.2.
    assert per_task[2 + 3] == ["mas", "2", "74.00± 0.00", "80.00± 254.12"]
    assert len(page.all("details")) == len(page.all("summary")) == 2


@pytest.mark.parametrize(("tasks", "apart"), [(5, 0), (6, 1)])
def test_few_methods_on_more_than_five_tasks_have_that_table_too(tasks: int, apart: int) -> None:
    page = words(longer(make_result(published={}), tasks))
    assert len(page.all("details")) == apart
    headings = page.table("After the last task")[0]
    assert len(headings) == (5 if apart else 6)


def test_published_numbers_stand_in_the_row_of_their_method() -> None:
    rows = words(*many()).table("After the last task")[1:]
    cells = {row[0]: row[3:5] for row in rows}
    # In whatever case the source writes the method's name.
    assert cells["mas"] == ["99.22± 0.21", "–"]
    assert cells["si"] == ["–", "83.33forgetting 1.250"]
    assert cells["joint"] == ["–", "–"]
    # What is of no method here has rows below: lwf was not run.
    assert [row[0] for row in rows[5:]] == ["published GT-RIPL: lwf", "published a demo"]
    assert rows[-1][1:] == ["–", "98.86", "–", "–", "–", "−0.071"]


def test_the_best_of_many_is_bold() -> None:
    found = re.findall(r"<strong>([^<]*)</strong>", results_table(only_section(*many())))
    # Fine-tuning: 0.8 on the first task, (1.0 + 0.6) / 2 on the second, 0.95 − 0.8 forgotten. On
    # the second task all five are equally good.
    assert found == ["80.00", "15.000", "−15.000", "80.00", *["80.00"] * 5]


def test_every_seed_of_many_methods_has_a_column() -> None:
    rows = words(*many()).table("Accuracy, % (forgetting, points; seconds) of every seed")
    assert rows[0] == ["Method", "seed 3", "seed 4"]
    # joint: (0.78 + 1.0) / 2 and (0.78 + 0.6) / 2; 0.95 − 0.78 forgotten; 1.5 + 2.5 and 5 s.
    assert rows[2] == ["joint", "89.0017.000; 4.0 s", "69.0017.000; 5.0 s"]


def test_settings_of_many_methods_are_told_once_or_by_method() -> None:
    page = words(*many())
    assert page.table("Settings, the same for all")[1:] == [["epochs", "4"]]
    assert page.table("Settings that differ")[1:3] == [["finetune", "–"], ["joint", "method.c = 1"]]


def test_zeros_of_many_methods_have_a_row_each() -> None:
    rows = Page(zeros_table(only_section(*many()))).table("Exact zeros in Ω")
    assert rows[:2] == [["Method", KERNEL], ["finetune", "12.50 % of 16"]]


def test_outcomes_are_dots_in_order_with_intervals_and_published_marks() -> None:
    section = only_section(*many())
    accuracy, forgetting = outcomes(section, 3).axes
    assert [label.get_text() for label in accuracy.get_yticklabels()] == list(NAMES)
    means = 0.8 - np.arange(5) / 100
    drawn = {_y(line)[0]: _x(line)[0] for line in accuracy.lines if line.get_marker() != "None"}
    # Own dots lie on the rows; the published ones, of rows 2 (si) and 3 (mas), a little below.
    assert sorted(drawn) == [0, 1, 2, 2.3, 3, 3.3, 4]
    for row, mean in enumerate(means):
        assert drawn[row] == pytest.approx(float(looks.error_scale(mean)))
    assert drawn[2.3] == pytest.approx(float(looks.error_scale(0.8333)))
    assert drawn[3.3] == pytest.approx(float(looks.error_scale(0.9922)))
    numbers = [text.get_text() for text in forgetting.texts]
    assert numbers == ["15.000", "17.000", "19.000", "21.000", "23.000"]


@pytest.mark.parametrize("columns", [2, 3])
@pytest.mark.parametrize("accuracy", [0.0, 0.27, 0.995, 1.0])
def test_every_dot_lies_within_the_axes(columns: int, accuracy: float) -> None:
    # With few ticks the lowest may lie above the lowest dot.
    other = 0.999
    results = [
        make_result(
            method=name,
            published={},
            seeds=(SeedRecord(seed=0, accuracy=((1.0, 0.0), (value, value))),),
        )
        for name, value in (("low", accuracy), ("high", other))
    ]
    for axes in outcomes(only_section(*results), columns).axes:
        low, high = axes.get_xlim()
        places = [x for line in axes.lines if line.get_marker() != "None" for x in _x(line)]
        assert len(places) == 2
        assert low < min(places) <= max(places) < high


def test_each_method_has_a_panel_with_the_references_in_grey() -> None:
    panels = multiples.sequence_by_method(only_section(*many()), 4).axes
    assert [axes.get_title(loc="left") for axes in panels] == list(NAMES)
    grey = [
        [to_hex(line.get_color()) for line in axes.lines].count(looks.REFERENCE) for axes in panels
    ]
    # Fine-tuning and joint training are not references to themselves.
    assert grey == [1, 1, 2, 2, 2]
    # Of method 2 the mean over the tasks so far: 0.95, then 0.8 − 2/100.
    np.testing.assert_allclose(_y(panels[2].lines[-1]), looks.error_scale([0.95, 0.78]))
    assert len({axes.get_ylim() for axes in panels}) == 1


def test_matrices_are_one_grid_on_one_scale() -> None:
    figure = multiples.accuracy_matrices(only_section(*many()), 4)
    images = [image for axes in figure.axes for image in axes.get_images()]
    assert len(images) == 5
    assert len({image.get_clim() for image in images}) == 1
    # joint: means of the seeds, in percent with one decimal.
    texts = [text.get_text() for text in figure.axes[1].texts]
    assert texts == ["95.0", "50.0", "78.0", "80.0"]


@pytest.mark.parametrize(("accuracy", "text"), [(0.984, "98"), (0.996, None)])
def test_no_cell_reads_100_that_is_less(accuracy: float, text: str | None) -> None:
    seeds = (SeedRecord(seed=0, accuracy=((accuracy,) * 10,) * 10),)
    results = [
        make_result(method=name, tasks=tuple(map(str, range(10))), seeds=seeds) for name in NAMES
    ]
    figure = multiples.accuracy_matrices(only_section(*results), 4)
    texts = {text.get_text() for axes in figure.axes for text in axes.texts}
    assert texts == ({text} if text else set())


def test_histograms_of_many_methods_are_shares_of_each_parameter() -> None:
    figure = multiples.importance_by_method(only_section(*many()), 4)
    (patch,) = figure.axes[0].patches
    # Twice 3 and 4 of 8 values lie in the two bins, 1 is zero.
    np.testing.assert_allclose(patch.get_data().values, [37.5, 50.0])


def test_of_many_parameters_the_largest_are_drawn() -> None:
    sizes = {f"layer_{size}": size for size in (5, 1, 9, 2, 8, 3, 7, 4)}
    importance = {name: histogram(np.ones(size)) for name, size in sizes.items()}
    seeds = (dataclasses.replace(make_result().seeds[0], importance=importance),)
    kept = multiples.largest_parameters(only_section(make_result(seeds=seeds)))
    assert kept == ["layer_3", "layer_4", "layer_5", "layer_7", "layer_8", "layer_9"]


def test_methods_side_by_side_differ_in_color_whatever_else_the_report_has() -> None:
    others = many(tuple(f"method_{number:02d}" for number in range(20)))
    few = many(("finetune", "joint", "mas"), experiment="another")
    large, small = sorted(
        sections.sections([*others, *few]), key=lambda section: -len(section.methods)
    )
    assert len(large.methods) == 20
    assert len({looks.look(method.index).color for method in small.methods}) == 3


def test_memory_of_methods_that_hold_the_same_is_one_line() -> None:
    kib = 1024
    alone = with_memory(many()[1], parameters=(kib, kib), kept=(kib, 9 * kib), training=(0, 0))
    alike = [
        with_memory(result, parameters=(kib, kib), kept=(kib, kib), training=(kib, 2 * kib))
        for result in many()[2:4]
    ]
    section = only_section(many()[0], alone, *alike)
    groups = [[m.label for m in methods] for methods, _ in memory_report.alike(section)]
    assert groups == [["joint"], ["si", "mas"]]
    kept, learning = memory_report.memory_along_sequence(section, 3).axes
    # In MiB: 2 and 10 KiB; 2 KiB at rest and 3 and 4 KiB while learning.
    np.testing.assert_allclose([_y(line) for line in kept.lines], np.array([[2, 10], [2, 2]]) / kib)
    np.testing.assert_allclose(
        [_y(line) for line in learning.lines], np.array([[2, 10], [3, 4]]) / kib
    )


def test_memory_is_tabulated_where_it_was_counted() -> None:
    mib = 2**20
    counted = with_memory(
        make_result(), parameters=(mib, mib), kept=(mib, 20 * mib), training=(5 * mib, 3 * mib)
    )
    section = only_section(counted, many()[0])
    page = Page(memory_report.memory_table(section))
    assert page.table("Memory, MiB")[1:] == [
        ["mas", "1.00", "1.00", "20.0", "21.0", "24.0"],
        ["finetune", *["–"] * 5],
    ]


def test_results_without_memory_have_no_picture_of_it() -> None:
    pictures = section_pictures(only_section(make_result()), "1")
    assert pictures is not None
    assert pictures.memory is None


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page about five methods whose memory is counted."""
    counts = {"parameters": (4000, 4000), "kept": (0, 4000), "training": (8000, 8000)}
    runs = [with_memory(result, **counts) for result in many()]
    return write_report(write_results(tmp_path_factory.mktemp("runs"), *runs))


def test_a_page_about_many_methods_has_one_picture_of_each_kind(written: Path) -> None:
    page = Page(written.read_text(encoding="utf-8"))
    # Outcomes, along the sequence, matrices, memory, importance: for the desk and for the phone.
    assert len(page.all("img")) == len(page.all("source")) == 5
    assert len(list(written.parent.glob("*.png"))) == 10
    assert all(len(attributes["alt"] or "") > 40 for _, attributes in page.all("img"))


def test_pictures_of_many_methods_have_the_same_bytes_again(written: Path, tmp_path: Path) -> None:
    again = write_report(written.parent.parent, tmp_path)
    for path in written.parent.iterdir():
        assert (again.parent / path.name).read_bytes() == path.read_bytes()


@needs_browser
def test_a_page_about_many_methods_does_not_scroll_sideways(written: Path, tmp_path: Path) -> None:
    # All details open, as they hold the widest tables.
    source = written.read_text(encoding="utf-8").replace("<details>", "<details open>")
    measured = in_frames(source, (1200, 390), tmp_path)
    assert [frame["viewport"] for frame in measured] == [1200, 390]
    assert [frame["page"] for frame in measured] == [1200, 390]


def _x(line: Any) -> list[float]:
    """Where a line's points lie along x."""
    return np.asarray(line.get_xdata(), np.float64).tolist()


def _y(line: Any) -> list[float]:
    """Where they lie along y."""
    return np.asarray(line.get_ydata(), np.float64).tolist()
