"""The report's tables in the paper's layout: where they stand, what they say, that they fit."""

import dataclasses
import re
from pathlib import Path

import pytest

from experiments import cli, registry, results
from experiments.benchmarks.markdown import table
from experiments.report import Source, papers, write_report
from experiments.report.page import page as html_page
from experiments.report.papers import Printed
from experiments.report.sections import sections
from experiments.results import Result, SeedRecord
from tests.test_report import HOSTILE, Page, in_frames, make_result, needs_browser


def keep(folder: Path, result: Result) -> Path:
    """Write `result` into a folder of its method's name."""
    (folder / "m").mkdir(parents=True)
    results.write(result, folder / "m" / results.FILE_NAME)
    return folder


def made(folder: Path) -> str:
    """How to read it."""
    return f"{table(['method', 'ours', 'paper: theirs'], [['mas', folder.name, '0.5']])}\n\nEnd."


def of_text(text: str, name: str = "split_digits", tasks: tuple[str, ...] = ()) -> Printed:
    """What was printed as `text`."""
    return Printed(name=name, folder=".", tasks=tasks, reading="How.", text=text)


def shown(*printed: Printed) -> Page:
    """The page about one experiment and what was printed, without pictures."""
    return Page(source_of(*printed))


def source_of(*printed: Printed) -> str:
    """Its HTML."""
    drawn = [(section, None) for section in sections([make_result()])]
    return html_page(drawn, printed=printed)


SINGLE = Source("split_digits", (), made)
GROUP = Source("pair", ("split_digits", "other"), made)


@pytest.mark.parametrize("folder", [".", "split_digits", "deep/split_digits"])
def test_an_experiment_has_its_table_of_its_own_or_the_reports_folder(
    tmp_path: Path, folder: str
) -> None:
    keep(tmp_path / folder, make_result())
    (printed,) = papers.read_all(tmp_path, [SINGLE])
    assert (printed.folder, printed.tasks) == (folder, ("0 and 1", "2 and 3"))
    assert (printed.reading, printed.text) == ("How to read it.", made(tmp_path / folder))


@pytest.mark.parametrize("folder", [".", "pair", "deep/pair"])
def test_a_group_has_its_table_of_the_folder_with_its_members(tmp_path: Path, folder: str) -> None:
    keep(tmp_path / folder / "split_digits", make_result())
    (printed,) = papers.read_all(tmp_path, [GROUP])
    assert (printed.folder, printed.tasks) == (folder, ())


def test_runs_that_are_no_comparison_have_no_table(tmp_path: Path) -> None:
    result = make_result()
    # A grid of strengths, another experiment, several, none finished, and one member alone.
    keep(tmp_path / "grid" / "strength=1", result)
    keep(tmp_path / "other" / "split_digits", dataclasses.replace(result, experiment="other"))
    keep(tmp_path / "mixed" / "split_digits", result)
    keep(tmp_path / "mixed" / "split_digits" / "x", dataclasses.replace(result, tasks=("a", "b")))
    unfinished = dataclasses.replace(result, seeds=(SeedRecord(seed=0),))
    keep(tmp_path / "begun" / "split_digits", unfinished)
    for folder in ("grid", "other", "mixed", "begun"):
        assert papers.read_all(tmp_path / folder, [SINGLE, GROUP]) == []
    alone = keep(tmp_path / "pair" / "split_digits", result)
    assert [printed.name for printed in papers.read_all(alone, [SINGLE, GROUP])] == ["split_digits"]


def test_a_table_that_cannot_be_made_says_why(tmp_path: Path) -> None:
    def refuse(_: Path) -> str:
        raise ValueError("nothing was measured")

    keep(tmp_path, make_result())
    (printed,) = papers.read_all(tmp_path, [Source("split_digits", (), refuse)])
    assert "There is no table: nothing was measured." in shown(printed).text


def test_the_table_stands_before_the_results_of_its_experiment(tmp_path: Path) -> None:
    keep(tmp_path, make_result())
    page = shown(*papers.read_all(tmp_path, [SINGLE]))
    (caption, rows), (next_caption, _), *_ = page.tables
    assert caption == "split_digits in the paper's layout"
    assert rows == [["method", "ours", "paper: theirs"], ["mas", tmp_path.name, "0.5"]]
    assert next_caption == "After the last task"
    for text in ("How to read it.", "End.", "quoted from Aljundi et al. (ECCV 2018)"):
        assert text in page.text


def test_a_groups_table_has_a_section_before_all_others() -> None:
    page = shown(of_text(made(Path("x")), name="pair"))
    links = [attributes["href"] for _, attributes in page.all("a")]
    assert links == ["#experiment-1", "#experiment-2"]
    named = [attributes["id"] for _, attributes in page.all("h2")]
    assert named == ["experiment-1", "experiment-2"]
    assert page.text.index("pair, in the paper's layout") < page.text.index("split_digits, 2 tasks")


def test_a_table_of_other_tasks_is_in_no_section() -> None:
    assert "How." not in shown(of_text(made(Path("x")), tasks=("2 and 3", "0 and 1"))).text


def test_ours_and_the_papers_are_told_apart() -> None:
    text = table(["method", "ours", "paper: theirs"], [["mas", "1", "2"], ["paper: all", "–", "3"]])
    cells = re.findall(r"<td([^>]*)>([^<]*)</td>", papers.papers_tables(of_text(text)))
    faint = ' class="published"'
    assert cells == [("", "1"), (faint, "2"), ("", "–"), (faint, "3")]
    assert '<tr class="published"><th scope="row"><span>paper: all' in source_of(of_text(text))


@pytest.mark.parametrize(
    ("heads", "row", "quoted"),
    [
        (["method", "paper: x"], ["mas", "1"], True),
        (["method", "x"], ["paper: all", "1"], True),
        (["method", "x"], ["mas", "paper"], False),
    ],
)
def test_what_is_quoted_is_said_and_that_stand_ins_are_not_the_papers(
    heads: list[str], row: list[str], quoted: bool
) -> None:
    said = papers.whose(of_text(table(heads, [row])))
    assert ("are quoted from Aljundi et al." in said) == quoted
    assert said.startswith("All numbers in it are ours") != quoted
    assert "is not the paper's set" in said


def test_several_tables_are_numbered() -> None:
    text = "\n\n".join([table(["a"], [["1"]]), table(["b"], [["2"]]), "Not run: x."])
    page = Page(papers.papers_tables(of_text(text)))
    name = "split_digits, table"
    assert page.tables == [(f"{name} 1 of 2", [["a"], ["1"]]), (f"{name} 2 of 2", [["b"], ["2"]])]
    assert page.text.endswith("Not run: x.")


@pytest.mark.parametrize("name", [HOSTILE, "a | b", "|:--|"])
def test_names_in_such_tables_are_shown_as_they_are(name: str) -> None:
    text = f"{table(['method', name], [[name, '1'], ['mas', name]])}\n\n{name}"
    page = shown(of_text(text, name=name))
    assert page.tables[0][1] == [["method", name], [name, "1"], ["mas", name]]
    assert not [a for _, a in page.all("img") if a.get("src") == "x"]
    assert not page.all("script")


def test_every_table_of_ours_says_how_it_is_read(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    given: list[Source] = []
    monkeypatch.setattr(cli, "write_report", lambda _, out, sources: given.extend(sources) or out)
    cli.main(["report", str(tmp_path)])
    with_table = {name for name, entry in registry.EXPERIMENTS.items() if entry.table is not None}
    assert {source.name for source in given} == with_table | set(registry.GROUPS)
    for source in given:
        assert "\n\n" in (source.make.__doc__ or ""), source.name
        assert source.members == (
            registry.GROUPS[source.name].members if source.name in registry.GROUPS else ()
        )


def test_a_written_report_has_the_tables(tmp_path: Path) -> None:
    keep(tmp_path / "pair" / "split_digits", make_result())
    path = write_report(tmp_path, tmp_path / "out", [SINGLE, GROUP])
    page = Page(path.read_text(encoding="utf-8"))
    # The group's folder, and then the experiment's.
    values = [rows[1][1] for name, rows in page.tables if name.endswith("in the paper's layout")]
    assert values == ["pair", "split_digits"]
    # Pictures have their section's number: the group's is the first, and has none.
    assert {path.name[:2] for path in (tmp_path / "out").glob("*.png")} == {"2-"}


@needs_browser
def test_a_wide_table_scrolls_in_its_box_on_a_phone(tmp_path: Path) -> None:
    heads = ["method", *(f"paper: Sequence {n} → Sequence {n + 1}" for n in range(12))]
    text = table(heads, [["mas", *["53.24 (−0.4) / 55.00"] * 12]])
    measured = in_frames(source_of(of_text(text, name="pair")), (1200, 400), tmp_path)
    widths = [(frame["viewport"], frame["page"]) for frame in measured]
    assert widths == [(1200, 1200), (400, 400)]
