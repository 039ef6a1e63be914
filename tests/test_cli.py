"""The command line as users meet it."""

import dataclasses
import sys
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

import mas_jax
from experiments import cli, registry, results, sequence, tables
from experiments.data.sequences import one_after_the_other
from experiments.data.types import DataNotFoundError, Examples, PictureSplits, Splits
from experiments.preemption import Preempted
from experiments.progress import Display, clock
from experiments.sequence import Epoch
from tests import tiny


@pytest.fixture(autouse=True)
def with_tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """Register the tiny sequence; its tasks come ready-made."""
    monkeypatch.setitem(registry.EXPERIMENTS, "tiny", tiny.EXPERIMENT)


def command(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """(exit status, standard output, standard error) of one command line."""
    try:
        cli.main([*arguments])
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 1
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_list_shows_every_experiment(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = command(capsys, "list")
    assert status == 0
    for text in ("split_digits", "split_mnist", "Claim:", "Run time:"):
        assert text in out


@pytest.mark.parametrize(
    ("arguments", "texts"),
    [
        ((), ("list", "run", "compare", "tune", "report")),
        (("run",), ("split_digits", "split_mnist")),
        (
            ("run", "split_digits"),
            ("--method", "--out", "--epochs", "--methods.mas.strength", "(default: 20)"),
        ),
        (("tune", "split_mnist"), ("--strengths", "--learning-rates")),
    ],
)
def test_help_reads_well(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], texts: tuple[str, ...]
) -> None:
    status, out, _ = command(capsys, *arguments, "--help")
    assert status == 0
    for text in texts:
        assert text in out


def test_compare_prints_a_table_and_where_the_results_are(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    out = str(tmp_path / "out")
    status, text, _ = command(capsys, "compare", "tiny", "--only", "mas", "finetune", "--out", out)
    assert status == 0
    for expected in ("mas", "finetune", "over 2 seeds", "average accuracy", "4/1", "report: "):
        assert expected in text
    assert "joint" not in text
    assert (tmp_path / "out" / "mas" / "result.json").exists()


def test_a_shared_first_task_is_learned_once_to_the_same_end(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command(capsys, "compare", "tiny", "--seeds", "1", "--out", str(tmp_path / "each"))
    learned = []
    train = sequence.train
    monkeypatch.setattr(
        sequence, "train", lambda *args: learned.append(args[1].task) or train(*args)
    )
    out = tmp_path / "shared"
    command(capsys, "compare", "tiny", "--seeds", "1", "--share-first-task", "--out", str(out))
    # The first task once, the others by each of the three methods.
    assert sorted(learned) == [0, 1, 1, 1, 2, 2, 2]
    for method in ("finetune", "joint", "mas"):
        each, shared = (
            results.read(tmp_path / how / method / "result.json").seeds[0]
            for how in ("each", "shared")
        )
        np.testing.assert_allclose(shared.accuracy, each.accuracy, atol=0.02)
        np.testing.assert_allclose(shared.loss, each.loss, rtol=1e-4)


def test_a_first_task_is_not_shared_where_methods_differ_on_it(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    arguments = ("--share-first-task", "--no-reset-optimizer", "--out", str(tmp_path))
    status, out, err = command(capsys, "compare", "tiny", *arguments)
    assert status == 2
    assert "begin with a fresh optimizer" in " ".join((out + err).split())


def test_options_reach_the_config(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    status, _, _ = command(
        capsys, "run", "tiny", "--seeds", "1", "--epochs", "1", "--methods.mas.strength", "0.01",
        "--out", str(tmp_path),
    )  # fmt: skip
    assert status == 0
    settings = (tmp_path / "mas" / "settings.json").read_text()
    assert '"epochs": 1' in settings
    assert '"strength": 0.01' in settings


def test_a_method_with_an_anchor_keeps_importance_in_a_code_and_no_other_does(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    for method, code, expected in (("mas", "log8", 0), ("mas", "int4", 2), ("joint", "log8", 2)):
        arguments = ("--only", method, f"--methods.{method}.importance-as", code, "--seeds", "1")
        status, _, _ = command(capsys, "compare", "tiny", *arguments, "--out", str(tmp_path))
        assert status == expected
    (result,) = results.read_all(tmp_path)
    assert result.config["method"]["importance_as"] == "log8"
    # The folder is that of a run with this code.
    arguments = ("--only", "mas", "--seeds", "1", "--out", str(tmp_path))
    status, _, err = command(capsys, "compare", "tiny", *arguments)
    assert status == 2
    assert "'importance_as': 'log8'" in " ".join(err.split())


def test_tune_names_the_best_point(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    status, text, _ = command(
        capsys, "tune", "tiny", "--strengths", "0.0", "--learning-rates", "0.05", "1e-6",
        "--seeds", "1", "--validation-fraction", "0.2", "--out", str(tmp_path),
    )  # fmt: skip
    assert status == 0
    assert "highest accuracy on validation data: strength=0,learning_rate=0.05" in text


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("run", "tiny", "--epochs", "0"), "--epochs must be at least 1, got 0"),
        (("run", "tiny", "--methods.mas.strength", "-1"), "strength must be a finite number"),
        (("run", "tiny", "--method", "mass"), "did you mean 'mas'?"),
        (
            ("run", "tiny", "--scenario", "tusk"),
            "no scenario is called 'tusk'; did you mean 'task'? There are: task, domain, class",
        ),
        (("run", "split_mnits"), "Available subcommands: split_digits, authors_demo, split_mnist"),
        (("report", "nowhere"), "no result.json below nowhere"),
    ],
)
def test_bad_input_is_said_plainly(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], text: str
) -> None:
    status, out, err = command(capsys, *arguments)
    assert status == 2
    assert text in " ".join((out + err).replace("│", " ").split())
    assert "Traceback" not in out + err


def test_run_runs_one_method(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    command(capsys, "run", "tiny", "--seeds", "1", "--method", "joint", "--out", str(tmp_path))
    assert [folder.name for folder in tmp_path.iterdir()] == ["joint"]


def test_validation_fraction_reaches_the_data(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    monkeypatch.setattr(
        cli.runs, "run", lambda *arguments, **_: seen.append(arguments[3]) or sys.exit(7)
    )
    held_out = ("--validation-fraction", "0.4", "--evaluate-on", "validation")
    status, _, _ = command(capsys, "run", "tiny", *held_out, "--out", str(tmp_path))
    assert status == 7
    sizes = [(len(task.train.labels), len(task.validation.labels)) for task in seen[0]]
    # Classes of 45 and 30, 35 and 40, 25 and 50 examples; two fifths of each are held out.
    assert sizes == [(45, 30), (45, 30), (45, 30)]


@pytest.mark.parametrize(
    ("error", "status", "text"),
    [
        (FloatingPointError("training diverged"), 2, "error: training diverged"),
        (DataNotFoundError("fetch this"), 2, "error: fetch this"),
        (mas_jax.StoreLockedError("in use"), 2, "error: in use"),
        (PermissionError(13, "denied"), 2, "denied"),
        (KeyboardInterrupt(), 130, "goes on from where it was last kept"),
        (Preempted(), 75, "stopped; the same command goes on from here"),
    ],
)
def test_failures_end_with_their_text_and_status(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
    status: int,
    text: str,
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(cli.runs, "run", fail)
    ended, _, err = command(capsys, "run", "tiny")
    assert ended == status
    assert text in err


def test_progress_in_plain_lines_says_task_epoch_loss_accuracy_and_time_left(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = [0.0]
    monkeypatch.setattr("experiments.progress.time.monotonic", lambda: now[0])
    with Display(Console(file=sys.stdout), "mas", ["1/2", "3/4"], 2, [7]) as report:
        for index, (task, epoch) in enumerate([(0, 0), (0, 1), (1, 0), (1, 1)]):
            now[0] = 20.0 * index
            report(Epoch(7, task, epoch, 0.5, 0.975))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "mas  seed 7  task 1/2 (1/2)  epoch 1/2  loss 0.5000  accuracy 97.50 %"
    # Two of four epochs done, 20 s for the one that was timed: 40 s left.
    assert lines[1].endswith("(1/2)  epoch 2/2  loss 0.5000  accuracy 97.50 %  0:40 left")
    assert lines[3].endswith("0:00 left")


def test_progress_in_plain_lines_is_not_a_flood(capsys: pytest.CaptureFixture[str]) -> None:
    with Display(Console(file=sys.stdout), "mas", ["1/2"], 1000, [0]) as report:
        for epoch in range(1000):
            report(Epoch(0, 0, epoch, 0.5, 0.9))
    assert len(capsys.readouterr().out.splitlines()) < 10


def test_progress_in_a_terminal_is_one_live_line() -> None:
    console = Console(force_terminal=True, width=120, record=True)
    with Display(console, "mas", ["1/2"], 2, [0]) as report:
        report(Epoch(0, 0, 0, 0.25, 0.5))
    assert "loss 0.2500" in console.export_text()


def test_progress_fits_into_80_columns_and_moves() -> None:
    console = Console(force_terminal=True, width=80, record=True)
    display = Display(console, "finetune", ["10/11"], 20, [9])
    with display as report:
        for epoch in range(20):
            report(Epoch(9, 0, epoch, 0.0001, 1.0))
    assert display._bar.tasks[0].completed == 20
    (line,) = {line for line in console.export_text().splitlines() if "epoch 20/20" in line}
    assert "loss 0.0001, 100.00 %, 0:00 left" in line
    assert "━" in line


def test_clock() -> None:
    assert [clock(seconds) for seconds in (5, 65.4, 3725)] == ["0:05", "1:05", "1:02:05"]


def test_experiment_names_are_found_back_from_their_configs() -> None:
    config = dataclasses.replace(tiny.Tiny(), epochs=9)
    assert registry.name_of(config) == "tiny"


def test_table_prints_each_experiment_in_markdown(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    command(capsys, "run", "tiny", "--seeds", "1", "--method", "joint", "--out", str(tmp_path))
    command(capsys, "run", "tiny", "--seeds", "1", "--method", "finetune", "--out", str(tmp_path))
    status, out, _ = command(capsys, "table", str(tmp_path))
    assert status == 0
    found = results.read_all(tmp_path, ("finetune", "joint"))
    assert out == f"tiny\n\n{tables.as_markdown(found)}\n\n"
    assert out.index("| finetune") < out.index("| joint")


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (("jpg/[a].jpg",), "a: left out 1 picture that could not be read: jpg/[a].jpg\n"),
        (
            ("1.jpg", "2.jpg", "3.jpg", "4.jpg", "5.jpg"),
            "a: left out 5 pictures that could not be read: 1.jpg, 2.jpg, 3.jpg and 2 more\n",
        ),
    ],
)
def test_pictures_that_were_left_out_are_named(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    names: tuple[str, ...],
    said: str,
) -> None:
    part = Examples(np.zeros((4, 3), np.float32), np.array([0, 1, 0, 1], np.int32))
    sets = {"a": PictureSplits(part, part, names), "b": Splits(part, part)}
    entry = registry.Experiment(
        tiny.Tiny(), lambda _: one_after_the_other(sets, validation_fraction=0.0)
    )
    monkeypatch.setitem(registry.EXPERIMENTS, "tiny", entry)
    cli._tasks("tiny", tiny.Tiny(), Console(width=60))
    assert capsys.readouterr().out == said


def test_what_a_later_method_refuses_is_said_before_the_first_one_runs(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = []
    monkeypatch.setattr(cli.runs, "run", lambda *_, **__: ran.append(1))
    status, _, err = command(
        capsys, "compare", "tiny", "--methods.mas.only", "99", "--out", str(tmp_path)
    )
    assert status == 2
    assert "no example of class 99: no task has it" in " ".join(err.split())
    assert ran == []
