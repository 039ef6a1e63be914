"""A run: all seeds of one method of one experiment, resumed where it was stopped."""

import dataclasses
import inspect
import json
from collections.abc import Sequence
from pathlib import Path

from experiments import config as configs
from experiments import results, sequence
from experiments.config import SequenceConfig
from experiments.data.types import Task
from experiments.methods import Method
from experiments.registry import nearest
from experiments.results import Result
from experiments.sequence import Report


def method_of(config: SequenceConfig, name: str) -> Method:
    """The method of that name in `config`; ValueError with the nearest name where there is none."""
    if name not in config.methods:
        raise nearest("method of this experiment", name, list(config.methods))
    return config.methods[name]


def run(
    experiment: str,
    config: SequenceConfig,
    method: str,
    tasks: Sequence[Task],
    out: Path,
    report: Report,
    command: str,
) -> Result:
    """Learn every seed that `out` does not hold yet; write and return the result of all.

    Everything is kept in `out`/`method`: a folder per seed with its state after each finished
    task, and result.json, rewritten after each seed. Given the same settings again, a run that
    was stopped goes on after its last finished task, and a finished one only reads.

    Raises:
      ValueError: the folder holds a run with other settings, which are named; an unknown method.
    """
    learning_method = method_of(config, method)
    folder = out / method
    settings = configs.settings(config, method)
    _claim(folder, settings)
    setup = sequence.prepare(config, learning_method, tasks)
    result = Result(
        experiment=experiment,
        method=method,
        description=inspect.getdoc(config) or "",
        tasks=setup.task_names,
        published={source: dict(numbers) for source, numbers in config.published.items()},
        config=settings,
        command=command,
        versions=results.versions(),
        machine=results.machine(),
        seeds=(),
    )
    for seed in range(config.first_seed, config.first_seed + config.seeds):
        record = sequence.learn(setup, seed, folder / f"seed_{seed}", report)
        result = dataclasses.replace(result, seeds=(*result.seeds, record))
        results.write(result, folder / results.FILE_NAME)
    return result


def _claim(folder: Path, settings: dict[str, object]) -> None:
    """Make `folder` that of a run with `settings`, or see that it is."""
    file = folder / "settings.json"
    if not file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        results.write_json(settings, file)
        return
    held = json.loads(file.read_text(encoding="utf-8"))
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
