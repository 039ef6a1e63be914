"""The 8×8 digits that come with scikit-learn: 1,797 images, 10 classes, no network needed."""

import numpy as np
from sklearn.datasets import load_digits

from experiments.data import images
from experiments.data.types import Examples, Splits

# One in four, as scikit-learn's own train_test_split does by default.
TEST_EVERY = 4


def load() -> Splits:
    """Load the digits with a fixed split: of each class, every fourth image is a test image.

    The rule counts within each class, in the data set's own order (images 3, 7, 11, … of the
    class, counted from 0), so it is stratified and depends on nothing but the data. Pixels are
    divided by their maximum, 16, and the mean over all training pixels is subtracted.

    The same people's handwriting is on both sides of the split, which makes it easier than the
    one by writers of the original publication (Alpaydin and Kaynak, UCI repository, 1998).

    Returns:
      1,352 training and 445 test examples; inputs (N, 64) float32 of mean 0 over the training
      part, labels (N,) int32, 0 to 9.

    >>> train, test = load()
    >>> train.inputs.shape, test.inputs.shape
    ((1352, 64), (445, 64))
    """
    pixels, labels = load_digits(return_X_y=True)
    inputs, is_test = pixels / 16, _is_test(labels)
    inputs = (inputs - inputs[~is_test].mean()).astype(np.float32)
    labels = labels.astype(np.int32)
    return Splits(
        Examples(inputs[~is_test], labels[~is_test]), Examples(inputs[is_test], labels[is_test])
    )


def load_resized() -> Splits:
    """Load the digits as `load` does, but at 28×28, the size of MNIST.

    Pixels are brought from 0 … 16 to 0 … 255 and resized by cubic interpolation (Pillow's BICUBIC,
    cut off at 0 and 255). Then mean 0 and variance 1 over all training pixels.

    Returns:
      The same examples in the same order; inputs (N, 784) float32, labels (N,) int32, 0 to 9.

    >>> load_resized().test.inputs.shape
    (445, 784)
    """
    pixels, labels = load_digits(return_X_y=True)
    greys = np.rint(pixels.reshape(-1, 8, 8) * 255 / 16).astype(np.uint8)
    return images.split(
        np.stack([images.enlarge(grey) for grey in greys]), labels, _is_test(labels)
    )


def _is_test(labels: np.ndarray) -> np.ndarray:
    """(N,) bool: every fourth of each class."""
    is_test = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        is_test[np.flatnonzero(labels == label)[TEST_EVERY - 1 :: TEST_EVERY]] = True
    return is_test
