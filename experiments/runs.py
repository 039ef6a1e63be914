"""A run: all seeds of one method of one experiment, resumed where it was stopped."""

import contextlib
import dataclasses
import inspect
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from jax.sharding import Mesh

from experiments import config as configs
from experiments import devices, results, sequence
from experiments.bookmark import SECONDS
from experiments.config import SequenceConfig
from experiments.data.types import Task
from experiments.files import give_name, held, make_folder, remove_leftovers, temporary_for
from experiments.methods import METHODS, Method
from experiments.names import nearest
from experiments.results import Result, SeedRecord
from experiments.sequence import Report
from experiments.setup import network_for, prepare

SETTINGS_FILE = "settings.json"
"""Which settings a method's folder is a run of."""
PLAIN = "finetune"
"""The method that learns the first task for others."""
FIRST_TASK = "first_task"
"""The folder within that of a run where the first task is learned for all methods."""


def method_of(config: SequenceConfig, name: str) -> Method:
    """The method of that name in `config`; ValueError with the nearest name where there is none."""
    if name not in config.methods:
        raise nearest("method of this experiment", name, list(config.methods))
    return config.methods[name]


def check(config: SequenceConfig, methods: Sequence[str], tasks: Sequence[Task], out: Path) -> None:
    """Raise what `run` would, of settings that do not fit, before anything is learned.

    Raises:
      ValueError: as `run`.
    """
    for name in methods:
        method = method_of(config, name)
        network_for(config, method, tasks)
        _check_held(out / name, configs.settings(config, name))


def run(
    experiment: str,
    config: SequenceConfig,
    method: str,
    tasks: Sequence[Task],
    out: Path,
    report: Report,
    command: str,
    mesh: Mesh | None = None,
    stop_after: int | None = None,
    begin_from: Path | None = None,
    first: Path | None = None,
    checkpoint_seconds: float = SECONDS,
) -> Result:
    """Learn every seed that `out` does not hold yet; write and return the result of all.

    With `stop_after` no more than so many tasks of each; with `begin_from`, the folder that such a
    run had as `out`, from the anchors and parameters in there; with `first`, the folder that a run
    of fine-tuning with `stop_after=1` had as `out`, methods that learn the first task as
    fine-tuning does take that over. On the devices of `mesh`, or on one.
    Of several processes process 0 alone reads and writes.

    Everything is kept in `out`/`method`: a folder per seed with its state after each finished
    task and, while one is learned, every `checkpoint_seconds` how far it has come; and result.json
    with all seeds so far, rewritten after each task. Given the same settings again, a run that was
    stopped goes on from there, and a finished one is only read. What is returned has the seeds
    asked for.

    Raises:
      ValueError: the folder holds a run with other settings, which are named; an unknown method.
      Preempted: a signal asked to stop; what was learned is kept.
      HeldError: another process is at work in the folder.
    """
    learning_method = method_of(config, method)
    folder = out / method
    settings = configs.settings(config, method)
    records = devices.from_first(lambda: _records(folder, settings))
    setup = prepare(config, learning_method, tasks, mesh)
    is_test = config.evaluate_on == "test"
    published = config.published if is_test else {}  # those are test numbers
    empty = Result(
        experiment=experiment,
        method=method,
        description=inspect.getdoc(config) or "",
        tasks=setup.task_names,
        published={source: dict(numbers) for source, numbers in published.items()},
        config=settings,
        command="",
        versions={},
        machine={},
        seeds=(),
        measure=config.measure,
        skipped=tuple(task.skipped for task in tasks),
        num_classes=tuple(len(task.classes) for task in tasks),
    )
    made = results.provenance(command, mesh)

    def keep(record: SeedRecord) -> None:
        records[record.seed] = record
        result = _with_seeds(empty, records)
        if stop_after is None:  # else it is no result yet
            devices.from_first(lambda: results.write(result, folder / results.FILE_NAME))

    seeds = range(config.first_seed, config.first_seed + config.seeds)
    for seed in seeds:
        if begin_from is not None:
            _copy_once(begin_from / method / f"seed_{seed}", folder / f"seed_{seed}")
        learned_first = None if first is None else first / PLAIN / f"seed_{seed}"
        with _alone(folder):
            record = sequence.learn(
                setup,
                seed,
                folder / f"seed_{seed}",
                report,
                keep,
                made,
                stop_after,
                learned_first,
                checkpoint_seconds,
            )
            if records.get(seed) != record:
                keep(record)
    return _with_seeds(empty, {seed: records[seed] for seed in seeds})


def plain_config(config: SequenceConfig) -> SequenceConfig:
    """`config` for a run of fine-tuning whose first task all methods share.

    Raises ValueError where methods do not learn the first task alike.
    """
    if config.search.enabled or not config.reset_optimizer:
        raise ValueError(
            "--share-first-task wants each task to begin with a fresh optimizer and settings that "
            "are the same for all methods: leave --search.enabled off and --reset-optimizer on, or "
            "give --no-share-first-task"
        )
    return dataclasses.replace(config, methods={PLAIN: METHODS[PLAIN]})


def _copy_once(source: Path, target: Path) -> None:
    """Copy a seed's folder, whole or not at all, unless it is there."""

    def copy() -> None:
        if not target.exists():
            temporary = temporary_for(target)
            shutil.copytree(source, temporary)
            give_name(temporary, target)

    devices.from_first(copy)


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold the run in `folder`, of which process 0 is the one that writes."""
    with contextlib.ExitStack() as stack:

        def hold() -> None:
            stack.enter_context(held(folder / SETTINGS_FILE))

        devices.from_first(hold)
        yield


def _records(folder: Path, settings: dict[str, object]) -> dict[int, SeedRecord]:
    """The records in `folder`, which is or becomes that of a run with `settings`, by seed."""
    _claim(folder, settings)
    for written in (folder, *folder.glob("seed_*")):
        remove_leftovers(written)
    file = folder / results.FILE_NAME
    records = {record.seed: record for record in results.read(file).seeds} if file.exists() else {}
    for seed in records:
        state = folder / f"seed_{seed}" / sequence.STATE_FILE
        # A result may go without its seeds' folders, but not with half of one.
        if state.parent.is_dir() and not state.exists():
            raise ValueError(
                f"{state} is gone, and {file} has tasks that were learned with it. Put it back, "
                f"or remove {state.parent} to learn that seed again"
            )
    return records


def _with_seeds(empty: Result, records: Mapping[int, SeedRecord]) -> Result:
    """`empty` with `records`, and how they were made."""
    seeds = tuple(records[seed] for seed in sorted(records))
    commands = dict.fromkeys(record.made["command"] for record in seeds if record.made)
    return dataclasses.replace(
        empty,
        seeds=seeds,
        command="\n".join(commands),
        versions=results.joined(seeds, "versions"),
        machine=results.joined(seeds, "machine"),
    )


def _claim(folder: Path, settings: dict[str, object]) -> None:
    """Make `folder` that of a run with `settings`, or see that it is."""
    _check_held(folder, settings)
    file = folder / SETTINGS_FILE
    if not file.exists():
        try:
            make_folder(folder)
            results.write_json(settings, file)
        except OSError as error:
            raise ValueError(
                f"{folder} cannot be written to: {error}. Mend that, or give another folder with "
                "--out"
            ) from error


def _check_held(folder: Path, settings: dict[str, object]) -> None:
    """Raise ValueError if `folder` holds a run with other settings, or one nobody knows of."""
    file = folder / SETTINGS_FILE
    if not file.exists():
        if any(folder.glob("seed_*")):
            raise ValueError(
                f"{folder} holds seeds but no {SETTINGS_FILE}, so it is not known what they are "
                "of. Put it back, give another folder with --out, or remove that one"
            )
        return
    try:
        held = dict(json.loads(file.read_text(encoding="utf-8")))
    except (ValueError, TypeError, RecursionError) as error:
        raise ValueError(
            f"{file} is damaged ({error}). Put it back, give another folder with --out, or remove "
            f"{folder}"
        ) from error
    differing = [
        f"{name} is {held.get(name)} there and {settings.get(name)} here"
        for name in sorted(held.keys() | settings.keys())
        if held.get(name) != settings.get(name)
    ]
    if differing:
        raise ValueError(
            f"{folder} holds a run with other settings: {'; '.join(differing)}. Give another "
            "folder with --out, or remove that one"
        )
