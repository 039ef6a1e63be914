"""The paper's data sets through TFDS without TensorFlow, on miniatures in the real layouts."""

import os
import re
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments.data import folders, published, reach
from experiments.data.published import catalogue, fetching
from experiments.data.types import DataDamagedError, DataNotFoundError, Examples
from tests import published_archives as mini
from tests.idx_archives import serving

SETS = list(mini.MINIATURES)
PINNED = [name for name in SETS if any(file.digest for file in published.BUILDERS[name].files)]
STOCK_FILES = [
    ("flowers102", "102flowers.tgz", "344862509 bytes, sha256 2d01ecc807db462958cfe3d92f57a8c2"),
    ("cub200", "CUB_200_2011.tgz", "1150585339 bytes, sha256 0c685df5597a8b24909f6a7c9db6d11e"),
    ("cars196", "cars_train.tgz", "979269282 bytes, sha256 512b227b30e2f0a8aab9e09485786ab4"),
    ("actions", "VOCtrainval_11-May-2012.tar", "1999639040 bytes, sha256 e14f763270cf193d0b5f7"),
    ("svhn", "test_32x32.mat", "64275384 bytes, sha256 cdce80dfb2a2c4c6160906d0bd7c68ec5a99d7ca"),
]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder, and nothing else in the environment."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv(folders.DATA_DIR_VARIABLE, raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    # TFDS leaves an empty temporary folder behind for each builder.
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path / "cache" / "mas_jax"


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Write a miniature and make its builder known; gives the folder of its files."""

    def write(name: str, port: int | None = None) -> Path:
        folder = tmp_path / "data" / name
        folder.mkdir(parents=True)
        mini.MINIATURES[name].write(folder)
        monkeypatch.setitem(catalogue.BUILDERS, name, mini.builder(name, folder, port))
        return folder

    return write


def rebuild(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Take what is in `folder` now for what was published."""
    monkeypatch.setitem(catalogue.BUILDERS, name, mini.builder(name, folder))


def assert_holds(found: Examples, wanted: dict[int, int], side: int) -> None:
    """Assert that `found` are the pictures of these colours, with these labels, in some order."""
    assert found.inputs.dtype == np.uint8
    assert found.inputs.shape == (len(wanted), side, side, 3)
    assert found.labels.dtype == np.int32
    colours = np.array(mini.COLOURS)
    # JPEG is off by a few; colours are 70 apart.
    off = abs(found.inputs.reshape(len(wanted), -1, 1, 3).astype(int) - colours).max((1, 3))
    numbers = off.argmin(1)
    assert off.min(1).max() <= 12
    assert dict(zip(numbers.tolist(), found.labels.tolist(), strict=True)) == wanted


@pytest.mark.parametrize("name", SETS)
def test_the_publishers_layout_is_read(name, make, tmp_path):
    make(name)
    train, test, skipped = published.load(name, tmp_path / "data", side=8)
    wanted = mini.MINIATURES[name].content
    assert_holds(train, wanted.train, 8)
    assert_holds(test, wanted.test, 8)
    assert skipped == ()


def test_the_default_side_is_72_and_names_are_those_of_the_papers_sequence(make, tmp_path):
    make("svhn")
    assert published.load("svhn", tmp_path / "data").train.inputs.shape == (2, 72, 72, 3)
    assert list(published.BUILDERS) == [
        *("flowers102", "indoor67", "cub200", "cars196"),
        *("aircraft", "actions", "letters", "svhn"),
    ]
    classes = [published.BUILDERS[name].classes for name in published.BUILDERS]
    assert classes == [102, 67, 200, 196, 100, 11, 52, 10]


@pytest.mark.parametrize("kept", ["all", "prepared data set"])
def test_a_second_load_needs_no_files_and_gives_the_same(kept, make, tmp_path, cache):
    folder = make("flowers102")
    first = published.load("flowers102", tmp_path / "data", side=8)
    shutil.rmtree(folder)
    if kept == "prepared data set":
        for path in (cache / "tensorflow_datasets").glob("*.npz"):
            path.unlink()
    again = published.load("flowers102", tmp_path / "data", side=8)
    np.testing.assert_array_equal(first.train.inputs, again.train.inputs)
    np.testing.assert_array_equal(first.test.labels, again.test.labels)
    assert published.load("flowers102", tmp_path / "data", side=4).train.inputs.shape[1:3] == (4, 4)


def test_nothing_is_printed_and_nothing_is_written_beside_the_files(make, tmp_path, capfd):
    folder = make("cars196")
    before = sorted(os.listdir(folder))
    published.load("cars196", tmp_path / "data", side=8)
    assert capfd.readouterr() == ("", "")
    assert sorted(os.listdir(folder)) == before
    assert "tensorflow" not in sys.modules


@pytest.mark.parametrize("name", SETS)
def test_without_files_the_error_says_file_by_file_what_to_fetch(name, cache, monkeypatch):
    monkeypatch.setattr(reach, "why_unreachable", lambda _url: "no network today")
    with pytest.raises(DataNotFoundError) as caught:
        published.load(name)
    text = str(caught.value)
    for file in published.BUILDERS[name].files:
        assert f"  {file.name}: {file.holds}\n    from {file.url}\n" in text
        assert (file.digest.partition(":")[2] or "no size or digest is on record") in text
    assert "(no network today)" in text
    assert f"into the folder\n  {cache / 'data' / name}\n" in text
    assert folders.DATA_DIR_VARIABLE in text


@pytest.mark.parametrize(("name", "file", "wanted"), STOCK_FILES)
def test_stock_sizes_and_digests_are_tfdss(name, file, wanted):
    (found,) = [one for one in published.BUILDERS[name].files if one.name == file]
    assert fetching.fingerprint(found).startswith(wanted)


def test_only_missing_files_are_asked_for_and_an_unreachable_host_is_named(make, tmp_path):
    folder = make("flowers102")
    (folder / "setid.mat").unlink()
    with pytest.raises(DataNotFoundError, match="refused") as caught:
        published.load("flowers102", tmp_path / "data")
    assert str(caught.value).count("    from http") == 1
    assert "  setid.mat: training, validation and test set\n" in str(caught.value)


@pytest.mark.parametrize("name", PINNED)
def test_a_file_of_another_digest_or_size_is_named(name, make, tmp_path, cache):
    folder = make(name)
    file = catalogue.BUILDERS[name].files[-1]
    content = bytearray((folder / file.name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / file.name).write_bytes(content)
    wanted = (
        rf"{re.escape(file.name)} is not the published .*it has {len(content)} bytes.*wanted .*"
    )
    with pytest.raises(DataDamagedError, match=wanted + file.digest.replace(":", " ")) as caught:
        published.load(name, tmp_path / "data")
    assert f"Fetch it again from {file.url}" in str(caught.value)
    (folder / file.name).write_bytes(content[:-1])
    with pytest.raises(DataDamagedError, match=f"it has {len(content) - 1} bytes"):
        published.load(name, tmp_path / "data")
    assert not list((cache / "tensorflow_datasets").glob("*/*"))


@pytest.mark.parametrize("name", ["flowers102", "aircraft", "indoor67"])
def test_missing_files_are_downloaded(name, make, tmp_path):
    folder = tmp_path / "served"
    folder.mkdir()
    with serving(folder) as port:
        shutil.copytree(make(name, port), folder, dirs_exist_ok=True)
        (tmp_path / "data" / name / catalogue.BUILDERS[name].files[0].name).unlink()
        train, test, _ = published.load(name, tmp_path / "data", side=8)
    assert_holds(train, mini.MINIATURES[name].content.train, 8)
    assert_holds(test, mini.MINIATURES[name].content.test, 8)


def test_a_download_that_is_not_the_published_file_is_named_and_not_taken_later(make, tmp_path):
    folder = tmp_path / "served"
    folder.mkdir()
    with serving(folder) as port:
        archive = make("aircraft", port) / "fgvc-aircraft-2013b.tar.gz"
        right = archive.read_bytes()
        archive.unlink()
        (folder / archive.name).write_bytes(right[:-9])
        with pytest.raises(
            DataDamagedError, match=r"is not the published fgvc-aircraft-2013b\.tar"
        ):
            published.load("aircraft", tmp_path / "data", side=8)
        (folder / archive.name).write_bytes(right)
        assert len(published.load("aircraft", tmp_path / "data", side=8).train.labels) == 2


def break_picture(folder: Path, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut the CUB miniature's picture of this number off, in an archive taken for the real one."""
    files = mini.cub_files()
    (name,) = [name for name, content in files.items() if content == mini.picture(number)]
    files[name] = files[name][:-200]
    mini.write_tgz(folder / "CUB_200_2011.tgz", files)
    rebuild("cub200", folder, monkeypatch)


def test_a_damaged_picture_is_named_and_left_out_only_on_request(make, tmp_path, monkeypatch):
    folder = make("cub200")
    break_picture(folder, 4, monkeypatch)
    name = "002.Laysan_Albatross/Laysan_Albatross_0002_1027.jpg"
    with pytest.raises(
        DataDamagedError, match=rf"{name} of CUB-200-2011 is not a picture"
    ) as caught:
        published.load("cub200", tmp_path / "data", side=8)
    assert "caltech_birds2011" in str(caught.value)
    splits = published.load("cub200", tmp_path / "data", side=8, skip_damaged=True)
    assert splits.skipped == (name,)
    assert_holds(splits.train, {2: 0, 3: 1}, 8)
    assert_holds(splits.test, {1: 0}, 8)
    with pytest.raises(DataDamagedError, match="is not a picture"):
        published.load("cub200", tmp_path / "data", side=8)


def test_a_class_whose_training_pictures_were_all_left_out_is_named(make, tmp_path, monkeypatch):
    break_picture(make("cub200"), 3, monkeypatch)
    wanted = r"no training pictures \(1 could not be read\).* class 1, which 002\.Laysan"
    with pytest.raises(DataDamagedError, match=wanted):
        published.load("cub200", tmp_path / "data", side=8, skip_damaged=True)


def test_a_class_with_test_pictures_only_is_named(make, tmp_path, monkeypatch, cache):
    folder = make("aircraft")
    files = mini.aircraft_files()
    files["images_variant_trainval.txt"] = b"0000001 737-300 of Boeing\n"
    mini.write_aircraft(folder, files)
    rebuild("aircraft", folder, monkeypatch)
    wanted = r"no training pictures, of 1 of its classes: one is class 0, which 0000004\.jpg is of"
    with pytest.raises(DataDamagedError, match=wanted):
        published.load("aircraft", tmp_path / "data", side=8)
    assert not (cache / "tensorflow_datasets" / "fgvc_aircraft" / "1.0.0").exists()


def test_a_listed_picture_that_is_not_there_is_named(make, tmp_path, monkeypatch):
    folder = make("aircraft")
    files = mini.aircraft_files()
    del files["images/0000002.jpg"]
    mini.write_aircraft(folder, files)
    rebuild("aircraft", folder, monkeypatch)
    with pytest.raises(DataDamagedError, match=r"0000002\.jpg is listed, but not in .*aircraft"):
        published.load("aircraft", tmp_path / "data", side=8)


def test_a_damaged_prepared_data_set_is_named(make, tmp_path, cache):
    make("svhn")
    published.load("svhn", tmp_path / "data", side=8)
    for path in (cache / "tensorflow_datasets").rglob("*train.array_record*"):
        path.write_bytes(b"")
    with pytest.raises(DataDamagedError, match=r"prepared data set in .*svhn_cropped.* cannot be"):
        published.load("svhn", tmp_path / "data", side=4)


def test_a_cache_folder_that_cannot_be_written_is_named(make, tmp_path, monkeypatch):
    make("svhn")
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(DataNotFoundError, match=r"SVHN cannot be prepared in .*XDG_CACHE_HOME"):
        published.load("svhn", tmp_path / "data", side=8)


def test_wrong_arguments_are_refused():
    with pytest.raises(ValueError, match="no published data set is called 'flowers'; did you mean"):
        published.load("flowers")
    with pytest.raises(ValueError, match="side must be at least 1, got 0"):
        published.load("svhn", side=0)
