"""Does it matter which data importance is measured on? Ω of one network from several sets.

    python -m experiments.analyses.importance_data --out runs/importance_data --data-dir FOLDER

learns the first task of an experiment and measures Ω on its training data, its test data, and the
training data of one class alone (the paper's supplement compares these). What it writes,
importance_pairs.json, becomes a scatter with rank correlations in `python -m experiments report`.
"""

import dataclasses
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tyro
from scipy import stats

from experiments import results
from experiments.learning import Start, train
from experiments.methods import MAS
from experiments.registry import find
from experiments.sequence import stage_at
from experiments.setup import Setup, prepare
from experiments.training import Rates, Recorded

FILE_NAME = "importance_pairs.json"
FORMAT = 1
POINTS = 1_000
"""Values drawn of each parameter for the picture; correlations are over all."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Measure Ω of one network on several sets of data."""

    out: Path = Path("runs/importance_data")
    """Folder for what is measured."""
    experiment: str = "split_mnist"
    """Whose first task is learned."""
    seed: int = 0
    """Of the network and its training."""
    data_dir: Path | None = None
    """Folder with the data's original files."""


def measure(options: Options, command: str) -> dict[str, Any]:
    """Learn the task, measure Ω and compare; what the file holds."""
    entry = find(options.experiment)
    config = dataclasses.replace(entry.config, data_dir=options.data_dir)
    setup = prepare(config, MAS(), entry.tasks(config))
    params, opt_state = _learned(setup, options.seed)
    stage = stage_at(setup, 0, params, opt_state, jax.random.key(options.seed))
    first_class = stage.classes[0]
    sources = {
        "training data": MAS(),
        "test data": MAS(data="test"),
        f"training data of class {first_class}": MAS(only=(first_class,)),
    }
    omegas = {
        name: _by_path(method.end_task(None, stage).importance) for name, method in sources.items()
    }
    x, *others = omegas
    return {
        "format": FORMAT,
        "kind": "importance_pairs",
        "experiment": options.experiment,
        "description": f"Ω of task {stage.name} of {options.experiment} after it was learned, "
        "measured on several sets of data.",
        "pairs": [
            _pair(x, y, parameter, omegas[x][parameter], omegas[y][parameter])
            for y in others
            for parameter in omegas[x]
        ],
        "command": command,
        "versions": results.versions(),
        "machine": results.machine(),
        "seed": options.seed,
    }


def _learned(setup: Setup, seed: int) -> tuple[Any, Any]:
    """The network after the first task, as `run` would train it."""
    key = jax.random.key(seed)
    params = setup.learner.init(jax.random.fold_in(key, len(setup.task_names)), setup.evaluation)
    start = Start(
        task=0,
        seed=seed,
        params=params,
        opt_state=setup.learner.init_optimizer(params),
        memory=None,
        examples=setup.training(0),
        recorded=Recorded(),
        key=jax.random.fold_in(key, 0),
    )
    trained = train(setup, start, Rates(setup.config.learning_rate, 0.0), lambda _: None)
    return trained.params, trained.opt_state


def _by_path(importance: Any) -> Mapping[str, np.ndarray]:
    """The kernels' Ω, flat, by path; biases have too few values for a scatter."""
    leaves = jax.tree_util.tree_flatten_with_path(importance)[0]
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): np.asarray(leaf).ravel()
        for path, leaf in leaves
        if np.ndim(leaf) > 1
    }


def _pair(x_name: str, y_name: str, parameter: str, x: np.ndarray, y: np.ndarray) -> dict[str, Any]:
    """One scatter: rank correlation over all values, and some of them."""
    correlation: Any = stats.spearmanr(x, y)
    drawn = np.random.default_rng(0).permutation(len(x))[:POINTS]
    return {
        "x": x_name,
        "y": y_name,
        "parameter": parameter,
        "points": np.stack([x[drawn], y[drawn]], axis=1).astype(float).round(9).tolist(),
        "rank_correlation": float(correlation.statistic),
        "count": len(x),
        "zeros": {
            "both": int(((x == 0) & (y == 0)).sum()),
            "x": int((x == 0).sum()),
            "y": int((y == 0).sum()),
        },
    }


def main(options: tyro.conf.OmitArgPrefixes[Options]) -> None:
    """Measure, write the file, print the rank correlations."""
    command = shlex.join(["python", "-m", "experiments.analyses.importance_data", *sys.argv[1:]])
    measured = measure(options, command)
    options.out.mkdir(parents=True, exist_ok=True)
    results.write_json(measured, options.out / FILE_NAME)
    for pair in measured["pairs"]:
        print(
            f"{pair['parameter']}: {pair['x']} against {pair['y']}: rank correlation "
            f"{pair['rank_correlation']:.3f}"
        )
    print(f"written: {options.out / FILE_NAME}")


if __name__ == "__main__":
    tyro.cli(main)
