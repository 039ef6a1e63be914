"""Chars74K's letters, on miniature archives in both layouts and on the real copy."""

import csv
import io
import string
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest

from experiments.data import chars74k, folders
from experiments.data.types import DataDamagedError, DataNotFoundError
from tests import real_data
from tests.image_archives import encode, write_tgz, write_zip

PER_CLASS = 30


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv(folders.DATA_DIR_VARIABLE, raising=False)
    return tmp_path / "cache" / "mas_jax"


def picture(sample: int, number: int) -> np.ndarray:
    """(4, 4, 3) uint8 with a brighter or darker middle."""
    rng = np.random.default_rng([sample, number])
    image = rng.integers(90, 110, (4, 4, 1))
    image[1:3, 1:3] += 60 if number % 2 else -60
    return np.broadcast_to(image, (4, 4, 3)).astype(np.uint8)


def names(samples: range) -> list[tuple[int, int]]:
    """Class and number of each image."""
    return [(sample, number) for sample in samples for number in range(1, PER_CLASS + 1)]


def files(start: str = "GoodImg", samples: range = range(1, 63)) -> dict[str, bytes]:
    """An archive's images."""
    return {
        f"{start}/Sample{sample:03}/img{sample:03}-{number:05}.png": encode(picture(sample, number))
        for sample, number in names(samples)
    }


def save_copy(data_dir: Path, content: dict[str, bytes]) -> Path:
    """A zip of GoodImg, in its place."""
    path = data_dir / "chars74k_goodimg" / "chars74k_goodimg_64.zip"
    return write_zip(path, {**content, "labels.csv": b"file,label\n"})


def test_letters_are_split_by_name_and_digits_and_small_letters_left_out(tmp_path):
    save_copy(tmp_path, files())
    train, test = chars74k.load(tmp_path)
    parts = {False: [], True: []}
    for sample, number in names(range(11, 37)):
        is_test = zlib.crc32(f"img{sample:03}-{number:05}".encode()) % 5 == 0
        parts[is_test].append((sample, number))
    for found, wanted in ((train, parts[False]), (test, parts[True])):
        assert found.labels.tolist() == [sample - 11 for sample, _ in wanted]
        assert found.inputs.shape == (len(wanted), 784)
        assert found.inputs.dtype == np.float32
        assert found.labels.dtype == np.int32
    # From 4 to 28 pixels, each becomes 7 by 7: the middle pixels stand out, always brighter.
    images = train.inputs.reshape(-1, 28, 28)
    assert (images[:, 7:21, 7:21].min((1, 2)) > images[:, :7].max((1, 2))).all()
    np.testing.assert_allclose(images.max((1, 2)), images.max(), rtol=1e-6)
    np.testing.assert_allclose(images.min((1, 2)), images.min(), rtol=1e-6)
    assert abs(train.inputs.mean(dtype=np.float64)) < 1e-6
    assert abs(train.inputs.std(dtype=np.float64) - 1) < 1e-6


def test_the_publishers_archive_gives_the_same_as_a_copy(tmp_path):
    save_copy(tmp_path / "copy", files())
    masks = files("English/Img/GoodImg/Msk", range(11, 13))
    bad = files("English/Img/BadImag/Bmp", range(11, 13))
    content = {**bad, **files("English/Img/GoodImg/Bmp"), **masks}
    blank = encode(np.zeros((4, 4), np.uint8))
    content |= dict.fromkeys([*masks, *bad], blank)
    write_tgz(tmp_path / "original" / "chars74k_goodimg" / "EnglishImg.tgz", content)
    copy, original = (chars74k.load(tmp_path / name) for name in ("copy", "original"))
    for one, other in zip(copy, original, strict=True):
        np.testing.assert_array_equal(one.inputs, other.inputs)
        np.testing.assert_array_equal(one.labels, other.labels)


def test_kept_arrays_are_read_and_those_of_another_archive_are_not(tmp_path, monkeypatch):
    save_copy(tmp_path, files())
    first = chars74k.load(tmp_path)
    decode = chars74k._decode
    monkeypatch.setattr(chars74k, "_decode", None)
    np.testing.assert_array_equal(chars74k.load(tmp_path).test.inputs, first.test.inputs)
    monkeypatch.setattr(chars74k, "_decode", decode)
    content = files()
    del content["GoodImg/Sample011/img011-00001.png"]
    save_copy(tmp_path, content)
    changed = chars74k.load(tmp_path)
    assert sum(len(part.labels) for part in changed) == 26 * PER_CLASS - 1


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        # Border 2 < mean: stretched, 2 -> 0, 7 -> 255.
        ([[2, 2, 2], [2, 7, 2], [2, 2, 2]], [[0, 0, 0], [0, 255, 0], [0, 0, 0]]),
        # Border brighter: the same the other way round.
        ([[7, 7, 7], [7, 2, 7], [7, 7, 7]], [[0, 0, 0], [0, 255, 0], [0, 0, 0]]),
        # A step of a fifth: 51.
        ([[0, 0, 0], [1, 5, 1], [0, 0, 0]], [[0, 0, 0], [51, 255, 51], [0, 0, 0]]),
        # Nothing to stretch, nothing to invert.
        ([[9, 9, 9], [9, 9, 9], [9, 9, 9]], [[0, 0, 0], [0, 0, 0], [0, 0, 0]]),
    ],
)
def test_light_on_dark_stretches_and_inverts(image, expected):
    assert chars74k.light_on_dark(np.array(image, np.uint8)).tolist() == expected


def test_a_letter_missing_on_one_side_is_named(tmp_path):
    content = files()
    training = [
        name
        for name in content
        if "Sample013" in name and zlib.crc32(Path(name).stem.encode()) % 5 != 0
    ]
    for name in training:
        del content[name]
    path = save_copy(tmp_path, content)
    with pytest.raises(DataDamagedError, match=rf"{path.name} has no training images of C; "):
        chars74k.load(tmp_path)


def test_an_archive_of_something_else_is_refused(tmp_path):
    save_copy(tmp_path, {})
    with pytest.raises(DataDamagedError, match="has no training images of A, B, C"):
        chars74k.load(tmp_path)


def test_a_damaged_image_is_named(tmp_path):
    name = "GoodImg/Sample020/img020-00003.png"
    save_copy(tmp_path, {**files(), name: b"\x89PNG\r\n\x1a\n"})
    with pytest.raises(DataDamagedError, match=rf"{name} in .*_64\.zip is not an image"):
        chars74k.load(tmp_path)


def test_the_error_says_what_to_fetch(cache):
    with pytest.raises(DataNotFoundError) as caught:
        chars74k.load()
    assert "http://www.ee.surrey.ac.uk/CVSSP/demos/chars74k/EnglishImg.tgz" in str(caught.value)
    assert "http://info.ee.surrey.ac.uk/CVSSP/demos/chars74k/" in str(caught.value)
    assert f"into the folder\n  {cache / 'data' / 'chars74k_goodimg'}\n" in str(caught.value)


@real_data.needs("chars74k_goodimg")
def test_real_letters_have_their_known_counts_labels_and_moments():
    train, test = chars74k.load(real_data.data_dir)
    (path,) = (Path(real_data.data_dir) / "chars74k_goodimg").glob("*.zip")
    with zipfile.ZipFile(path) as archive:
        table = csv.DictReader(io.StringIO(archive.read("labels.csv").decode()))
        letters = [row["label"] for row in table if row["label"] in string.ascii_uppercase]
    labels = np.concatenate([train.labels, test.labels])
    wanted = [letters.count(letter) for letter in string.ascii_uppercase]
    assert np.bincount(labels).tolist() == wanted
    assert (len(train.labels), len(test.labels)) == (4157, 1045)
    assert set(train.labels) == set(test.labels) == set(range(26))
    assert abs(train.inputs.mean(dtype=np.float64)) < 1e-6
    assert abs(train.inputs.std(dtype=np.float64) - 1) < 1e-6
