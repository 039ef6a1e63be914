"""The README's tables of recorded runs are what their commands print, line by line."""

from pathlib import Path

import pytest

from experiments import registry, results
from experiments.report import projections
from experiments.results import Result, SeedRecord
from tests import readme_tables

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
TABLES = {
    name: entry.table
    for entries in (registry.EXPERIMENTS, registry.GROUPS)
    for name, entry in entries.items()
    if entry.table is not None
}


@pytest.fixture(autouse=True)
def at_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    """The commands name folders from there."""
    monkeypatch.chdir(ROOT)


@pytest.mark.parametrize("command", readme_tables.commands(README))
def test_a_table_is_what_its_command_prints(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = readme_tables.printed(command, capsys)
    assert readme_tables.shown(README, command, len(lines) + 1)[:-1] == lines
    # Nor is there a row more than is printed.
    assert readme_tables.shown(README, command, len(lines) + 1)[-1] == ""


@pytest.mark.parametrize("name", TABLES)
def test_what_is_recorded_and_has_a_table_in_the_papers_layout_is_shown(name: str) -> None:
    folder = f"experiments/recorded/{name}"
    if (ROOT / folder).is_dir():
        command = f"python -m {TABLES[name].__module__} {folder}"
        assert command in readme_tables.commands(README)


def test_a_recorded_group_has_nothing_but_results_of_its_members() -> None:
    for name, group in registry.GROUPS.items():
        folder = ROOT / "experiments" / "recorded" / name
        found = {path.relative_to(folder) for path in folder.rglob("*") if path.is_file()}
        assert {path.name for path in found} <= {results.FILE_NAME, projections.FILE_NAME}
        assert {path.parts[0] for path in found} <= set(group.members)


# The helper finds what it should.


def test_a_table_that_is_not_what_is_printed_is_found(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "facts_2" / "mas"
    folder.mkdir(parents=True)
    record = SeedRecord(seed=0, accuracy=((0.5, 0.1), (0.3, 0.6)), overall=(0.2, 0.25))
    result = Result(
        experiment="facts_2", method="mas", description="", tasks=("T1", "T2"), published={},
        config={}, command="", versions={}, machine={}, seeds=(record,),
    )  # fmt: skip
    results.write(result, folder / results.FILE_NAME)
    command = f"python -m experiments.analyses.fact_tables {tmp_path}"
    lines = readme_tables.printed(command, capsys)
    assert lines[0].startswith("| method ")
    assert lines[-1] == "Not run: facts_4."
    for gap in ("", "\n"):
        text = f"Facts:\n\n<!-- table: {command} -->\n{gap}" + "\n".join([*lines, "", "More."])
        assert readme_tables.commands(text) == [command]
        assert readme_tables.shown(text, command, len(lines)) == lines
    other = text.replace("0.300", "0.310")
    assert readme_tables.shown(other, command, len(lines)) != lines


def test_only_this_repositorys_commands_are_run(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="begins with python -m experiments"):
        readme_tables.printed("python -m json.tool x", capsys)
