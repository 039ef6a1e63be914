"""Fashion-MNIST: its own files, constants and texts, with MNIST's of the same names about."""

import tempfile
from pathlib import Path

import numpy as np
import pytest

from experiments.data import fashion_mnist, folders, idx_sets, mnist
from experiments.data.types import DataDamagedError, DataNotFoundError
from tests import real_data
from tests.idx_archives import idx, miniature


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder, and nothing else in the environment."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv(folders.DATA_DIR_VARIABLE, raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    # TFDS leaves an empty temporary folder behind for each builder.
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path / "cache" / "mas_jax"


def write(folder: Path, pixel: int) -> None:
    """Four archives in `folder` whose images all have one value, their labels too."""
    folder.mkdir(parents=True)
    for size, (images, labels) in zip((6, 4), idx_sets.FILES.values(), strict=True):
        (folder / images).write_bytes(idx(np.full((size, 28, 28), pixel, np.uint8)))
        (folder / labels).write_bytes(idx(np.full(size, pixel % 10, np.uint8)))


@pytest.mark.parametrize("mnist_in", ["", "mnist"])
def test_each_data_set_gets_its_own_files(mnist_in, tmp_path):
    write(tmp_path / "data" / mnist_in, 51)
    other = miniature(tmp_path / "data" / mnist_in)
    write(tmp_path / "data" / "fashion_mnist", 204)
    own = miniature(tmp_path / "data" / "fashion_mnist", like=fashion_mnist.FashionMnist)
    for _ in range(2):
        digits = mnist.load(tmp_path / "data", builder_class=other)
        clothes = fashion_mnist.load(tmp_path / "data", builder_class=own)
        # 51/255 = 0.2 and 204/255 = 0.8.
        assert digits.train.inputs.shape == clothes.train.inputs.shape == (6, 784)
        np.testing.assert_allclose(digits.train.inputs, (0.2 - 0.1307) / 0.3081, rtol=1e-6)
        np.testing.assert_allclose(clothes.train.inputs, (0.8 - 0.2860) / 0.3530, rtol=1e-6)
        assert set(digits.test.labels) == {1}
        assert set(clothes.test.labels) == {4}


def test_mnists_files_in_the_folder_itself_are_not_taken(tmp_path):
    write(tmp_path / "data", 51)
    like = miniature(tmp_path / "data", like=fashion_mnist.FashionMnist)
    with pytest.raises(DataNotFoundError, match="Fashion-MNIST is neither prepared") as caught:
        fashion_mnist.load(tmp_path / "data", builder_class=like)
    assert f"into the folder\n  {tmp_path / 'data' / 'fashion_mnist'}\n" in str(caught.value)
    assert str(caught.value).endswith("MAS_JAX_DATA_DIR names the one above it.")


def test_mnists_files_under_fashion_mnists_name_are_refused(tmp_path):
    write(tmp_path / "right", 204)
    like = miniature(tmp_path / "right", like=fashion_mnist.FashionMnist)
    write(tmp_path / "data" / "fashion_mnist", 51)
    with pytest.raises(DataDamagedError, match="mind that MNIST's files have the same names"):
        fashion_mnist.load(tmp_path / "data", builder_class=like)


def test_stock_urls_and_digests_are_in_the_error(cache):
    with pytest.raises(DataNotFoundError) as caught:
        fashion_mnist.load()
    text = str(caught.value)
    assert "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/t10k-images" in text
    assert "26421880 bytes and sha256 3aede38d61863908ad78613f6a32ed271626dd12800ba2636" in text
    assert f"into the folder\n  {cache / 'data' / 'fashion_mnist'}\n" in text


@real_data.needs("fashion_mnist")
def test_real_fashion_mnist_has_its_counts_and_moments(monkeypatch, tmp_path_factory):
    monkeypatch.setenv("XDG_CACHE_HOME", real_data.cache(tmp_path_factory))
    train, test = fashion_mnist.load(real_data.data_dir)
    assert train.inputs.shape == (60000, 784)
    assert test.inputs.shape == (10000, 784)
    # The publisher's balance.
    assert np.bincount(train.labels).tolist() == [6000] * 10
    assert np.bincount(test.labels).tolist() == [1000] * 10
    fractions = train.inputs * np.float64(0.3530) + 0.2860
    assert round(fractions.mean(), 4) == 0.2860
    assert round(fractions.std(), 4) == 0.3530
    again = fashion_mnist.load(real_data.data_dir)
    np.testing.assert_array_equal(again.train.inputs, train.inputs)
    np.testing.assert_array_equal(again.train.labels, train.labels)
