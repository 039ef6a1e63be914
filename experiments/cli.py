"""The command line: what was typed, carried out."""

import contextlib
import dataclasses
import inspect
import itertools
import shlex
import sys
from pathlib import Path
from typing import Any, NamedTuple

import tyro
from jax.sharding import Mesh
from rich.console import Console
from rich.markup import escape
from rich.padding import Padding

from experiments import devices, doctor, files, findings, preemption, results, runs, tables, tuning
from experiments.bookmark import SECONDS
from experiments.commands import (
    Compare,
    Doctor,
    ListExperiments,
    Report,
    Run,
    Table,
    Tune,
    every_command,
)
from experiments.config import SequenceConfig
from experiments.data.types import DataNotFoundError, Task
from experiments.methods import METHODS
from experiments.names import first_few
from experiments.progress import Display
from experiments.registry import EXPERIMENTS, GROUPS, find, name_of
from experiments.report import Source, write_report
from experiments.results import Result
from mas_jax import MasJaxError

FAILURES = (
    ValueError,
    ArithmeticError,
    OSError,
    DataNotFoundError,
    MasJaxError,
    devices.OtherProcessError,
)
"""What ends a command with its text alone."""


class Session(NamedTuple):
    """What a command is carried out with."""

    console: Console
    line: str  # the command as it was typed
    mesh: Mesh | None  # of the devices it runs on; None for one
    checkpoint_seconds: float = SECONDS  # for a run


def main(arguments: list[str] | None = None) -> None:
    """Run one command; on bad input say what is wrong and exit with status 2.

    A run that a signal stops ends with status 75 (`experiments.preemption`), as schedulers want
    it from what is to be started again.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    command = tyro.cli(
        every_command(),
        prog="python -m experiments",
        description="Continual learning with Memory Aware Synapses: real tasks, one after another.",
        args=arguments,
        config=(tyro.conf.OmitSubcommandPrefixes,),
    )
    command = getattr(command, "experiment", command)
    line = shlex.join(["python", "-m", "experiments", *arguments])
    try:
        with _signals(command):
            _execute(command, _session(command, line))
    except preemption.Preempted:
        if devices.is_first():
            Console(stderr=True).print("stopped; the same command goes on from here")
        sys.exit(preemption.EXIT_CODE)
    except files.HeldError as error:
        # It may be one that is about to end, and the same command will go on then.
        Console(stderr=True).print(escape(str(error)), soft_wrap=True)
        sys.exit(preemption.EXIT_CODE)
    except FAILURES as error:
        label = f"error{devices.which_process()}:"
        Console(stderr=True).print(f"[bold red]{label}[/] {escape(str(error))}", soft_wrap=True)
        sys.exit(2)
    except KeyboardInterrupt:
        if devices.is_first():
            Console(stderr=True).print(
                "stopped; the same command goes on from where it was last kept"
            )
        sys.exit(130)


def _signals(command: Any) -> contextlib.AbstractContextManager[None]:
    """What SIGTERM and SIGINT do: stop a run at a boundary, and anything else as ever."""
    if not isinstance(command, (Run, Compare, Tune)):
        return contextlib.nullcontext()
    return preemption.caught(prompt=command.devices == "one")


def _session(command: Any, line: str) -> Session:
    """Bring the devices together that `command` asks for, and the processes they belong to."""
    seconds = getattr(command, "checkpoint_seconds", SECONDS)
    if not seconds >= 0:
        raise ValueError(f"--checkpoint-seconds must be at least 0, got {seconds}")
    mesh = None
    if getattr(command, "devices", "one") == "all":
        devices.initialise()
        mesh = devices.all_devices()
        devices.same_everywhere("command", lambda: line)
    # A table cut at 80 columns, as rich assumes for a file, would be hard to read.
    width = None if sys.stdout.isatty() else 120
    return Session(Console(width=width, quiet=not devices.is_first()), line, mesh, seconds)


def _execute(command: Any, session: Session) -> None:
    """Do what `command` says."""
    match command:
        case ListExperiments():
            for name, entry in [*EXPERIMENTS.items(), *GROUPS.items()]:
                text = escape(inspect.getdoc(entry.config) or "")
                session.console.print(f"[bold]{name}[/]")
                session.console.print(Padding(text, (0, 0, 1, 4)))
        case Report(directory, out):
            path = write_report(directory, out, _tables_of_the_paper())
            session.console.print(f"report: {path}", soft_wrap=True)
        case Table(directory):
            found = results.read_all(directory, tuple(METHODS))
            for name, of_experiment in itertools.groupby(found, key=lambda r: r.experiment):
                print(f"{name}\n\n{tables.as_markdown(list(of_experiment))}\n")
        case Doctor(directory):
            found = doctor.examine(directory)
            print(findings.as_text(found))
            sys.exit(any(finding.kind == "damaged" for finding in found))
        case Run(config, method, out):
            runs.method_of(config, method)
            name = name_of(config)
            out = out or Path("runs") / name
            _run_all(_plan(name, config, (method,), out, session), session)
        case Compare():
            _compare(command, session)
        case Tune():
            _tune(command, session)


def _tables_of_the_paper() -> list[Source]:
    """Whatever has a table in the paper's layout."""
    groups = [Source(name, entry.members, entry.table) for name, entry in GROUPS.items()]
    single = [(name, entry.table) for name, entry in EXPERIMENTS.items()]
    return [*groups, *(Source(name, (), table) for name, table in single if table is not None)]


class Plan(NamedTuple):
    """Methods to run of one experiment; settings and data were looked at."""

    name: str
    config: SequenceConfig
    methods: tuple[str, ...]
    tasks: tuple[Task, ...]
    out: Path
    plain: SequenceConfig | None  # of the first task, where it is learned once for all


def _compare(command: Compare[Any], session: Session) -> None:
    """Run the methods of an experiment, or of each in a group, and print the tables."""
    config, name = command.config, name_of(command.config)
    for method in command.only:
        runs.method_of(config, method)
    methods = tuple(dict.fromkeys(command.only)) or tuple(config.methods)
    out = command.out or Path("runs") / name
    if name in GROUPS:
        table_fn = GROUPS[name].table
        members = [(each, own, out / each) for each, own in GROUPS[name].configs(config).items()]
    else:
        table_fn, members = find(name).table, [(name, config, out)]
    plans = [
        _plan(each, own, methods, folder, session, command.share_first_task)
        for each, own, folder in members
    ]
    for plan in plans:
        _run_all(plan, session)
    if table_fn is not None and devices.is_first():
        session.console.print(f"\n{table_fn(out)}\n", highlight=False, markup=False, soft_wrap=True)


def _plan(
    name: str,
    config: SequenceConfig,
    methods: tuple[str, ...],
    out: Path,
    session: Session,
    share_first_task: bool = False,
) -> Plan:
    """The plan for one experiment; raises what would stop it later, before anything is learned."""
    plain = runs.plain_config(config) if share_first_task else None
    tasks = _tasks(name, config, session.console)
    devices.from_first(lambda: runs.check(config, methods, tasks, out))
    if plain is not None:
        first = out / runs.FIRST_TASK
        devices.from_first(lambda: runs.check(plain, (runs.PLAIN,), tasks, first))
    return Plan(name, config, methods, tasks, out, plain)


def _run_all(plan: Plan, session: Session) -> None:
    """Run the methods, print the table, say where the results are."""
    name, config, methods, tasks, out, plain = plan
    first = None
    if plain is not None:
        first = out / runs.FIRST_TASK
        _run(name, plain, runs.PLAIN, tasks, first, session, stop_after=1)
    measured = [_run(name, config, method, tasks, out, session, first=first) for method in methods]
    session.console.print(tables.comparison(measured, session.console.width))
    session.console.print(
        f"results: {out}   report: {_python()} -m experiments report {out}",
        highlight=False,
        soft_wrap=True,
    )


def _python() -> str:
    """This Python as one would type it here: .venv/bin/python, say."""
    here = Path(sys.executable)
    return str(here.relative_to(Path.cwd())) if here.is_relative_to(Path.cwd()) else "python"


def _tune(command: Tune[Any], session: Session) -> None:
    """Run the grid, print it, name the best point.

    The first task, in which no strength has a say, is learned once for each learning rate; every
    strength goes on from the anchors stored there.
    """
    name = name_of(command.config)
    out = command.out or Path("runs") / f"{name}-tuning"
    rates = command.learning_rates or (command.config.learning_rate,)
    grid = tuning.candidates(command.config, command.method, command.strengths, rates)
    tasks = _tasks(name, grid[0].config, session.console)
    measured = []
    for candidate in grid:
        rate = candidate.config.learning_rate
        first = out / runs.FIRST_TASK / f"learning_rate={rate:g}"
        plain = dataclasses.replace(command.config, learning_rate=rate)
        _run(name, plain, command.method, tasks, first, session, stop_after=1)
        folder = out / candidate.name
        result = _run(
            name, candidate.config, command.method, tasks, folder, session, begin_from=first
        )
        # With a space, at which a narrow table can break the line.
        measured.append(dataclasses.replace(result, method=candidate.name.replace(",", " ")))
    session.console.print(tables.comparison(measured, session.console.width))
    chosen = tuning.best([candidate.name for candidate in grid], measured)
    session.console.print(f"highest accuracy on validation data: {chosen}", highlight=False)


def _run(
    name: str,
    config: SequenceConfig,
    method: str,
    tasks: tuple[Task, ...],
    out: Path,
    session: Session,
    **options: Any,
) -> Result:
    """One method, with its progress shown; `options` are those of `runs.run`."""
    seeds = range(config.first_seed, config.first_seed + config.seeds)
    names = [task.name for task in tasks]
    epochs = runs.method_of(config, method).epochs(config.epochs)
    options["checkpoint_seconds"] = session.checkpoint_seconds
    with Display(session.console, method, names, epochs, seeds) as report:
        return runs.run(
            name, config, method, tasks, out, report, session.line, session.mesh, **options
        )


def _tasks(name: str, config: SequenceConfig, console: Console) -> tuple[Task, ...]:
    """The tasks of the experiment `name` as `config` divides them; says what was left out."""

    def load() -> tuple[Task, ...]:
        return find(name).tasks(config)

    if devices.several_processes():
        # Where they share a cache, what has to be downloaded and prepared is so once.
        devices.from_first(lambda: bool(load()))
    tasks = devices.same_everywhere("data", load)
    for task in tasks:
        if task.skipped:
            console.print(escape(_left_out(task)), highlight=False, soft_wrap=True)
    return tasks


def _left_out(task: Task) -> str:
    """What to say of the pictures of a task that could not be read."""
    some = "1 picture" if task.skipped == 1 else f"{task.skipped} pictures"
    names = f": {first_few(task.skipped_names, most=3)}" if task.skipped_names else ""
    return f"{task.name}: left out {some} that could not be read{names}"
