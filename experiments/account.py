"""What a record keeps of a learned task: what the network can do, what was held, how Ω lies."""

from typing import Any, NamedTuple

import jax
import numpy as np

from experiments.methods import Stage
from experiments.results import histogram
from experiments.setup import Setup
from experiments.training import Recorded


class Measured(NamedTuple):
    """What a network can do, in plain numbers."""

    per_task: tuple[float, ...]
    per_class: tuple[float, ...]
    overall: float


def bytes_held(setup: Setup, stage: Stage, memory: Any, recorded: Recorded) -> dict[str, int]:
    """What the arrays at a task hold: the network, what is kept, what was held while training."""
    needed_next = [j for j in setup.method.training_tasks(stage.task + 1) if j <= stage.task]
    # EBLL's encoders, which its loss takes from the memory, are counted there.
    in_memory = {id(leaf) for leaf in jax.tree.leaves(memory)}
    held = [leaf for leaf in jax.tree.leaves(recorded) if id(leaf) not in in_memory]
    held += jax.tree.leaves(setup.method.held(stage.opt_state))
    return {
        "parameters": _size(stage.params),
        "kept": _size(memory) + sum(setup.data_bytes[j] for j in needed_next),
        "training": _size(held),
    }


def _size(tree: Any) -> int:
    """Bytes of the arrays in a tree."""
    return sum(leaf.nbytes for leaf in jax.tree.leaves(tree) if hasattr(leaf, "nbytes"))


def evaluate(setup: Setup, params: Any) -> Measured:
    """The accuracy on every task, on every class and on all."""
    accuracy = setup.learner.accuracy(params, setup.evaluation)
    per_task, per_class, overall = (np.asarray(values).tolist() for values in accuracy)
    if np.isnan(per_task).any():
        raise FloatingPointError(
            "the network's outputs are not finite on the examples it is evaluated on: its training "
            "diverged. Lower --learning-rate or the method's strength"
        )
    return Measured(tuple(per_task), tuple(per_class), overall)


def histograms(importance: Any) -> dict[str, dict[str, Any]]:
    """One histogram per anchored parameter, by its path."""
    leaves = jax.tree_util.tree_flatten_with_path(importance)[0]
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): histogram(leaf)
        for path, leaf in leaves
    }
