"""Fashion-MNIST through TFDS without TensorFlow: 70,000 articles of clothing of 28×28 pixels."""

import os

from tensorflow_datasets.image_classification import mnist as stock

from experiments.data import folders, idx_sets
from experiments.data.types import Splits

# Mean and standard deviation of the 47,040,000 training pixels as fractions of 255, to four
# digits; a test on the real files computes them again.
MEAN, STD = 0.2860, 0.3530


class FashionMnist(idx_sets.IdxBuilder, stock.FashionMNIST, skip_registration=True):
    """The stock builder, made to prepare without TensorFlow: the same data set in all respects."""

    name = "fashion_mnist"
    title = "Fashion-MNIST"
    namesake = "MNIST"
    data_dir_names = "the one above it"
    url_infos = stock.FashionMNIST.url_infos


def load(
    data_dir: str | os.PathLike[str] | None = None,
    *,
    builder_class: type[FashionMnist] = FashionMnist,
) -> Splits:
    """Load Fashion-MNIST, pixels normalised to (x/255 − 0.2860)/0.3530.

    As for MNIST (see `mnist.load`), but the four files are looked for in the subfolder
    fashion_mnist alone: MNIST's have the same names, and may be in the folder itself.

    Source: Xiao, Rasul and Vollgraf, Fashion-MNIST, 2017, arXiv 1708.07747.

    Args:
      data_dir: the folder that fashion_mnist is in; may be read-only.
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
    source = folders.data_folder(data_dir) / "fashion_mnist"
    return idx_sets.load(builder_class, source, mean=MEAN, std=STD)
