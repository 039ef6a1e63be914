"""The bundled digits: shapes, the split's rule, and what normalisation leaves."""

import numpy as np
import pytest
from sklearn.datasets import load_digits

from experiments.data import digits


def test_every_fourth_image_of_each_class_is_a_test_image():
    pixels, labels = load_digits(return_X_y=True)
    seen, expected = [0] * 10, []
    for label in labels:
        expected.append(seen[label] % 4 == 3)
        seen[label] += 1
    expected = np.array(expected)
    train, test = digits.load()
    np.testing.assert_array_equal(train.labels, labels[~expected])
    np.testing.assert_array_equal(test.labels, labels[expected])
    # The same constant is subtracted everywhere.
    shift = pixels[~expected] / 16 - train.inputs
    np.testing.assert_allclose(shift, shift[0, 0], atol=1e-6)
    np.testing.assert_allclose(pixels[expected] / 16 - test.inputs, shift[0, 0], atol=1e-6)


def test_split_is_stratified():
    train, test = digits.load()
    # 174 to 183 images a class: a quarter of each, rounded down.
    share = np.bincount(test.labels) / (np.bincount(train.labels) + np.bincount(test.labels))
    assert len(share) == 10
    assert ((share > 0.24) & (share <= 0.25)).all()


def test_inputs_are_float32_centred_and_one_wide():
    train, test = digits.load()
    assert train.inputs.shape == (1352, 64)
    assert test.inputs.shape == (445, 64)
    for part in (train, test):
        assert part.inputs.dtype == np.float32
        assert part.labels.dtype == np.int32
    assert abs(train.inputs.mean(dtype=np.float64)) < 1e-6
    assert np.ptp(train.inputs) == 1.0


def test_loading_twice_gives_the_same():
    for one, other in zip(digits.load(), digits.load(), strict=True):
        np.testing.assert_array_equal(one.inputs, other.inputs)
        np.testing.assert_array_equal(one.labels, other.labels)


def cubic(distance: float) -> float:
    """Keys' kernel with a = −1/2 (IEEE Trans. ASSP 29, 1981, equation 15)."""
    d = abs(distance)
    if d < 1:
        return 1.5 * d**3 - 2.5 * d**2 + 1
    return -0.5 * d**3 + 2.5 * d**2 - 4 * d + 2 if d < 2 else 0.0


def enlarged(line: np.ndarray) -> np.ndarray:
    """Eight greys to 28 by cubic interpolation, rounded and cut off at 0 and 255."""
    result = np.zeros(28)
    for new in range(28):
        # Centres: new pixel i lies at (i + 1/2)·8/28 of old pixels, whose centres are j + 1/2.
        weights = [cubic((new + 0.5) * 8 / 28 - (old + 0.5)) for old in range(8)]
        result[new] = sum(w * grey for w, grey in zip(weights, line, strict=True)) / sum(weights)
    return np.clip(np.rint(result), 0, 255)


@pytest.mark.parametrize("row", [0, 7, 1351])
def test_resized_digits_are_cubically_interpolated(row):
    small, large = digits.load(), digits.load_resized()
    # Undo load's shift: its greatest pixel was 16.
    shift = 1 - small.train.inputs.max()
    greys = np.rint((small.train.inputs[row] + shift) * 255).reshape(8, 8)
    wide = np.stack([enlarged(line) for line in greys])
    expected = np.stack([enlarged(line) for line in wide.T]).T
    # The blackest and whitest pixels of all are 0 and 255.
    everything = large.train.inputs
    found = (everything[row] - everything.min()) / np.ptp(everything) * 255
    # Each of two passes may round the other way: its weights are fixed-point numbers.
    np.testing.assert_allclose(found.reshape(28, 28), expected, atol=2.01, rtol=0)
    assert np.abs(found.reshape(28, 28) - expected).mean() < 0.05


def test_resized_digits_are_the_same_examples_normalised():
    small, large = digits.load(), digits.load_resized()
    for one, other in zip(small, large, strict=True):
        np.testing.assert_array_equal(one.labels, other.labels)
        assert other.inputs.shape == (len(one.labels), 784)
        assert other.inputs.dtype == np.float32
    assert abs(large.train.inputs.mean(dtype=np.float64)) < 1e-6
    assert abs(large.train.inputs.std(dtype=np.float64) - 1) < 1e-6
