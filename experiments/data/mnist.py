"""MNIST through TensorFlow Datasets (TFDS) without TensorFlow: 70,000 digits of 28×28 pixels."""

import os

from tensorflow_datasets.image_classification import mnist as stock

from experiments.data import folders, idx_sets
from experiments.data.types import Splits

# Mean and standard deviation of the training pixels as fractions of 255, to four digits as the
# field (and the MAS authors' demo) uses them.
MEAN, STD = 0.1307, 0.3081


class Mnist(idx_sets.IdxBuilder, skip_registration=True):
    """The stock builder, made to prepare without TensorFlow: the same data set in all respects."""

    name = "mnist"
    title = "MNIST"
    namesake = "Fashion-MNIST"
    data_dir_names = "it"
    url_infos = stock.MNIST.url_infos


def load(
    data_dir: str | os.PathLike[str] | None = None, *, builder_class: type[Mnist] = Mnist
) -> Splits:
    """Load MNIST, pixels normalised to (x/255 − 0.1307)/0.3081.

    The four original files are looked for in `data_dir`, else in the folder that the environment
    variable MAS_JAX_DATA_DIR names, else in mas_jax/data in the cache folder ($XDG_CACHE_HOME,
    or ~/.cache); there, or in a subfolder mnist. What is missing is downloaded. The prepared
    data set goes to mas_jax/tensorflow_datasets in the cache folder, nothing is written to
    `data_dir`; once it is there, neither the files nor a network are needed.

    Args:
      data_dir: a folder to read from; may be read-only.
      builder_class: the data set's builder; a miniature's, in a test.

    Returns:
      60,000 training and 10,000 test examples in TFDS's order, which is always the same; inputs
      (N, 784) float32, labels (N,) int32, 0 to 9.

    Raises:
      DataNotFoundError: nowhere to be had; the text says what to fetch, from where, and into
        which folder. Without a network it comes within ten seconds.
      DataDamagedError: one of the four files is not the published one, or the prepared data set
        is broken; names it.
    """
    folder = folders.data_folder(data_dir)
    in_folder = any((folder / name).is_file() for name in idx_sets.NAMES)
    source = folder if in_folder else folder / "mnist"
    return idx_sets.load(builder_class, source, mean=MEAN, std=STD)
