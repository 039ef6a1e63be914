"""The report: what the page says, what its pictures show, and that a browser shows them."""

import base64
import dataclasses
import html
import html.parser
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest

from experiments import results
from experiments.report import figures, looks, sections, write_report
from experiments.report.importance import importance_bars
from experiments.report.markup import element
from experiments.report.page import page as html_page
from experiments.report.pictures import render
from experiments.results import Result, SeedRecord

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


def needs_browser(test: Callable) -> Callable:
    """Mark a test that opens a page, and skip it where there is no browser."""
    reason = "neither chromium nor google-chrome is on the PATH"
    return pytest.mark.browser(pytest.mark.skipif(CHROMIUM is None, reason=reason)(test))


HOSTILE = "<script>alert('1')</script>\"&<img src=x onerror=y> $\\frac$ _a"
KERNEL = "trunk/hidden_0/kernel"


class Page(html.parser.HTMLParser):
    """What a browser would find on a page: elements in order, tables as text, all text."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.tables: list[tuple[str, list[list[str]]]] = []
        self.text = ""
        self._rows: list[list[str]] = []
        self._caption = ""
        self._inside: list[str] = []
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._inside.append(tag)
        if tag == "table":
            self._rows, self._caption = [], ""
        if tag == "tr":
            self._rows.append([])
        if tag in ("td", "th"):
            self._rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        while self._inside and self._inside.pop() != tag:
            pass
        if tag == "table":
            self.tables.append((self._caption, self._rows))

    def handle_data(self, data: str) -> None:
        if "style" in self._inside:
            return
        self.text += data
        if "caption" in self._inside:
            self._caption += data
        elif "td" in self._inside or "th" in self._inside:
            self._rows[-1][-1] += data

    def table(self, caption: str) -> list[list[str]]:
        """The rows of the first table with this caption."""
        return next(rows for name, rows in self.tables if name == caption)

    def all(self, *names: str) -> list[tuple[str, dict[str, str | None]]]:
        """The elements of these names, in order."""
        return [(name, attributes) for name, attributes in self.elements if name in names]


def make_result(**changes: Any) -> Result:
    """Two seeds of two tasks, with numbers to compute by hand."""
    histogram = {"log10_edges": [-1.0, -0.5, 0.0], "counts": [3, 4], "zeros": 1}
    seed = SeedRecord(
        seed=3,
        accuracy=((0.9, 0.5), (0.8, 1.0)),
        seconds=({"training": 1.0, "importance": 0.5}, {"training": 2.0, "importance": 0.5}),
        importance={KERNEL: histogram},
    )
    other = dataclasses.replace(
        seed, seed=4, accuracy=((1.0, 0.5), (0.7, 0.9)), seconds=({"training": 5.0},)
    )
    result = Result(
        experiment="split_digits",
        method="mas",
        description="Two digits each.\n\nSeen twice\nin two lines.\n\n    python -m experiments",
        tasks=("0 and 1", "2 and 3"),
        published={"a paper, table 2": {"average_accuracy": 0.9886, "forgetting": 0.00071}},
        config={"strength": 0.2, "hidden_sizes": [64, 64]},
        command="python -m experiments compare split_digits",
        versions={"jax": "0.10.2"},
        machine={"cores": 2},
        seeds=(seed, other),
    )
    return dataclasses.replace(result, **changes)


def finetune(**changes: Any) -> Result:
    """A method beside the first, without importance."""
    seeds = tuple(
        dataclasses.replace(record, importance={}, accuracy=((0.9, 0.5), (0.6, 0.99)))
        for record in make_result().seeds
    )
    return make_result(method="finetune", seeds=seeds, config={"strength": 0.0}, **changes)


def write_results(directory: Path, *written: Result) -> Path:
    """One folder for each, in order."""
    for number, result in enumerate(written):
        folder = directory / str(number)
        folder.mkdir(parents=True)
        results.write(result, folder / results.FILE_NAME)
    return directory


def words(*written: Result) -> Page:
    """The page about `written`, its pictures left out, as drawing takes longer than all else."""
    return Page(html_page([(section, None) for section in sections.sections(written)]))


def only_section(*written: Result) -> sections.Section:
    """The one section that `written` makes."""
    (section,) = sections.sections(written)
    return section


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page about two experiments, one with hostile names throughout."""
    hostile = make_result(
        experiment=HOSTILE,
        method=HOSTILE,
        description=HOSTILE,
        tasks=(HOSTILE, "_b"),
        published={HOSTILE: {"average_accuracy": 0.9}},
        config={HOSTILE: HOSTILE},
        command=HOSTILE,
        versions={HOSTILE: HOSTILE},
        machine={HOSTILE: HOSTILE},
        seeds=tuple(
            dataclasses.replace(record, importance={HOSTILE: record.importance[KERNEL]})
            for record in make_result().seeds
        ),
    )
    runs = write_results(tmp_path_factory.mktemp("runs"), finetune(), make_result(), hostile)
    return write_report(runs)


@pytest.fixture(scope="module")
def page(written: Path) -> Page:
    """The same page, parsed."""
    return Page(written.read_text(encoding="utf-8"))


def test_the_page_lies_in_the_folder_report_by_default(written: Path) -> None:
    assert written.parts[-2:] == ("report", "index.html")


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no result\.json below"):
        write_report(tmp_path)
    assert not list(tmp_path.iterdir())


def test_every_picture_is_inside_the_page_and_beside_it(written: Path, page: Page) -> None:
    addresses = [a.get("src") or a.get("srcset") or "" for _, a in page.all("img", "source")]
    embedded = {base64.b64decode(a.removeprefix("data:image/png;base64,")) for a in addresses}
    beside = [path.read_bytes() for path in written.parent.glob("*.png")]
    assert embedded == set(beside)
    # Along the sequence and importance in 2 widths each, and a matrix per method; where there
    # are two methods their outcomes in 2 widths too.
    assert len(addresses) == len(beside) == (2 + 2 + 2 + 2) + (2 + 2 + 1)
    assert all(content.startswith(b"\x89PNG") for content in beside)


def test_the_page_needs_nothing_else_and_runs_nothing(page: Page) -> None:
    names = {name for name, _ in page.elements}
    assert not names & {"script", "link", "iframe", "object", "base"}
    links = [attributes["href"] for _, attributes in page.all("a")]
    assert links == ["#experiment-1", "#experiment-2"]
    attributes = {name for _, attributes in page.elements for name in attributes}
    assert not {name for name in attributes if name.startswith("on")}
    policies = [a["content"] for _, a in page.all("meta") if "http-equiv" in a]
    assert policies == ["default-src 'none'; img-src data:; style-src 'unsafe-inline'"]


def test_names_from_files_are_shown_as_they_are(page: Page) -> None:
    # Section: link, heading, description, tasks, …: each is text and none is an element.
    assert page.text.count(HOSTILE) > 15
    assert not [a for _, a in page.all("img") if a.get("src") == "x"]
    settings = page.table("Settings")
    assert settings[1:] == [[HOSTILE, HOSTILE]]
    assert page.table("Versions and machine")[1:] == [
        [f"machine: {HOSTILE}", HOSTILE],
        [HOSTILE, HOSTILE],
    ]


def test_pictures_have_words_and_sizes(page: Page) -> None:
    for _, attributes in page.all("img"):
        assert len(attributes["alt"] or "") > 40
        assert int(attributes["width"] or 0) > 0 < int(attributes["height"] or 0)
    # Final accuracies of mas: the means of (0.8, 0.7) and (1.0, 0.9).
    said = "finetune: 0 and 1 60.00 %, 2 and 3 99.00 %; mas: 0 and 1 75.00 %, 2 and 3 95.00 %."
    assert any((attributes["alt"] or "").endswith(said) for _, attributes in page.all("img"))


def test_headings_go_down_one_level_at_a_time(page: Page) -> None:
    levels = [int(name[1]) for name, _ in page.all("h1", "h2", "h3", "h4", "h5", "h6")]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert max(np.diff(levels)) == 1


def test_table_headers_say_what_they_head(page: Page) -> None:
    assert len(page.all("caption")) == len(page.all("table"))
    assert {attributes.get("scope") for _, attributes in page.all("th")} == {
        "col",
        "colgroup",
        "row",
    }
    _, html_attributes = page.all("html")[0]
    assert html_attributes["lang"] == "en"


def test_results_table_has_the_means_and_intervals() -> None:
    rows = words(finetune(), make_result()).table("After the last task")[2:]
    # mas: accuracy 0.9 and 0.8, forgetting 0.1 and 0.3; the half-width of two values a, b is
    # t(0.975, 1) |a - b| / 2 = 12.7062 |a - b| / 2.
    assert rows[1] == [
        "mas",
        "2",
        "85.00± 63.53",
        "20.000± 127.062",
        "−20.000± 127.062",
        "75.00± 63.53",
        "95.00± 63.53",
    ]
    assert rows[0][:4] == ["finetune", "2", "79.50± 0.00", "30.000± 0.000"]


def test_published_numbers_are_marked_and_have_their_source() -> None:
    rows = words(finetune(), make_result()).table("After the last task")
    assert rows[-1] == ["published a paper, table 2", "–", "98.86", "0.071", "–", "–", "–"]


def test_the_best_own_value_is_emphasised_and_no_published_one(tmp_path: Path) -> None:
    path = write_report(write_results(tmp_path, finetune(), make_result()))
    table = path.read_text(encoding="utf-8").split("</table>")[0]
    # Accuracy, forgetting and backward transfer of mas, and each task's best.
    assert re.findall(r"<strong>([^<]*)</strong></?\w", table.split("<tbody>")[1]) == [
        "99.00",
        "85.00",
        "20.000",
        "−20.000",
        "75.00",
    ]


def test_a_single_seed_has_no_interval() -> None:
    result = make_result(seeds=make_result().seeds[:1])
    page = words(result)
    row = page.table("After the last task")[2]
    assert row == ["mas", "1", "90.00", "10.000", "−10.000", "80.00", "100.00"]


def test_one_task_has_accuracy_and_no_forgetting() -> None:
    seeds = (SeedRecord(seed=0, accuracy=((0.75,),)),)
    page = words(make_result(tasks=("only",), seeds=seeds, published={}))
    assert page.table("After the last task")[2:] == [["mas", "1", "75.00", "–", "–", "75.00"]]
    assert "split_digits, 1 task" in page.text


def test_pictures_that_were_left_out_are_counted() -> None:
    result = make_result()
    for count, some in ((1, "1 picture"), (2, "2 pictures")):
        page = words(finetune(), dataclasses.replace(result, skipped=(0, count)))
        assert f"; left out {some} of {result.tasks[1]} that could not be read" in page.text
    assert "left out" not in words(finetune(), result).text


def test_unfinished_seeds_are_left_out_and_named() -> None:
    finished, other = make_result().seeds
    unfinished = dataclasses.replace(other, accuracy=other.accuracy[:1])
    page = words(finetune(), make_result(seeds=(finished, unfinished)))
    assert page.table("After the last task")[3][:3] == ["mas", "1", "90.00"]
    assert "have not reached the last task and are left out: mas: 4." in page.text


def test_an_experiment_without_a_finished_seed_has_no_pictures() -> None:
    seeds = (SeedRecord(seed=7),)
    page = words(make_result(seeds=seeds))
    assert not page.all("img")
    assert page.table("After the last task")[2][:3] == ["mas", "none finished", "–"]
    assert "left out: mas: 7." in page.text


def test_a_matrix_of_another_size_is_refused() -> None:
    seeds = (SeedRecord(seed=7, accuracy=((0.5, 0.5, 0.5),)),)
    with pytest.raises(ValueError, match=r"seed 7 of 'mas' in 'split_digits' .* lengths \[3\]"):
        words(make_result(seeds=seeds))


def test_how_it_was_made_is_told() -> None:
    page = words(finetune(), make_result())
    assert "python -m experiments compare split_digits" in page.text
    assert "seeds: 3, 4" in page.text
    assert page.table("Settings") == [
        ["Name", "finetune", "mas"],
        ["strength", "0.0", "0.2"],
        ["hidden_sizes", "–", "64, 64"],
    ]
    assert page.table("Versions and machine")[1:] == [["machine: cores", "2"], ["jax", "0.10.2"]]


def test_wall_times_are_means_and_totals_by_phase() -> None:
    # Training 1 + 2 and 5, importance 0.5 + 0.5 and none: all phases 4 and 5 seconds.
    page = words(make_result())
    assert page.table("Wall times, seconds") == [
        ["Method", "One seed, mean", "All seeds, total"],
        ["training", "importance", "all phases"] * 2,
        ["mas", "4.00", "0.50", "4.50", "8.00", "1.00", "9.00"],
    ]
    assert page.table("Every seed")[2:] == [
        ["3", "90.00", "10.000", "4.0"],
        ["4", "80.00", "30.000", "5.0"],
    ]


def test_a_docstrings_lines_flow_and_its_commands_stay(tmp_path: Path) -> None:
    path = write_report(write_results(tmp_path, make_result()))
    source = path.read_text(encoding="utf-8")
    assert "<p>Seen twice\nin two lines.</p>" in source
    assert "<pre>python -m experiments</pre>" in source


def test_namesakes_are_told_apart_by_their_settings() -> None:
    stronger = make_result(config={"strength": 2.0, "hidden_sizes": [64, 64]})
    labels = [method.label for method in only_section(make_result(), stronger).methods]
    assert labels == ["mas (strength=0.2)", "mas (strength=2.0)"]


def test_equal_runs_are_numbered() -> None:
    labels = [method.label for method in only_section(make_result(), make_result()).methods]
    assert labels == ["mas", "mas #2"]


def test_runs_over_other_tasks_are_another_section() -> None:
    found = sections.sections([make_result(), make_result(tasks=("2 and 3", "0 and 1"))])
    assert [section.tasks[0] for section in found] == ["0 and 1", "2 and 3"]


def test_a_method_looks_the_same_in_every_section() -> None:
    first, second = sections.sections(
        [finetune(), make_result(), make_result(experiment="split_mnist")]
    )
    assert first.methods[1].index == second.methods[0].index


def test_looks_of_21_methods_differ() -> None:
    assert len({looks.look(index) for index in range(21)}) == 21


def test_the_same_results_give_the_same_bytes(tmp_path: Path) -> None:
    runs = write_results(tmp_path / "runs", make_result())
    pages = [write_report(runs, tmp_path / name).parent for name in ("a", "b")]
    # A reader's own matplotlib settings change nothing either.
    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "red", "savefig.dpi": 30}):
        pages.append(write_report(runs, tmp_path / "c").parent)
    first, *others = [{p.name: p.read_bytes() for p in folder.iterdir()} for folder in pages]
    assert all(other == first for other in others)


def test_histograms_are_summed_over_seeds_bin_by_bin() -> None:
    first, second = make_result().seeds
    shifted = {"log10_edges": [-0.5, 0.0, 0.5], "counts": [10, 20], "zeros": 5}
    second = dataclasses.replace(second, importance={KERNEL: shifted})
    (method,) = only_section(make_result(seeds=(first, second))).methods
    bars = importance_bars(method, KERNEL)
    np.testing.assert_array_equal(bars.log10_edges, [-1.0, -0.5, 0.0, 0.5])
    np.testing.assert_array_equal(bars.counts, [3, 14, 20])
    # 6 zeros among 3 + 14 + 20 + 6 values.
    assert (bars.total, bars.zero_share) == (43, pytest.approx(6 / 43))


def test_histograms_of_real_values_keep_every_value() -> None:
    rng = np.random.default_rng(0)
    records = [
        dataclasses.replace(
            record,
            importance={KERNEL: results.histogram(scale * rng.lognormal(size=500) - 0.0)},
        )
        for record, scale in zip(make_result().seeds, (1e-6, 1e3), strict=True)
    ]
    (method,) = only_section(make_result(seeds=tuple(records))).methods
    assert importance_bars(method, KERNEL).total == 1000


def test_histograms_with_other_bins_are_refused() -> None:
    first, second = make_result().seeds
    finer = {"log10_edges": [-1.0, -0.75, -0.5], "counts": [1, 1], "zeros": 0}
    second = dataclasses.replace(second, importance={KERNEL: finer})
    (method,) = only_section(make_result(seeds=(first, second))).methods
    with pytest.raises(ValueError, match=f"'{KERNEL}' have different bins from seed to seed"):
        importance_bars(method, KERNEL)


def test_panels_of_importance_are_in_the_order_of_the_layers() -> None:
    # As records have them, in the alphabet's order.
    names = ["conv1/kernel", "conv10/kernel", "conv11/kernel", "conv2/kernel"]
    importance = {name: results.histogram([0.0, 0.1, 3.0]) for name in names}
    seeds = (dataclasses.replace(make_result().seeds[0], importance=importance),)
    figure = figures.importance_histograms(only_section(make_result(seeds=seeds)), 4)
    wanted = ["conv1/kernel", "conv2/kernel", "conv10/kernel", "conv11/kernel"]
    assert [axes.get_title(loc="left") for axes in figure.axes[:4]] == wanted


def test_importance_of_zeros_alone_is_drawn() -> None:
    zeros = {"log10_edges": [], "counts": [], "zeros": 8}
    seeds = (dataclasses.replace(make_result().seeds[0], importance={KERNEL: zeros}),)
    figure = figures.importance_histograms(only_section(make_result(seeds=seeds)), 3)
    assert [text.get_text() for text in figure.axes[0].texts] == ["zeros 100.0 %"]


def test_zeros_are_stated_in_the_table_and_the_picture(page: Page) -> None:
    # 1 of 8 values in each of two seeds; fine-tuning has no Ω, and no column.
    zeros = [["Parameter", "mas"], [KERNEL, "12.50 % of 16"]]
    assert ("Exact zeros in Ω", zeros) in page.tables
    figure = figures.importance_histograms(only_section(make_result()), 3)
    assert [text.get_text() for text in figure.axes[0].texts] == ["zeros 12.5 %"]


def test_heat_map_dims_what_is_not_learned_and_writes_every_mean() -> None:
    section = only_section(make_result())
    figure = figures.accuracy_heat_map(section.methods[0], figures.accuracy_limits(section))
    axes = figure.axes[0]
    (image,) = axes.get_images()
    shown = image.get_array()
    assert isinstance(shown, np.ma.MaskedArray)
    np.testing.assert_array_equal(np.ma.getmaskarray(shown), [[False, True], [False, False]])
    # Means of the two seeds, row by row.
    assert [text.get_text() for text in axes.texts] == ["95.00", "50.00", "75.00", "95.00"]
    assert [text.get_color() == looks.FAINT for text in axes.texts] == [False, True, False, False]


def test_heat_map_keeps_97_to_100_percent_apart() -> None:
    accuracy = ((0.6, 0.5, 0.5), (0.97, 0.99, 0.5), (0.98, 0.995, 1.0))
    seeds = (SeedRecord(seed=0, accuracy=accuracy),)
    section = only_section(make_result(tasks=("a", "b", "c"), seeds=seeds))
    figure = figures.accuracy_heat_map(section.methods[0], figures.accuracy_limits(section))
    (image,) = figure.axes[0].get_images()
    colors = image.to_rgba(looks.error_scale([0.6, 0.97, 0.98, 0.99, 0.995, 1.0]))[:, :3]
    # Steps of at least 8 % of one channel's range: next to each other they are told apart.
    assert np.abs(np.diff(colors, axis=0)).max(axis=1).min() > 0.08


def test_each_task_is_drawn_from_when_it_is_learned() -> None:
    figure = figures.accuracy_along_sequence(only_section(finetune(), make_result()), 3)
    tasks = [
        [np.asarray(line.get_xdata(), np.float64).round().tolist() for line in axes.lines]
        for axes in figure.axes
    ]
    assert tasks == [[[1, 2]] * 2, [[2]] * 2, [[1, 2]] * 2]
    expected = looks.error_scale([0.95, 0.75])
    np.testing.assert_allclose(np.asarray(figure.axes[0].lines[1].get_ydata()), expected)
    # After both tasks the mean over seeds and tasks is 0.85; after the first it is task 1's.
    np.testing.assert_allclose(
        np.asarray(figure.axes[2].lines[1].get_ydata()), looks.error_scale([0.95, 0.85])
    )


def test_panels_share_one_scale_and_methods_keep_their_colors() -> None:
    section = only_section(finetune(), make_result())
    figure = figures.accuracy_along_sequence(section, 2)
    assert len({axes.get_ylim() for axes in figure.axes}) == 1
    wanted = [looks.look(method.index).color for method in section.methods]
    for axes in figure.axes:
        assert [line.get_color() for line in axes.lines] == wanted


def test_names_in_pictures_are_taken_literally() -> None:
    seeds = make_result().seeds
    section = only_section(make_result(method="_$x$", tasks=("$\\frac$", "_b"), seeds=seeds))
    figure = figures.accuracy_along_sequence(section, 3)
    assert render(figure, "drawn.png").content.startswith(b"\x89PNG")
    assert figure.axes[0].get_title(loc="left") == "task 1: $\\frac$"
    assert [text.get_text().strip() for text in figure.legends[0].get_texts()] == ["_$x$"]


def test_markup_escapes_text_and_attributes() -> None:
    made = element("p", "<i>", element("b", "&"), None, ["x"], title='"<', class_="a", id=None)
    assert made == '<p title="&quot;&lt;" class="a">&lt;i&gt;<b>&amp;</b>x</p>'


@needs_browser
def test_a_browser_shows_every_picture_and_complains_of_nothing(
    written: Path, tmp_path: Path
) -> None:
    picture = tmp_path / "page.png"
    log = browse(written, tmp_path / "a", f"--screenshot={picture}", "--window-size=1200,2000")
    assert "CONSOLE" not in log.stderr
    assert picture.stat().st_size > 20_000

    # The page as it is, in two frames, and a script around it that measures them.
    frames = "".join(
        f'<iframe srcdoc="{html.escape(written.read_text(encoding="utf-8"))}"'
        f' style="width: {width}px; height: 2000px; border: 0"></iframe>'
        for width in (1200, 360)
    )
    around = tmp_path / "around.html"
    around.write_text(f"<!doctype html><body>{frames}<script>{MEASURE}</script></body>")
    log = browse(around, tmp_path / "b", "--dump-dom", "--window-size=1400,4200")
    # Shows that complaints would have been seen above.
    assert "CONSOLE" in log.stderr
    found = re.search(r"<pre>(.*?)</pre>", log.stdout)
    assert found is not None
    desk, phone = json.loads(found[1])
    for frame in (desk, phone):
        assert len(frame["images"]) == 1 + 2 * 2 + 3
        assert all(width > 100 < height for width, height in frame["images"])
        # Wide tables scroll in their boxes: the page itself never does.
        assert frame["page"] == frame["viewport"]
    assert (desk["viewport"], phone["viewport"]) == (1200, 360)
    # The charts have another layout on a phone.
    assert desk["images"][0][0] > 2 * phone["images"][0][0]


MEASURE = """
console.error("heard");
onload = () => {
  const pages = [...document.querySelectorAll("iframe")].map(frame => frame.contentDocument);
  const shown = document.createElement("pre");
  shown.textContent = JSON.stringify(pages.map(page => ({
    images: [...page.images].map(image => [image.naturalWidth, image.naturalHeight]),
    page: page.documentElement.scrollWidth,
    viewport: page.documentElement.clientWidth,
  })));
  document.body.replaceChildren(shown);
};
"""


def in_frames(source: str, widths: tuple[int, ...], tmp_path: Path) -> list[dict[str, Any]]:
    """What a browser measures of a page in frames of these widths."""
    frames = "".join(
        f'<iframe srcdoc="{html.escape(source)}" style="width: {width}px; height: 2000px; '
        'border: 0"></iframe>'
        for width in widths
    )
    around = tmp_path / "around.html"
    around.write_text(f"<!doctype html><body>{frames}<script>{MEASURE}</script></body>")
    log = browse(around, tmp_path / "profile", "--dump-dom", "--window-size=1400,4200")
    found = re.search(r"<pre>(.*?)</pre>", log.stdout)
    assert found is not None
    return json.loads(found[1])


def browse(page: Path, profile: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Open a page in a headless browser with a profile of its own."""
    assert CHROMIUM is not None
    command = [
        CHROMIUM,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--hide-scrollbars",
        "--enable-logging=stderr",
        f"--user-data-dir={profile}",
        *options,
        page.as_uri(),
    ]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
