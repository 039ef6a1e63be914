"""How tests/golden was made, and what is in it: `python -m tests.golden_store NEW_FOLDER`.

It is never made again in its place: that later versions read what this one wrote is the point.
"""

import sys

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import optax

from mas_jax.anchor import Anchor
from mas_jax.importance_codes import Code
from mas_jax.store import AnchorStore

CODES: dict[str, Code] = {"birds": "exact", "cars": "bfloat16", "flowers": "log8"}
"""How the Ω of each task is stored."""
OBJECTIVE, NUM_SAMPLES = "squared_l2_norm", 5994
EXTRA = {"seed": 3, "name": "Vögel", "accuracy": [0.5, None]}
MASKED = optax.MaskedNode()


def values(number: int, size: int) -> np.ndarray:
    """float32 from integers alone, exact everywhere: k / 64 for k from −128 to 127."""
    k = (np.arange(size, dtype=np.int64) * 37 + number * 11) % 256 - 128
    return (k / 64).astype(np.float32)


def anchor(task: str) -> Anchor:
    """θ* of each dtype and shape, and Ω = 2^k, which every code keeps exactly or nearly."""
    number = list(CODES).index(task)
    kernel = values(number, 300).reshape(20, 15)
    params = {
        "kernel": kernel,
        "half": values(number + 1, 12).reshape(3, 4).astype(ml_dtypes.bfloat16),
        "edges": np.array([-0.0, 2.0**-149, -(2.0**127), 1 / 3], np.float32),
        "none": np.zeros((0, 3), np.float32),
        "scalar": np.float32(number + 0.5).reshape(()),
        "head": {"kernel": MASKED},
    }
    importance = {
        "kernel": np.where(kernel > 0, 2.0 ** (np.arange(300).reshape(20, 15) % 16 - 20), 0),
        "half": np.abs(values(number + 2, 12)).reshape(3, 4),
        "edges": np.array([0, 1, 2.0**-10, 1 / 3], np.float32),
        "none": np.zeros((0, 3), np.float32),
        "scalar": np.float32(0.25).reshape(()),
    }
    importance = {name: leaf.astype(np.float32) for name, leaf in importance.items()}
    return Anchor(params, {**importance, "head": {"kernel": MASKED}})


def like() -> dict:
    """The parameters of a network whose head came masked."""
    params = {**anchor("birds").params, "head": {"kernel": np.ones(2, np.float32)}}
    return {**{k: jnp.asarray(v) for k, v in params.items() if k != "head"}, "head": params["head"]}


def write(directory: str) -> None:
    """The store."""
    store = AnchorStore(directory)
    for task, code in CODES.items():
        store.save(
            task, anchor(task), objective=OBJECTIVE, num_samples=NUM_SAMPLES, extra=EXTRA,
            importance_as=code,
        )  # fmt: skip


if __name__ == "__main__":
    write(sys.argv[1])
