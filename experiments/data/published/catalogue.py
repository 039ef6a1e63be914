"""The paper's data sets, by name."""

import os

from experiments.data.published import builder
from experiments.data.published.actions import Actions
from experiments.data.published.aircraft import Aircraft
from experiments.data.published.builder import PublishedBuilder
from experiments.data.published.cars196 import Cars196
from experiments.data.published.cub200 import Cub200
from experiments.data.published.flowers102 import Flowers102
from experiments.data.published.indoor67 import Indoor67
from experiments.data.published.letters import Letters
from experiments.data.published.sixds import load_facts
from experiments.data.published.svhn import Svhn
from experiments.data.types import PictureSplits
from experiments.names import nearest

# The paper's sequence of eight tasks, in its order.
BUILDERS: dict[str, type[PublishedBuilder]] = {
    "flowers102": Flowers102,
    "indoor67": Indoor67,
    "cub200": Cub200,
    "cars196": Cars196,
    "aircraft": Aircraft,
    "actions": Actions,
    "letters": Letters,
    "svhn": Svhn,
}
NAMES = (*BUILDERS, "sixds")


def load(
    name: str,
    data_dir: str | os.PathLike[str] | None = None,
    *,
    side: int = 72,
    skip_damaged: bool = False,
) -> PictureSplits:
    """Load one of the paper's data sets, with the split that the paper uses.

    | name | training, test | classes |
    |---|---|---|
    | flowers102 | 2,040, 6,149 | 102 |
    | indoor67 | 5,360, 1,340 | 67 |
    | cub200 | 5,994, 5,794 | 200 |
    | cars196 | 8,144, 8,041 | 196 |
    | aircraft | 6,667, 3,333 | 100 |
    | actions | the paper has 3,102 for training | 11 |
    | letters | by name, six in ten; the paper has 6,850 for training | 52 |
    | svhn | 73,257, 26,032 | 10 |
    | sixds | as its table says; `load_facts` also gives the facts | as there |

    The files are looked for in the subfolder of that name. What is missing is downloaded. The
    prepared data set and its squares go to mas_jax/tensorflow_datasets in the cache folder,
    nothing is written to `data_dir`; once they are there, files and network are not needed. The
    square in the middle of a picture is resized to `side` (`pictures.read_square`). Each class's
    docstring has the source and what is to be known about the set.

    Args:
      name: one of the above.
      data_dir: the folder that the data sets' folders are in; else what MAS_JAX_DATA_DIR names,
        else mas_jax/data in the cache folder; may be read-only.
      side: pixels, at least 1. SVHN at 72 is 1.5 GB in memory; its own size is 32.
      skip_damaged: leave pictures out that cannot be read.

    Returns:
      Inputs (N, side, side, 3) uint8, RGB; labels (N,) int32 from 0; in TFDS's order, which is
      always the same. The names of the pictures left out.

    Raises:
      ValueError: no such name, or `side` is less than 1.
      DataNotFoundError: nowhere to be had; the text says, file by file, what to fetch, from
        where, and into which folder. Without a network it comes within ten seconds.
      DataDamagedError: a file is not the published one; a list names a picture that is not
        there; a class has test pictures only; a picture cannot be read; or the prepared data set
        is broken.
    """
    if name not in NAMES:
        raise nearest("published data set", name, NAMES)
    if side < 1:
        raise ValueError(f"side must be at least 1, got {side}")
    if name == "sixds":
        return load_facts(data_dir, side=side, skip_damaged=skip_damaged).pictures
    return builder.load(BUILDERS[name], data_dir, side=side, skip_damaged=skip_damaged)
