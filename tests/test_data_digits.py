"""The bundled digits: shapes, the split's rule, and what normalisation leaves."""

import numpy as np
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
