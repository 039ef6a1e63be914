"""The code that was not chosen for Ω: 8 bits in equal steps, with a scale for each 128 values.

    python -m experiments.analyses.linear_code runs/split_mnist_importance_codes/linear8

learns Split MNIST by MAS with Ω rounded so after each task, as a run with `--importance-as` rounds
it, and leaves the result where `experiments.analyses.importance_codes` finds it.
"""

import dataclasses
import shlex
import sys
from pathlib import Path
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
import tyro

import mas_jax
from experiments import runs, split_mnist
from experiments.methods import MAS

BLOCK = 128
"""Values under one scale, as in "log8"."""


def linear8(importance: np.ndarray) -> np.ndarray:
    """Ω of one leaf, float32, each block in 255 equal steps from 0 to its largest value.

    >>> linear8(np.array([1.0, 0.5, 0.001], np.float32))
    array([1.       , 0.5019608, 0.       ], dtype=float32)
    """
    flat = importance.reshape(-1)
    blocks = np.pad(flat, (0, -flat.size % BLOCK)).reshape(-1, BLOCK).astype(np.float64)
    steps = blocks.max(axis=1, keepdims=True, initial=0) / 255
    rounded = np.rint(blocks / np.where(steps > 0, steps, 1)) * steps
    return rounded.reshape(-1)[: flat.size].reshape(importance.shape).astype(np.float32)


@dataclasses.dataclass(frozen=True, kw_only=True)
class LinearMAS(MAS):
    """MAS with Ω in equal steps from task to task."""

    code: Literal["linear8"] = "linear8"
    """For the settings, which tell its results from others."""

    def as_stored(self, memory: mas_jax.Anchor) -> mas_jax.Anchor:
        rounded = jax.tree.map(
            lambda leaf: jnp.asarray(linear8(np.asarray(leaf))), memory.importance
        )
        return memory._replace(importance=rounded)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Learn Split MNIST with Ω in equal steps."""

    out: tyro.conf.Positional[Path]
    """Folder for results and states. A stopped run goes on from there."""
    seeds: int = 10
    """How many random seeds."""
    data_dir: Path | None = None
    """Folder with the data's original files."""


def main(options: tyro.conf.OmitArgPrefixes[Options]) -> None:
    """Learn all seeds and say where the result is."""
    config = split_mnist.SplitMNIST(
        methods={"mas": LinearMAS(strength=split_mnist.TASK["mas"])},
        seeds=options.seeds,
        data_dir=options.data_dir,
    )
    command = shlex.join(["python", "-m", "experiments.analyses.linear_code", *sys.argv[1:]])
    tasks = split_mnist.tasks(config)
    runs.run("split_mnist", config, "mas", tasks, options.out, lambda _: None, command)
    print(f"written: {options.out}")


if __name__ == "__main__":
    tyro.cli(main)
