"""How far each code of Ω is from the exact one, entry by entry, on the Ω of a real network.

python -m experiments.analyses.code_errors runs/split_mnist_importance_codes/exact/mas/seed_0
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tyro

import mas_jax
from experiments import checkpoint
from experiments.analyses.linear_code import linear8
from experiments.analyses.printed import print_table
from experiments.benchmarks.markdown import table
from experiments.sequence import STATE_FILE

QUANTILES = (0.5, 0.95, 0.999)
HEADS = (
    "code",
    "non-zero entries that become 0, %",
    *(f"relative error, {100 * quantile:g} % are below" for quantile in QUANTILES),
    "largest",
)


def errors(folder: Path) -> str:
    """A table of each code's errors on the Ω after the last task of a seed.

    Entries are those above 0. Relative errors are |rounded − exact| / exact, and 1 where the entry
    becomes 0.

    Args:
      folder: of a finished seed of MAS, stored exactly.
    """
    state = checkpoint.load(folder / STATE_FILE)
    if state is None:
        raise ValueError(f"there is no {folder / STATE_FILE}")
    store = mas_jax.AnchorStore(folder / "anchors")
    anchor = store.restore(store.tasks()[-1], like=state[0])
    rows = [[name, *_cells(anchor, rounded)] for name, rounded in _codes().items()]
    return table(HEADS, rows)


def _codes() -> dict[str, Callable[[mas_jax.Anchor], Any]]:
    """By name, what rounds the Ω of an anchor."""
    return {
        "bfloat16": lambda anchor: mas_jax.as_stored(anchor, "bfloat16").importance,
        "log8": lambda anchor: mas_jax.as_stored(anchor, "log8").importance,
        "8 bits in equal steps": lambda anchor: jax.tree.map(
            lambda leaf: linear8(np.asarray(leaf)), anchor.importance
        ),
    }


def _cells(anchor: mas_jax.Anchor, rounded: Callable[[mas_jax.Anchor], Any]) -> list[str]:
    """The share that becomes 0, quantiles of the relative error, and its maximum."""
    exact, coded = (_values(tree) for tree in (anchor.importance, rounded(anchor)))
    exact, coded = exact[exact > 0], coded[exact > 0]
    relative = np.abs(coded - exact) / exact
    found = [*np.quantile(relative, QUANTILES), relative.max()]
    return [f"{100 * np.mean(coded == 0):.2f}", *(f"{value:.2g}" for value in found)]


def _values(importance: Any) -> np.ndarray:
    """All entries (P,), float64."""
    leaves = jax.tree.leaves(importance)
    return np.concatenate([np.asarray(leaf, np.float64).reshape(-1) for leaf in leaves])


def main(folder: tyro.conf.Positional[Path]) -> None:
    """Print the table of the seed in `folder`."""
    print_table(errors, folder)


if __name__ == "__main__":
    tyro.cli(main)
