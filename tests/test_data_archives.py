"""What is read from archives, what is kept of it, and that damage never passes unnamed."""

import re

import numpy as np
import pytest

from experiments.data import archives, images, kept, pictures
from experiments.data.types import DataDamagedError, DataNotFoundError
from tests.image_archives import encode, write_tgz, write_zip

ANY = re.compile(r"a/(\d)\.png")
SOURCE = archives.Source("Things", "things", ("*.zip", "*.tgz"), "http://a.place/things.zip")
NOISE = np.random.default_rng(0).integers(0, 256, (3, 8, 8), np.uint8)
FILES = {f"a/{number}.png": encode(image) for number, image in enumerate(NOISE)}


def read(path):
    """All matching images."""
    return {
        match[1]: images.read_grey(content, archives.member(path, match))
        for match, content in archives.members(path, ANY)
    }


@pytest.mark.parametrize(("write", "name"), [(write_zip, "x.zip"), (write_tgz, "x.tgz")])
def test_members_are_those_whose_whole_name_matches(write, name, tmp_path):
    path = write(tmp_path / name, {**FILES, "b/a/1.png": b"?", "a/1.png.txt": b"?"})
    found = read(path)
    assert list(found) == ["0", "1", "2"]
    for image, original in zip(found.values(), NOISE, strict=True):
        np.testing.assert_array_equal(image, original)


@pytest.mark.parametrize(("write", "name"), [(write_zip, "x.zip"), (write_tgz, "x.tgz")])
def test_a_damaged_archive_raises_or_gives_the_same_images(write, name, tmp_path):
    path = write(tmp_path / name, FILES)
    whole = path.read_bytes()
    rng = np.random.default_rng(1)
    refused = []
    for _ in range(300):
        content = bytearray(whole)
        content[rng.integers(len(content))] ^= 1 << rng.integers(8)
        path.write_bytes(content[: rng.integers(len(content))] if rng.random() < 0.2 else content)
        try:
            found = read(path)
        except DataDamagedError as error:
            refused.append(str(error))
            continue
        # A changed name, at most, makes one image another or none.
        for image in found.values():
            assert any(np.array_equal(image, original) for original in NOISE)
    assert len(refused) > 200
    assert all(str(path) in text for text in refused)


def test_a_damaged_member_is_named(tmp_path):
    path = write_zip(tmp_path / "x.zip", FILES)
    content = bytearray(path.read_bytes())
    content[content.index(FILES["a/1.png"]) + 40] ^= 1
    path.write_bytes(content)
    where = re.escape(f"a/1.png in {path}")
    wanted = rf"^{where} cannot be read \(Bad CRC-32 [^()]*\); fetch the archive again$"
    with pytest.raises(DataDamagedError, match=wanted):
        read(path)


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "it is empty"),
        (b"no image", "its 8 bytes begin like no kind of image that is known"),
        (FILES["a/1.png"][:60], "[^<>]+"),
    ],
)
def test_what_is_no_image_is_named_and_told_in_words(content, what, tmp_path):
    path = write_zip(tmp_path / "x.zip", {**FILES, "a/1.png": content})
    wanted = rf"a/1\.png in .*x\.zip is not an image that can be read \({what}\); fetch the file"
    with pytest.raises(DataDamagedError, match=wanted):
        read(path)
    wanted = rf"here is not a picture that can be read \({what}\); fetch the file again, or leave"
    with pytest.raises(DataDamagedError, match=wanted):
        pictures.read_square(content, "here", 4)


def test_an_absent_archive_says_what_to_fetch_and_where_to(tmp_path):
    with pytest.raises(DataNotFoundError) as caught:
        archives.find(SOURCE, tmp_path)
    text = str(caught.value)
    assert not isinstance(caught.value, DataDamagedError)
    assert text.startswith(f"Things is not in {tmp_path / 'things'} (looked for *.zip and *.tgz)")
    assert "Fetch\n  http://a.place/things.zip\n" in text
    assert f"into the folder\n  {tmp_path / 'things'}\n" in text
    assert "--data-dir or the environment variable MAS_JAX_DATA_DIR" in text


def test_two_archives_are_refused(tmp_path):
    write_zip(tmp_path / "things" / "x.zip", {})
    write_zip(tmp_path / "things" / "y.tgz", {})
    with pytest.raises(DataNotFoundError, match=r"2 archives that may be Things \(x.zip, y.tgz\)"):
        archives.find(SOURCE, tmp_path)


def test_archives_are_found_through_the_variable(tmp_path, monkeypatch):
    path = write_zip(tmp_path / "things" / "x.zip", {})
    monkeypatch.setenv("MAS_JAX_DATA_DIR", str(tmp_path))
    assert archives.find(SOURCE, None) == path


@pytest.mark.parametrize("damage", [None, "flip", "cut"])
def test_arrays_are_made_once_and_again_where_damaged(damage, tmp_path):
    path, calls = tmp_path / "new" / "arrays.npz", []

    def make():
        calls.append(1)
        return {"a": np.arange(100), "b": np.eye(3, dtype=bool)}

    first = kept.read_or_make(path, make)
    if damage:
        content = bytearray(path.read_bytes())
        content[300] ^= 1
        path.write_bytes(content if damage == "flip" else content[:300])
    again = kept.read_or_make(path, make)
    assert len(calls) == (2 if damage else 1)
    assert first.keys() == again.keys()
    for key in first:
        np.testing.assert_array_equal(first[key], again[key])
        assert first[key].dtype == again[key].dtype
    assert [entry.name for entry in path.parent.iterdir()] == ["arrays.npz"]


def test_arrays_that_cannot_be_kept_are_still_given(tmp_path):
    (tmp_path / "file").touch()
    arrays = kept.read_or_make(tmp_path / "file" / "arrays.npz", lambda: {"a": np.arange(3)})
    assert arrays["a"].tolist() == [0, 1, 2]


@pytest.mark.parametrize("shape", [(28, 28), (105, 5), (7, 64), (1, 3)])
def test_resizing_is_the_mean_over_each_pixels_area(shape):
    image = np.random.default_rng(2).integers(0, 256, shape, np.uint8)
    expected = np.zeros((28, 28))
    height, width = (size / 28 for size in shape)
    for row in range(28):
        for column in range(28):
            top, left = row * height, column * width
            for i in range(shape[0]):
                for j in range(shape[1]):
                    overlap = max(0, min(top + height, i + 1) - max(top, i))
                    overlap *= max(0, min(left + width, j + 1) - max(left, j))
                    expected[row, column] += image[i, j] * overlap / (height * width)
    found = images.resize_by_area(image)
    assert found.dtype == np.uint8
    # Half a grey of rounding.
    np.testing.assert_allclose(found, expected, atol=0.5 + 1e-9, rtol=0)


def test_splits_are_normalised_by_the_training_pixels_alone():
    pixels = np.random.default_rng(3).integers(0, 256, (10, 28, 28), np.uint8)
    is_test = np.arange(10) % 3 == 0
    train, test = images.split(pixels, np.arange(10), is_test)
    values = pixels[~is_test].astype(np.float64)
    expected = (pixels.reshape(10, -1) - values.mean()) / values.std()
    np.testing.assert_allclose(train.inputs, expected[~is_test], atol=1e-6, rtol=0)
    np.testing.assert_allclose(test.inputs, expected[is_test], atol=1e-6, rtol=0)
    assert train.labels.tolist() == [1, 2, 4, 5, 7, 8]
    assert train.inputs.dtype == test.inputs.dtype == np.float32
    assert train.labels.dtype == test.labels.dtype == np.int32
