"""Experiments that one command compares, and the paper's table of all of them."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tyro

from experiments import cli, registry, results
from experiments.fact_learning import FactLearning
from experiments.object_recognition import SEQUENCES, ObjectRecognition
from experiments.registry import GROUPS, Experiment, Group
from tests import tiny

Command = Callable[..., tuple[int, str]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reversed(tiny.Tiny):
    """The tiny sequence from its end."""

    classes: tuple[tuple[int, ...], ...] = tuple(reversed(tiny.Tiny().classes))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Both(tiny.Tiny):
    """The tiny sequence from both ends."""

    classes: tyro.conf.Suppress[tuple[tuple[int, ...], ...]] = ((0,), (1,))


def table(folder: Path) -> str:
    """What was learned where, and with how many epochs."""
    found = results.read_all(folder)
    return "\n".join(
        f"| {r.experiment} | {r.method} | {r.tasks[0]} | {r.config['epochs']} |" for r in found
    )


@pytest.fixture(autouse=True)
def with_a_group(monkeypatch: pytest.MonkeyPatch) -> None:
    """Register two tiny sequences and the group of both."""
    backwards = Experiment(Reversed(), lambda _: tuple(reversed(tiny.tasks())))
    monkeypatch.setitem(registry.EXPERIMENTS, "tiny", tiny.EXPERIMENT._replace(table=table))
    monkeypatch.setitem(registry.EXPERIMENTS, "reversed", backwards)
    group = Group(Both(), ("tiny", "reversed"), ("classes",), table)
    monkeypatch.setitem(registry.GROUPS, "both", group)


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Command:
    """Gives the exit status of a command line, and what it printed."""

    def run(*arguments: str) -> tuple[int, str]:
        try:
            cli.main([*arguments])
            status = 0
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else 1
        captured = capsys.readouterr()
        return status, captured.out + captured.err

    return run


def test_a_group_is_compared_member_by_member_and_shown_at_the_end(
    command: Command, tmp_path: Path
) -> None:
    line = ["compare", "both", "--only", "finetune", "--epochs", "1", "--seeds", "1"]
    status, text = command(*line, "--out", str(tmp_path))
    assert status == 0
    written = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.json"))
    assert [path for path in written if path.endswith("result.json")] == [
        "reversed/finetune/result.json",
        "tiny/finetune/result.json",
    ]
    assert text.endswith("| reversed | finetune | 0/5 | 1 |\n| tiny | finetune | 4/1 | 1 |\n\n")


def test_a_stopped_group_goes_on_where_it_was(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = ["compare", "both", "--only", "finetune", "--epochs", "1", "--seeds", "1"]
    run = cli.runs.run

    def stop(name: str, *arguments: Any, **options: Any) -> Any:
        if name == "reversed":
            raise KeyboardInterrupt
        return run(name, *arguments, **options)

    monkeypatch.setattr(cli.runs, "run", stop)
    status, _ = command(*line, "--out", str(tmp_path))
    assert status == 130
    kept = (tmp_path / "tiny" / "finetune" / "result.json").read_bytes()
    monkeypatch.setattr(cli.runs, "run", run)
    status, _ = command(*line, "--out", str(tmp_path))
    assert status == 0
    assert (tmp_path / "tiny" / "finetune" / "result.json").read_bytes() == kept
    assert (tmp_path / "reversed" / "finetune" / "result.json").exists()


def test_what_a_later_member_refuses_is_said_before_the_first_one_runs(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(_: object) -> Any:
        raise FileNotFoundError("reversed wants a file")

    absent = Experiment(Reversed(), missing)
    monkeypatch.setitem(registry.EXPERIMENTS, "reversed", absent)
    status, text = command("compare", "both", "--out", str(tmp_path))
    assert status == 2
    assert "reversed wants a file" in text
    assert not list(tmp_path.rglob("*.json"))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--only", "finetun"), "did you mean 'finetune'"),
        (("--share-first-task", "--no-reset-optimizer"), "or give --no-share-first-task"),
        (("--classes", "1"), "--classes"),
    ],
)
def test_a_group_refuses(
    command: Command, tmp_path: Path, arguments: tuple[str, ...], words: str
) -> None:
    status, text = command("compare", "both", *arguments, "--out", str(tmp_path))
    assert status == 2
    assert words in " ".join(text.split())


def test_a_member_that_is_not_registered_is_answered_with_the_nearest() -> None:
    group = GROUPS["both"]._replace(members=("tiny", "revers"))
    with pytest.raises(ValueError, match="'revers'; did you mean 'reversed'"):
        group.configs(group.config)


def test_one_experiments_table_follows_its_comparison_and_no_single_run(
    command: Command, tmp_path: Path
) -> None:
    line = ["--epochs", "1", "--seeds", "1", "--out", str(tmp_path)]
    _, text = command("run", "tiny", "--method", "finetune", *line)
    assert "| 4/1 |" not in text
    _, text = command("compare", "tiny", "--only", "finetune", *line)
    assert text.endswith("| tiny | finetune | 4/1 | 1 |\n\n")


def test_groups_are_listed_and_can_only_be_compared(command: Command) -> None:
    assert "two_tasks" in command("list")[1]
    for name in ("run", "tune"):
        assert command(name, "two_tasks")[0] == 2


@pytest.mark.parametrize("name", registry.GROUPS)
def test_the_papers_groups_hand_their_settings_on(name: str) -> None:
    group = registry.GROUPS[name]
    shared = dataclasses.replace(group.config, batch_size=7, seeds=1)
    configs = group.configs(shared)
    assert tuple(configs) == group.members
    for member, config in configs.items():
        assert registry.name_of(config) == member
        assert (config.batch_size, config.seeds) == (7, 1)
        plain = registry.find(member).config
        for setting in group.own:
            assert getattr(config, setting) == getattr(plain, setting)
        # Given nothing else, the group runs what the members' own commands run.
        assert group.configs(group.config)[member] == plain


def test_the_members_differ_in_what_is_their_own() -> None:
    configs = GROUPS["two_tasks"].configs(GROUPS["two_tasks"].config)
    for member, config in configs.items():
        assert isinstance(config, ObjectRecognition)
        assert config.data == SEQUENCES[member]
    parts = GROUPS["facts"].configs(GROUPS["facts"].config).values()
    own = [(part.num_tasks, part.epochs) for part in parts if isinstance(part, FactLearning)]
    assert own == [(2, 3), (4, 12)]


def test_groups_of_pictures_share_their_first_task(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    seen = []
    monkeypatch.setattr(cli, "_compare", lambda command, _: seen.append(command.share_first_task))
    for name in ("two_tasks", "facts", "both", "flowers_birds"):
        cli.main(["compare", name, "--out", str(tmp_path)])
    assert seen == [True, True, False, False]
