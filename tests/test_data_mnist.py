"""MNIST through TFDS without TensorFlow, on miniature archives and on the real ones."""

import gzip
import os
import shutil
import socket
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments.data import folders, idx_sets, mnist, reach
from experiments.data.types import DataDamagedError, DataNotFoundError, Examples, Splits
from tests import real_data
from tests.idx_archives import idx, miniature, serving

# Train and test.
SIZES = (30, 12)


@pytest.fixture(scope="module")
def archives() -> dict[str, np.ndarray]:
    """The four arrays of a miniature MNIST, by file name."""
    rng = np.random.default_rng(0)
    arrays = {}
    for (images, labels), size in zip(idx_sets.FILES.values(), SIZES, strict=True):
        arrays[images] = rng.integers(0, 256, (size, 28, 28), np.uint8)
        arrays[labels] = (np.arange(size) % 10).astype(np.uint8)
    return arrays


@pytest.fixture
def folder(archives: dict[str, np.ndarray], tmp_path: Path) -> Path:
    """A folder with the four archives in it."""
    folder = tmp_path / "original"
    folder.mkdir()
    for name, array in archives.items():
        (folder / name).write_bytes(idx(array))
    return folder


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder, and nothing else in the environment."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv(folders.DATA_DIR_VARIABLE, raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    # TFDS leaves an empty temporary folder behind for each builder.
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path / "cache" / "mas_jax"


def assert_same_examples(found: Examples, images: np.ndarray, labels: np.ndarray) -> None:
    """Assert that `found` holds these images, normalised, in some order."""
    expected = (images.reshape(len(images), -1) / 255 - 0.1307) / 0.3081
    order, expected_order = (np.lexsort(x.T[:3]) for x in (found.inputs, expected))
    np.testing.assert_allclose(found.inputs[order], expected[expected_order], atol=1e-6)
    np.testing.assert_array_equal(found.labels[order], labels[expected_order])


def assert_is_miniature(splits: Splits, archives: dict[str, np.ndarray]) -> None:
    """Assert that `splits` is what the archives hold."""
    for found, (images, labels) in zip(splits, idx_sets.FILES.values(), strict=True):
        assert found.inputs.dtype == np.float32
        assert found.labels.dtype == np.int32
        assert_same_examples(found, archives[images], archives[labels])


@pytest.mark.parametrize("subfolder", ["", "mnist"])
@pytest.mark.parametrize("how", ["argument", "variable", "default"])
def test_files_are_found_in_the_folder_or_its_subfolder(
    how, subfolder, folder, archives, cache, tmp_path, monkeypatch
):
    builder_class = miniature(folder)
    parent = cache / "data" if how == "default" else tmp_path / "given"
    shutil.move(folder, parent / subfolder)
    if how == "variable":
        monkeypatch.setenv(folders.DATA_DIR_VARIABLE, str(parent))
    data_dir = parent if how == "argument" else None
    assert_is_miniature(mnist.load(data_dir, builder_class=builder_class), archives)


def test_argument_goes_before_the_variable(folder, archives, tmp_path, monkeypatch):
    monkeypatch.setenv(folders.DATA_DIR_VARIABLE, str(tmp_path / "nowhere"))
    assert_is_miniature(mnist.load(folder, builder_class=miniature(folder)), archives)


def test_nothing_is_printed_and_nothing_is_written_beside_the_files(folder, capfd):
    mnist.load(folder, builder_class=miniature(folder))
    assert capfd.readouterr() == ("", "")
    names = [name for pair in idx_sets.FILES.values() for name in pair]
    assert sorted(os.listdir(folder)) == sorted(names)


def test_tensorflow_is_not_imported(folder):
    mnist.load(folder, builder_class=miniature(folder))
    assert "tensorflow" not in sys.modules


@pytest.mark.parametrize("kept", ["all", "prepared data set", "damaged copy"])
def test_second_load_needs_no_files_and_gives_the_same(kept, folder, cache):
    builder_class = miniature(folder)
    first = mnist.load(folder, builder_class=builder_class)
    shutil.rmtree(folder)
    copy = cache / "tensorflow_datasets" / "mnist-3.0.1.npz"
    if kept == "prepared data set":
        copy.unlink()
    elif kept == "damaged copy":
        content = bytearray(copy.read_bytes())
        content[3000] ^= 1
        copy.write_bytes(content)
    for one, other in zip(first, mnist.load(builder_class=builder_class), strict=True):
        np.testing.assert_array_equal(one.inputs, other.inputs)
        np.testing.assert_array_equal(one.labels, other.labels)


def test_damaged_prepared_data_set_is_named(folder, cache):
    builder_class = miniature(folder)
    mnist.load(folder, builder_class=builder_class)
    root = cache / "tensorflow_datasets"
    (root / "mnist-3.0.1.npz").unlink()
    for path in (root / "mnist" / "3.0.1").glob("*train.array_record*"):
        path.unlink()
    with pytest.raises(DataDamagedError, match=r"prepared data set in .*3\.0\.1 cannot be read"):
        mnist.load(folder, builder_class=builder_class)


def test_missing_files_are_downloaded(folder, archives, tmp_path):
    with serving(folder) as port:
        builder_class = miniature(folder, port)
        partial = tmp_path / "partial"
        partial.mkdir()
        shutil.copy(folder / idx_sets.FILES["test"][0], partial)
        assert_is_miniature(mnist.load(partial, builder_class=builder_class), archives)


def test_a_download_that_is_not_the_published_file_is_named(folder, cache, tmp_path):
    with serving(folder) as port:
        builder_class = miniature(folder, port)
        # One download only: TFDS would go on with others, and retry for minutes, in the background.
        partial = tmp_path / "partial"
        shutil.copytree(folder, partial)
        (partial / idx_sets.FILES["test"][1]).unlink()
        (folder / idx_sets.FILES["test"][1]).write_bytes(idx(np.zeros(3, np.uint8)))
        with pytest.raises(DataNotFoundError, match=r"\(.*t10k-labels.* has wrong checksum\)"):
            mnist.load(partial, builder_class=builder_class)
    assert not (cache / "tensorflow_datasets" / "mnist" / "3.0.1").exists()


def test_without_files_and_network_the_error_says_what_to_fetch(folder, cache, tmp_path):
    builder_class = miniature(folder)
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(DataNotFoundError) as caught:
        mnist.load(empty, builder_class=builder_class)
    text = str(caught.value)
    for url, info in builder_class.url_infos.items():
        assert url in text
        assert f"{int(info.size)} bytes and sha256 {info.checksum}" in text
    assert f"into the folder\n  {empty / 'mnist'}\n" in text
    assert "refused" in text
    assert str(cache / "tensorflow_datasets") in text
    assert folders.DATA_DIR_VARIABLE in text
    assert caught.value.__cause__ is None


def test_error_lists_only_the_missing_files(folder):
    builder_class = miniature(folder)
    (folder / "train-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(DataNotFoundError) as caught:
        mnist.load(folder, builder_class=builder_class)
    assert str(caught.value).count("sha256") == 1
    assert "/train-labels-idx1-ubyte.gz" in str(caught.value)
    assert f"into the folder\n  {folder}\n" in str(caught.value)


def test_stock_urls_sizes_and_digests_are_in_the_error(cache):
    with pytest.raises(DataNotFoundError) as caught:
        mnist.load()
    text = str(caught.value)
    assert "https://storage.googleapis.com/cvdf-datasets/mnist/train-images-idx3-ubyte.gz" in text
    assert "9912422 bytes and sha256 440fcabf73cc546fa21475e81ea370265605f56be210a4024d2" in text
    assert f"into the folder\n  {cache / 'data' / 'mnist'}\n" in text


def test_a_server_without_the_files_is_not_asked_again(folder, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    with serving(empty) as port, pytest.raises(DataNotFoundError, match=r"\(404 Client Error"):
        mnist.load(empty, builder_class=miniature(folder, port))


def test_a_server_that_never_answers_is_given_up(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(reach, "PROBE_SECONDS", 0.2)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        start = time.monotonic()
        with pytest.raises(DataNotFoundError, match=r"no answer from|timed out"):
            mnist.load(tmp_path, builder_class=miniature(folder, silent.getsockname()[1]))
    assert time.monotonic() - start < 5


def test_a_damaged_file_is_named(folder, cache):
    builder_class = miniature(folder)
    path = folder / "train-images-idx3-ubyte.gz"
    content = bytearray(path.read_bytes())
    content[100] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataDamagedError, match=r"train-images-idx3-ubyte\.gz is not the published"):
        mnist.load(folder, builder_class=builder_class)
    assert not (cache / "tensorflow_datasets" / "mnist" / "3.0.1").exists()


@pytest.mark.parametrize("how", ["data_dir", folders.DATA_DIR_VARIABLE])
def test_a_folder_that_is_not_there_is_named(how, tmp_path, monkeypatch):
    nowhere = tmp_path / "nowhere"
    monkeypatch.setenv(folders.DATA_DIR_VARIABLE, str(nowhere))
    with pytest.raises(DataNotFoundError, match=f"{how} is '.*nowhere', which is not a folder"):
        mnist.load(nowhere if how == "data_dir" else None)


def test_a_cache_folder_that_cannot_be_written_is_named(folder, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(DataNotFoundError, match=r"cannot be prepared in .*XDG_CACHE_HOME"):
        mnist.load(folder, builder_class=miniature(folder))


def test_another_process_may_finish_first(folder, archives, monkeypatch):
    builder_class = miniature(folder)
    prepare: Any = builder_class.download_and_prepare

    def prepare_after_another(self: Any, **kwargs: Any) -> None:
        # As if the finished folder appeared between the look and the rename.
        prepare(builder_class(data_dir=self.data_dir_root), **kwargs)
        raise OSError(39, "Directory not empty")

    monkeypatch.setattr(builder_class, "download_and_prepare", prepare_after_another)
    assert_is_miniature(mnist.load(folder, builder_class=builder_class), archives)


def test_images_and_labels_of_unequal_number_are_refused(folder):
    (folder / "t10k-labels-idx1-ubyte.gz").write_bytes(idx(np.zeros(3, np.uint8)))
    with pytest.raises(DataDamagedError, match=r"has 12 images, but .* 3 labels"):
        mnist.load(folder, builder_class=miniature(folder))


def test_read_idx_gives_back_what_was_written(tmp_path):
    array = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    (tmp_path / "file.gz").write_bytes(idx(array))
    np.testing.assert_array_equal(idx_sets.read_idx(tmp_path / "file.gz"), array)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x00\x00\x08",
        b"\x00\x00\x08\x01\x00\x00",  # cut in the header
        b"\x00\x00\x08\x01\x00\x00\x00\x02a",  # cut in the data
        b"\x00\x00\x08\x01\x00\x00\x00\x02abc",  # too long
        b"\x00\x00\x0d\x01\x00\x00\x00\x01aaaa",  # float32
    ],
)
def test_read_idx_refuses_what_is_no_idx_file_of_bytes(content, tmp_path):
    (tmp_path / "file.gz").write_bytes(gzip.compress(content))
    with pytest.raises(DataDamagedError, match=r"file\.gz does not hold an idx file of bytes"):
        idx_sets.read_idx(tmp_path / "file.gz")


@real_data.needs("mnist")
def test_real_mnist_has_its_known_counts_and_moments_and_is_prepared_once(
    monkeypatch, tmp_path_factory
):
    monkeypatch.setenv("XDG_CACHE_HOME", real_data.cache(tmp_path_factory))
    train, test = mnist.load(real_data.data_dir)
    assert train.inputs.shape == (60000, 784)
    assert test.inputs.shape == (10000, 784)
    # How often each of the digits 0 to 9 is in the published files.
    assert np.bincount(train.labels).tolist() == [
        *(5923, 6742, 5958, 6131, 5842),
        *(5421, 5918, 6265, 5851, 5949),
    ]
    assert np.bincount(test.labels).tolist() == [
        *(980, 1135, 1032, 1010, 982),
        *(892, 958, 1028, 974, 1009),
    ]
    fractions = train.inputs * np.float64(0.3081) + 0.1307
    assert round(fractions.mean(), 4) == 0.1307
    assert round(fractions.std(), 4) == 0.3081

    def read_again(*_: object) -> None:
        raise AssertionError("the original files are read a second time")

    monkeypatch.setattr(idx_sets, "read_idx", read_again)
    again = mnist.load(real_data.data_dir)
    np.testing.assert_array_equal(again.test.labels, test.labels)
    np.testing.assert_array_equal(again.test.inputs, test.inputs)
