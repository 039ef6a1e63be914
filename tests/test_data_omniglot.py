"""One alphabet of Omniglot, on a miniature archive and on the real one."""

from pathlib import Path

import numpy as np
import pytest

from experiments.data import folders, omniglot
from experiments.data.types import DataDamagedError, DataNotFoundError
from tests import real_data
from tests.image_archives import encode, write_zip

CHARACTERS = {"Small": 2, "Old_(Other)": 3}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv(folders.DATA_DIR_VARIABLE, raising=False)
    return tmp_path / "cache" / "mas_jax"


def bits(alphabet: str, character: int, drawing: int) -> np.ndarray:
    """(56, 56) bool, False where there is ink: a bar as long as the drawing's number."""
    paper = np.ones((56, 56), bool)
    row = 4 * (5 * list(CHARACTERS).index(alphabet) + character)
    paper[row : row + 2, : 2 * drawing] = False
    return paper


def files() -> dict[str, bytes]:
    """The archive's files, in the publisher's layout; drawings not in their order."""
    return {
        f"images_evaluation/{alphabet}/character{character:02}/{character + 964:04}_{drawing:02}"
        ".png": encode(bits(alphabet, character, drawing))
        for alphabet, count in CHARACTERS.items()
        for character in range(1, count + 1)
        for drawing in reversed(range(1, 21))
    }


def save(data_dir: Path, content: dict[str, bytes]) -> Path:
    """The archive in its place."""
    return write_zip(data_dir / "omniglot" / "images_evaluation_again.zip", content)


@pytest.mark.parametrize("alphabet", CHARACTERS)
def test_drawings_to_15_are_training_and_the_rest_test_data_white_on_black(alphabet, tmp_path):
    save(tmp_path, {"images_evaluation/": b"", "images_evaluation/Small/": b"", **files()})
    train, test = omniglot.load(tmp_path, alphabet=alphabet)
    count = CHARACTERS[alphabet]
    assert train.labels.tolist() == np.repeat(range(count), 15).tolist()
    assert test.labels.tolist() == np.repeat(range(count), 5).tolist()
    # 56 to 28: a bar of 2 by 2d bits is d whole pixels.
    expected = {
        part: np.zeros((count * len(drawings), 28, 28))
        for part, drawings in (("train", range(1, 16)), ("test", range(16, 21)))
    }
    for part, first, each in (("train", 1, 15), ("test", 16, 5)):
        for number, image in enumerate(expected[part]):
            row = 2 * (5 * list(CHARACTERS).index(alphabet) + 1 + number // each)
            image[row, : first + number % each] = 1
    mean, std = expected["train"].mean(), expected["train"].std()
    for part, found in (("train", train), ("test", test)):
        wanted = (expected[part].reshape(-1, 784) - mean) / std
        np.testing.assert_allclose(found.inputs, wanted, rtol=1e-6)
        assert found.inputs.dtype == np.float32
        assert found.labels.dtype == np.int32


def test_kept_arrays_are_those_of_this_archive_and_alphabet(tmp_path, monkeypatch):
    path = save(tmp_path, files())
    small = omniglot.load(tmp_path, alphabet="Small")
    other = omniglot.load(tmp_path, alphabet="Old_(Other)")
    assert len(other.train.labels) != len(small.train.labels)
    blank = {name: encode(np.eye(9, dtype=bool)) for name in files()}
    decode = omniglot._decode
    monkeypatch.setattr(omniglot, "_decode", None)
    again = omniglot.load(tmp_path, alphabet="Small")
    np.testing.assert_array_equal(again.train.inputs, small.train.inputs)
    monkeypatch.setattr(omniglot, "_decode", decode)
    save(tmp_path, blank)
    changed = omniglot.load(tmp_path, alphabet="Small")
    assert np.ptp(changed.train.inputs, axis=0).max() == 0
    path.unlink()
    with pytest.raises(DataNotFoundError, match="evaluation set is not in"):
        omniglot.load(tmp_path, alphabet="Small")


def test_an_unknown_alphabet_is_refused_with_the_nearest(tmp_path):
    save(tmp_path, files())
    with pytest.raises(ValueError, match=r"'Smal' is not in .*did you mean 'Small'\? It has Old_"):
        omniglot.load(tmp_path, alphabet="Smal")


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ("drop", "of Small it lacks drawing 7 of character 1, wanted drawings 1 to 20 of each"),
        ("add", "of Small it has drawing 21 of character 2, wanted drawings 1 to 20 of each"),
        ("cut", r"character01/0965_07\.png in .*images_evaluation_again\.zip is not an image"),
        ("other", r"holds no images_evaluation/ALPHABET/characterNN/NNNN_NN\.png"),
    ],
)
def test_what_is_not_as_published_is_named(change, text, tmp_path):
    content = files()
    name = "images_evaluation/Small/character01/0965_07.png"
    if change == "drop":
        del content[name]
    elif change == "add":
        content["images_evaluation/Small/character02/0966_21.png"] = content[name]
    elif change == "cut":
        content[name] = content[name][:50]
    else:
        content = {"images_background/" + name.split("/", 1)[1]: content[name]}
    save(tmp_path, content)
    with pytest.raises(DataDamagedError, match=text):
        omniglot.load(tmp_path, alphabet="Small")


def test_the_error_says_what_to_fetch(cache):
    with pytest.raises(DataNotFoundError) as caught:
        omniglot.load()
    assert "github.com/brendenlake/omniglot/raw/master/python/images_evaluation.zip" in str(
        caught.value
    )
    assert f"into the folder\n  {cache / 'data' / 'omniglot'}\n" in str(caught.value)


@real_data.needs("omniglot")
def test_real_glagolitic_has_45_characters_of_15_and_5_drawings_all_different():
    train, test = omniglot.load(real_data.data_dir)
    assert np.bincount(train.labels).tolist() == [15] * 45
    assert np.bincount(test.labels).tolist() == [5] * 45
    everything = np.concatenate([train.inputs, test.inputs])
    assert len(np.unique(everything, axis=0)) == 900
    assert abs(train.inputs.mean(dtype=np.float64)) < 1e-6
    assert abs(train.inputs.std(dtype=np.float64) - 1) < 1e-6
    # White on black: most of an image is background, which is its least value.
    assert np.median(everything) == everything.min()
