"""Where do pictures of the first facts lie before and after the other tasks are learned?

    python -m experiments compare facts_4 --share-first-task --out runs/facts_4 --data-dir FOLDER
    python -m experiments.analyses.fact_embeddings runs/facts_4 --data-dir FOLDER

asks the networks of the first seed about test pictures of a few facts of the first task: the one
after the first task, and each method's after the last. What they say, projected onto the two
principal axes of the facts' own vectors (one plane for all methods), is written into the folder as
projections.json and becomes a picture in `python -m experiments report`.
"""

import dataclasses
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tyro

from experiments import checkpoint, fact_learning, results
from experiments.data.types import DataNotFoundError, Examples, Task
from experiments.examples import to_device
from experiments.fact_learning import FactLearning
from experiments.facts.embeddings import FactTargets
from experiments.facts.network import FactNetwork
from experiments.facts.projection import principal_plane, project
from experiments.facts.splits import rows_of
from experiments.forward import all_outputs
from experiments.methods import METHODS
from experiments.registry import find
from experiments.report.projections import FILE_NAME, FORMAT, KIND
from experiments.results import Result
from experiments.runs import FIRST_TASK, PLAIN
from experiments.sequence import STATE_FILE
from experiments.setup import network_for


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Ask networks about pictures of the first task, before and after the others."""

    runs: tyro.conf.Positional[Path]
    """The folder that `compare --share-first-task` was given as --out."""
    data_dir: Path | None = None
    """Folder with the data's original files."""
    facts: int = 6
    """At most so many facts: those that were to be in the first task before others."""
    pictures: int = 25
    """At most so many test pictures of each."""


class Asked(NamedTuple):
    """What the networks say of the pictures."""

    before: np.ndarray  # (N, C) float64
    after: dict[str, np.ndarray]  # likewise, by method


def measure(options: Options, command: str) -> dict[str, Any]:
    """Ask and project; what the file holds.

    Raises:
      ValueError: the folder is of no one experiment on facts, its settings do not fit the data, or
        a state is missing (the text says which command makes it).
    """
    found = results.read_all(options.runs, tuple(METHODS))
    config = config_of(found, options.data_dir)
    tasks = find(found[0].experiment).tasks(config)
    network = network_for(config, METHODS[PLAIN], tasks)
    assert isinstance(network, FactNetwork), "configs of facts have such networks"
    chosen = _chosen(config, tasks[0], options.facts)
    pictures = _pictures(tasks[0], chosen, options.pictures)
    asked = _asked(network, pictures, found, options.runs)
    names = fact_learning.facts_in(config)
    return {
        "format": FORMAT,
        "kind": KIND,
        "experiment": found[0].experiment,
        "description": "Where pictures of facts of the first task lie among the facts' vectors, "
        "before and after the other tasks are learned.",
        "facts": [str(names[fact]) for fact in chosen],
        "labels": [chosen.index(label) for label in pictures.labels.tolist()],
        **_placed(network.facts.targets, chosen, asked, pictures.labels),
        "command": command,
        "versions": results.versions(),
        "machine": results.machine(),
        "seed": found[0].seeds[0].seed,
    }


def _asked(network: FactNetwork, pictures: Examples, found: Sequence[Result], runs: Path) -> Asked:
    """What the first seed's networks say, in float64."""
    seed, length = f"seed_{found[0].seeds[0].seed}", len(found[0].tasks)
    examples = to_device([(0, pictures)], len(pictures.labels))

    def ask(folder: Path, task_count: int) -> np.ndarray:
        params = _params(folder / seed, task_count, found[0], runs)
        return np.asarray(all_outputs(network, None, params, examples), np.float64)

    before = ask(runs / FIRST_TASK / PLAIN, 1)
    return Asked(before, {r.method: ask(runs / r.method, length) for r in found})


def _placed(
    targets: FactTargets, chosen: Sequence[int], asked: Asked, labels_N: np.ndarray
) -> dict[str, Any]:
    """Places on the plane of the chosen facts, and distances to the own fact in all dimensions."""
    vectors_Fx3xD = targets.vectors[list(chosen)]
    plane = principal_plane(vectors_Fx3xD)
    own_Nx3xD, present_Nx3 = targets.vectors[labels_N], targets.present[labels_N]

    def place(points: np.ndarray) -> list[list[float]]:
        # Four digits are finer than a picture shows; adding 0.0 makes a negative zero a zero.
        return (np.round(project(plane, points), 4) + 0.0).tolist()

    def distance(said_NxC: np.ndarray) -> float:
        parts_Nx3 = np.square(said_NxC.reshape(own_Nx3xD.shape) - own_Nx3xD).sum(axis=2)
        return round(float((parts_Nx3 * present_Nx3).sum(axis=1).mean()), 4)

    return {
        "vectors": place(vectors_Fx3xD),
        "share": round(plane.share, 4),
        "before": place(asked.before),
        "after": {method: place(said) for method, said in asked.after.items()},
        "distances": {
            "before": distance(asked.before),
            "after": {method: distance(said) for method, said in asked.after.items()},
        },
    }


def config_of(found: Sequence[Result], data_dir: Path | None) -> FactLearning:
    """The settings that results were made with, the trunk's weights aside, which states replace.

    Raises ValueError where they are of no one experiment on facts, or of other word vectors.
    """
    experiments, result = sorted({each.experiment for each in found}), found[0]
    default = find(result.experiment).config
    if len(experiments) > 1 or not isinstance(default, FactLearning):
        raise ValueError(
            "wanted the folder of a run of facts_2, facts_4 or facts_adaptation alone, got one of "
            f"{', '.join(experiments)}"
        )
    names = {field.name for field in dataclasses.fields(default)} - {"methods", "search"}
    # JSON knows no tuples; of these settings none is a list.
    held = {name: value for name, value in result.config.items() if name in names}
    held |= {"data_dir": data_dir, "weights": "random"}
    config = dataclasses.replace(default, **held)
    digests = {n: d for n, d in result.config.get("digests", {}).items() if n != "weights"}
    if (here := config.digests()) != digests:
        raise ValueError(
            f"the run was made with data or word vectors in {', '.join(digests) or 'no file'}, and "
            f"those found here, {', '.join(here) or 'none'}, differ; name the run's data with "
            "--data-dir"
        )
    return config


def _chosen(config: FactLearning, task: Task, most: int) -> list[int]:
    """Facts of the first task, those first that had to be in it."""
    first = rows_of(fact_learning.facts_in(config), config.first_facts())
    return sorted(task.classes, key=lambda label: (label not in first, label))[:most]


def _pictures(task: Task, chosen: Sequence[int], most: int) -> Examples:
    """The first test pictures of each fact."""
    rows = np.concatenate([np.flatnonzero(task.test.labels == fact)[:most] for fact in chosen])
    return Examples(task.test.inputs[rows], task.test.labels[rows])


def _params(folder: Path, task_count: int, result: Result, runs: Path) -> Any:
    """The network that `folder` holds after so many tasks."""
    stored = checkpoint.load(folder / STATE_FILE)
    if stored is None:
        raise ValueError(f"there is no {folder / STATE_FILE}; {_made_by(result, runs)}")
    params, _, record, _ = stored
    if len(record.accuracy) != task_count:
        raise ValueError(
            f"{folder / STATE_FILE} is of the network after task {len(record.accuracy)}, wanted "
            f"that after task {task_count}; {_made_by(result, runs)}"
        )
    return params


def _made_by(result: Result, runs: Path) -> str:
    """Which command makes the states."""
    line = f"python -m experiments compare {result.experiment} --share-first-task --out {runs}"
    return f"states are made, and kept, by\n  {line}\nwith the run's other options"


def main(options: tyro.conf.OmitArgPrefixes[Options]) -> None:
    """Ask, write the file, print how far each method's pictures lie from their facts."""
    command = shlex.join(["python", "-m", "experiments.analyses.fact_embeddings", *sys.argv[1:]])
    try:
        measured = measure(options, command)
    except (OSError, ValueError, DataNotFoundError) as error:
        sys.exit(f"error: {error}")
    results.write_json(measured, options.runs / FILE_NAME)
    print(f"before: mean squared distance to the fact {measured['distances']['before']:.4f}")
    for method, distance in measured["distances"]["after"].items():
        print(f"{method}: {distance:.4f}")
    print(f"written: {options.runs / FILE_NAME}")


if __name__ == "__main__":
    tyro.cli(main)
