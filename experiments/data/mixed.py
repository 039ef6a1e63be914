"""Mixed characters: five tasks, each a data set of its own, in images of 28×28 greys."""

import os
from collections.abc import Callable, Mapping
from typing import TypeVar

from experiments.data import chars74k, digits, fashion_mnist, mnist, omniglot
from experiments.data.sequences import one_after_the_other
from experiments.data.types import DataDamagedError, DataNotFoundError, Task

SplitsT = TypeVar("SplitsT")


def load(
    data_dir: str | os.PathLike[str] | None = None,
    *,
    validation_fraction: float = 0.0,
    seed: int = 0,
    alphabet: str = omniglot.ALPHABET,
) -> tuple[Task, ...]:
    """Load MNIST → Fashion-MNIST → an alphabet of Omniglot → Chars74K letters → digits.

    Classes are numbered on from task to task: MNIST's are 0 to 9, Fashion-MNIST's 10 to 19, with
    Glagolitic's 45 characters the alphabet's are 20 to 64, the letters' 65 to 90 and the digits'
    91 to 100. Each task keeps its data set's split and normalisation (see each `load`); all are
    light on dark.

    Args:
      data_dir: the folder that mnist, fashion_mnist, omniglot and chars74k_goodimg are in, else
        what MAS_JAX_DATA_DIR names, else mas_jax/data in the cache folder; may be read-only.
      validation_fraction: of each class's training examples, between 0 and 0.9, drawn as
        `split_by_classes` does; independent of the other data sets.
      seed: which examples become validation data; at least 0.
      alphabet: Omniglot's, as its archive calls it.

    Returns:
      Five tasks; inputs (N, 784) float32, labels (N,) int32.

    Raises:
      DataNotFoundError: data sets are missing; the text says of each one what to fetch.
      DataDamagedError: a file is not the one that was published.
      ValueError: an unknown alphabet, or a fraction or seed out of range.
    """
    loaded = load_all(
        {
            "MNIST": lambda: mnist.load(data_dir),
            "Fashion-MNIST": lambda: fashion_mnist.load(data_dir),
            f"Omniglot {alphabet.replace('_', ' ')}": lambda: omniglot.load(
                data_dir, alphabet=alphabet
            ),
            "Chars74K letters": lambda: chars74k.load(data_dir),
            "digits": digits.load_resized,
        }
    )
    return one_after_the_other(loaded, validation_fraction=validation_fraction, seed=seed)


def load_all(loaders: Mapping[str, Callable[[], SplitsT]]) -> dict[str, SplitsT]:
    """Every data set. Raises one DataNotFoundError for all that are missing."""
    loaded, missing = {}, []
    for name, loader in loaders.items():
        try:
            loaded[name] = loader()
        except DataDamagedError:
            raise
        except DataNotFoundError as error:
            missing.append(str(error))
    if missing:
        raise DataNotFoundError("\n\n".join(missing))
    return loaded
