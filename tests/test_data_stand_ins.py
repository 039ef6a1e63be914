"""The stand-ins: splits, duplicates, what is kept, and damage; in miniature and on real copies."""

import csv
import functools
import io
import tempfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from experiments.data import (
    chars74k,
    fashion_mnist,
    folders,
    idx_sets,
    labelled_zips,
    mnist,
    stand_ins,
)
from experiments.data.types import DataDamagedError, DataNotFoundError, PictureSplits
from tests import real_data
from tests.idx_archives import idx, miniature
from tests.image_archives import encode, write_tgz, write_zip

HEADER = "file,label,split,orig_width,orig_height"
# One in three by name: four albatrosses are test data, and one auklet.
BIRDS = [
    f"images/{species}/{species[4:]}_{number:04}_29.jpg"
    for species in ("001.Albatross", "002.Auklet")
    for number in range(10)
]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder, and nothing else in the environment."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv(folders.DATA_DIR_VARIABLE, raising=False)
    # TFDS leaves an empty temporary folder behind for each builder.
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path / "cache" / "mas_jax"


def colour(number: int) -> list[int]:
    """One of 10,000 colours."""
    return [number // 100 * 2, number % 100 * 2, 250]


def png(number: int) -> bytes:
    """A picture whose middle square, 4 by 4, has this colour; black to the left and right of it."""
    picture = np.zeros((4, 6, 3), np.uint8)
    picture[:, 1:5] = colour(number)
    return encode(picture)


def save(
    data_dir: Path,
    name: str,
    rows: dict[str, str],
    changes: Mapping[str, bytes | None] | None = None,
) -> Path:
    """A stand-in's zip: rows is from file to "label,split"; the n-th file has the n-th colour."""
    lines = [HEADER, *(f"{file},{row},500,375" for file, row in rows.items())]
    content: dict[str, bytes | None] = {file: png(number) for number, file in enumerate(rows)}
    content |= {"labels.csv": "\r\n".join(lines).encode(), **(changes or {})}
    folder = data_dir / stand_ins.ARCHIVES[name].source.folder
    return write_zip(folder / "some.zip", {k: v for k, v in content.items() if v is not None})


def flowers() -> dict[str, str]:
    """Three pictures of each of three classes, one of them a test picture."""
    labels = ("c10", "c2", "c1")
    return {
        f"jpg/image_{3 * number + part}.jpg": f"{label},{'test' if part == 1 else 'train'}"
        for number, label in enumerate(labels)
        for part in range(3)
    }


def load(name: str, data_dir: Path, **options) -> PictureSplits:
    """A miniature, at 4 by 4 pixels."""
    return stand_ins.load(name, data_dir, **{"side": 4, "any_copy": True} | options)


def numbers(examples) -> list[int]:
    """Which pictures these are, by their colours."""
    assert (examples.inputs == examples.inputs[:, :1, :1]).all()
    hundreds, ones, _ = examples.inputs[:, 0, 0].astype(int).T // 2
    return (100 * hundreds + ones).tolist()


@pytest.mark.parametrize("name", ["flowers17", "scene15", "actions40"])
def test_own_splits_are_followed_and_labels_are_in_the_names_order(name, tmp_path):
    save(tmp_path, name, flowers())
    train, test, skipped = load(name, tmp_path)
    assert numbers(train) == [0, 2, 3, 5, 6, 8]
    assert numbers(test) == [1, 4, 7]
    # c10 is the last of c1, c2, c10.
    assert train.labels.tolist() == [2, 2, 1, 1, 0, 0]
    assert test.labels.tolist() == [2, 1, 0]
    assert stand_ins.class_names(name, tmp_path) == ("c1", "c2", "c10")
    assert train.inputs.shape == (6, 4, 4, 3)
    assert train.inputs.dtype == test.inputs.dtype == np.uint8
    assert train.labels.dtype == test.labels.dtype == np.int32
    assert skipped == ()


@pytest.mark.parametrize("name", ["cub10", "cars20"])
@pytest.mark.parametrize("split", ["", "train"])
def test_other_sets_are_split_by_the_crc_of_the_name(name, split, tmp_path):
    save(tmp_path, name, {file: f"{file.split('/')[1]},{split}" for file in BIRDS})
    train, test, _ = load(name, tmp_path)
    is_test = [zlib.crc32(Path(file).stem.encode()) % 3 == 0 for file in BIRDS]
    assert numbers(test) == [row for row, chosen in enumerate(is_test) if chosen]
    assert numbers(train) == [row for row, chosen in enumerate(is_test) if not chosen]
    assert test.labels.tolist() == [row // 10 for row in numbers(test)]


def test_order_is_the_file_names_whatever_the_archives(tmp_path):
    rows = flowers()
    save(tmp_path, "flowers17", rows)
    first = load("flowers17", tmp_path)
    files = {file: png(number) for number, file in enumerate(rows)}
    backwards = dict(reversed(rows.items()))
    save(tmp_path, "flowers17", backwards, files)
    for one, other in zip(first[:2], load("flowers17", tmp_path)[:2], strict=True):
        np.testing.assert_array_equal(one.inputs, other.inputs)
        np.testing.assert_array_equal(one.labels, other.labels)


def test_equal_files_are_training_data_if_one_of_them_is(tmp_path):
    rows = flowers() | {
        "jpg/twin_of_0.jpg": "c1,test",
        "jpg/twin_of_1.jpg": "c10,test",
        "jpg/twin_of_2.jpg": "c10,train",
    }
    twins = {f"jpg/twin_of_{number}.jpg": png(number) for number in range(3)}
    save(tmp_path, "scene15", rows, twins)
    train, test, _ = load("scene15", tmp_path)
    assert numbers(train) == [0, 2, 3, 5, 6, 8, 0, 2]
    assert numbers(test) == [1, 4, 7, 1]
    # Its own label, though the other says c10.
    assert train.labels.tolist() == [2, 2, 1, 1, 0, 0, 0, 2]


def letters(start: str) -> dict[str, bytes]:
    """Thirty pictures of each of 0, A to Z and a."""
    names = [(sample, number) for sample in [1, *range(11, 38)] for number in range(1, 31)]
    return {
        f"{start}/Sample{sample:03}/img{sample:03}-{number:05}.png": png(100 * sample + number)
        for sample, number in names
    }


@pytest.mark.parametrize("layout", ["copy", "publisher's"])
def test_letters_are_those_of_chars74k_with_its_split(layout, tmp_path):
    folder = tmp_path / "chars74k_goodimg"
    if layout == "copy":
        write_zip(folder / "some.zip", {**letters("GoodImg"), "labels.csv": b""})
    else:
        masks = dict.fromkeys(letters("English/Img/GoodImg/Msk"), encode(np.zeros((4, 4, 3), "u1")))
        write_tgz(folder / "some.tgz", masks | letters("English/Img/GoodImg/Bmp"))
    wanted, found = chars74k.load(tmp_path), load("letters", tmp_path)
    for one, other in zip(wanted[:2], found[:2], strict=True):
        np.testing.assert_array_equal(one.labels, other.labels)
        assert [number // 100 - 11 for number in numbers(other)] == one.labels.tolist()
    assert stand_ins.class_names("letters") == tuple("ABCDEFGHIJKLMNOPQRSTUVWXYZ")


def test_a_letter_that_is_missing_altogether_is_named_and_does_not_shift_the_others(tmp_path):
    content = {file: data for file, data in letters("GoodImg").items() if "Sample013" not in file}
    write_zip(tmp_path / "chars74k_goodimg" / "some.zip", content)
    with pytest.raises(DataDamagedError, match="has no training pictures of C;"):
        load("letters", tmp_path)


@pytest.mark.parametrize(("name", "module"), [("mnist", mnist), ("fashion_mnist", fashion_mnist)])
def test_idx_sets_come_as_colour_and_capped(name, module, tmp_path, monkeypatch):
    folder = tmp_path / "data" / name
    folder.mkdir(parents=True)
    for size, (images, labels) in zip((256, 40), idx_sets.FILES.values(), strict=True):
        greys = np.arange(size, dtype=np.uint8)
        filled = np.broadcast_to(greys[:, None, None], (size, 28, 28))
        (folder / images).write_bytes(idx(filled))
        (folder / labels).write_bytes(idx(greys % 10))
    builder = {"mnist": mnist.Mnist, "fashion_mnist": fashion_mnist.FashionMnist}[name]
    like = miniature(folder, like=builder)
    monkeypatch.setattr(module, "load", functools.partial(module.load, builder_class=like))
    train, test, _ = stand_ins.load(name, tmp_path / "data", side=5)
    assert train.inputs.shape == (256, 5, 5, 3)
    assert train.inputs.dtype == np.uint8
    # Every grey comes back as it was, from the normalised floats.
    assert sorted(train.inputs[:, 2, 2, 1].tolist()) == list(range(256))
    assert (train.inputs == train.inputs[:, :1, :1, :1]).all()
    np.testing.assert_array_equal(train.inputs[:, 0, 0, 0] % 10, train.labels)
    few, fewer, _ = stand_ins.load(name, tmp_path / "data", side=5, per_class=3, test_per_class=1)
    for capped, whole, count in ((few, train, 3), (fewer, test, 1)):
        seen, rows = Counter(), []
        for row, label in enumerate(whole.labels.tolist()):
            seen[label] += 1
            rows += [row] if seen[label] <= count else []
        np.testing.assert_array_equal(capped.inputs, whole.inputs[rows])
        np.testing.assert_array_equal(capped.labels, whole.labels[rows])
    assert len(stand_ins.class_names(name)) == 10


def test_caps_hold_for_each_part_apart(tmp_path):
    save(tmp_path, "flowers17", flowers())
    train, test, _ = load("flowers17", tmp_path, per_class=1)
    assert numbers(train) == [0, 3, 6]
    assert numbers(test) == [1, 4, 7]
    # More than there are is all of them.
    assert len(load("flowers17", tmp_path, test_per_class=9).test.labels) == 3


def test_pictures_are_decoded_once_for_each_size_and_archive(tmp_path, monkeypatch):
    save(tmp_path, "flowers17", flowers())
    first = load("flowers17", tmp_path)
    calls, decode = [], stand_ins._decode

    def count(*args, **options):
        calls.append(args)
        return decode(*args, **options)

    monkeypatch.setattr(stand_ins, "_decode", count)
    for one, other in zip(first[:2], load("flowers17", tmp_path)[:2], strict=True):
        np.testing.assert_array_equal(one.inputs, other.inputs)
        np.testing.assert_array_equal(one.labels, other.labels)
    assert not calls
    assert load("flowers17", tmp_path, side=3).train.inputs.shape == (6, 3, 3, 3)
    save(tmp_path, "flowers17", flowers() | {"jpg/more.jpg": "c1,train"})
    assert len(load("flowers17", tmp_path).train.labels) == 7
    assert len(calls) == 2


def flip(path: Path, content: bytes) -> None:
    """Change a byte of the archive in the middle of this member."""
    whole = bytearray(path.read_bytes())
    whole[whole.index(content) + len(content) // 2] ^= 1
    path.write_bytes(whole)


@pytest.mark.parametrize("how", ["other content", "empty", "cut", "flipped"])
def test_a_corrupt_picture_is_named_and_skipped_on_request_only(how, tmp_path):
    name = "jpg/image_3.jpg"
    contents = {"other content": b"no picture", "empty": b"", "cut": png(3)[:50]}
    path = save(tmp_path, "flowers17", flowers(), {name: contents.get(how, png(3))})
    if how == "flipped":
        flip(path, png(3))
    for _ in range(2):
        with pytest.raises(DataDamagedError, match=rf"{name} in .*some\.zip"):
            load("flowers17", tmp_path)
        # What was kept of this must not be taken for all.
        train, test, skipped = load("flowers17", tmp_path, skip_damaged=True, any_copy=False)
        assert numbers(train) == [0, 2, 5, 6, 8]
        assert train.labels.tolist() == [2, 2, 1, 0, 0]
        assert numbers(test) == [1, 4, 7]
        assert skipped == (name,)


def test_a_picture_whose_bytes_changed_is_told_in_one_sentence_with_what_to_do(tmp_path):
    path = save(tmp_path, "flowers17", flowers())
    flip(path, png(3))
    with pytest.raises(DataDamagedError) as caught:
        load("flowers17", tmp_path)
    text = str(caught.value)
    assert text.startswith(f"jpg/image_3.jpg in {path} cannot be read (")
    assert text.endswith("; fetch the archive again, or leave the picture out with --skip-damaged")
    assert "is damaged" not in text
    assert load("flowers17", tmp_path, skip_damaged=True).skipped == ("jpg/image_3.jpg",)


def test_damage_that_leaves_a_class_without_a_part_is_told(tmp_path):
    save(tmp_path, "flowers17", flowers(), {"jpg/image_4.jpg": b"?"})
    with pytest.raises(
        DataDamagedError, match=r"no test pictures of c2 \(1 could not be read\); each class must"
    ):
        load("flowers17", tmp_path, skip_damaged=True)


@pytest.mark.parametrize("skip_damaged", [False, True])
def test_a_damaged_archive_is_named_either_way(skip_damaged, tmp_path):
    path = write_zip(tmp_path / "chars74k_goodimg" / "some.zip", letters("GoodImg"))
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(DataDamagedError, match=r"some\.zip is damaged \(File is not a zip file"):
        load("letters", tmp_path, skip_damaged=skip_damaged)


def test_an_encrypted_picture_is_skipped_on_request(tmp_path):
    path = save(tmp_path, "flowers17", flowers())
    whole = bytearray(path.read_bytes())
    # The flag in the first entry of the directory at the archive's end.
    whole[whole.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(whole)
    assert load("flowers17", tmp_path, skip_damaged=True).skipped == ("jpg/image_0.jpg",)


@pytest.mark.parametrize(("gone", "left"), [("train", "test"), ("test", "train")])
def test_a_class_missing_in_one_part_is_named(gone, left, tmp_path):
    rows = flowers() | {"jpg/x.jpg": f"c3,{left}", "jpg/y.jpg": f"c4,{left}"}
    save(tmp_path, "flowers17", rows)
    part = {"train": "training", "test": "test"}[gone]
    with pytest.raises(DataDamagedError, match=rf"some\.zip has no {part} pictures of c3, c4; eac"):
        load("flowers17", tmp_path)


@pytest.mark.parametrize(
    ("rows", "changes", "text"),
    [
        ({}, {"labels.csv": None}, r"has no labels\.csv, which .* columns file, label, split"),
        ({}, {"labels.csv": b"\xff\xfe"}, r"labels\.csv in .*some\.zip cannot be read \('utf-8'"),
        ({}, {"labels.csv": b'file,label,split\n"a' + b'b"c,'}, "cannot be read"),
        ({}, {"labels.csv": b"file,what\na,b"}, "has no column label, split; wanted file, label"),
        ({}, {"labels.csv": b"file,label,split\n"}, "lists no pictures"),
        (
            {},
            {"jpg/image_2.jpg": None, "jpg/image_0.jpg": None},
            r"names jpg/image_0\.jpg and 1 mo",
        ),
        ({}, {"jpg/new.JPG": b""}, r"has jpg/new\.JPG, but no label for it in labels\.csv"),
        ({"jpg/image_2.jpg": ",train"}, {}, r"gives no label for jpg/image_2\.jpg"),
        ({"jpg/image_2.jpg": "c1"}, {}, r"gives jpg/image_2\.jpg the split '500'; wanted train or"),
        ({"jpg/image_2.jpg": "c1,"}, {}, r"gives jpg/image_2\.jpg the split ''; wanted train or"),
    ],
)
def test_a_table_that_does_not_fit_is_refused(rows, changes, text, tmp_path):
    save(tmp_path, "flowers17", flowers() | rows, changes)
    for skip_damaged in (False, True):
        with pytest.raises(DataDamagedError, match=text):
            load("flowers17", tmp_path, skip_damaged=skip_damaged)


def test_a_file_with_two_rows_is_refused(tmp_path):
    lines = [HEADER, "a.jpg,c1,train,,", "b.jpg,c1,test,,", "a.jpg,c2,train,,"]
    path = write_zip(tmp_path / "some.zip", {"labels.csv": "\n".join(lines).encode()})
    with pytest.raises(DataDamagedError, match=r"has more than one row for a\.jpg"):
        labelled_zips.table(path)


def test_commas_and_marks_in_the_table_are_read(tmp_path):
    lines = [HEADER, '"a,b.jpg","Ford GT, 2006",train,,', "ä.jpg,Citroën,test,,"]
    path = write_zip(tmp_path / "some.zip", {"labels.csv": "\n".join(lines).encode("utf-8-sig")})
    assert labelled_zips.table(path) == [
        ("a,b.jpg", "Ford GT, 2006", "train"),
        ("ä.jpg", "Citroën", "test"),
    ]


def test_another_archive_is_refused_unless_asked_for(tmp_path):
    path = save(tmp_path, "flowers17", flowers())
    with pytest.raises(DataDamagedError) as caught:
        load("flowers17", tmp_path, any_copy=False)
    text = str(caught.value)
    assert f"it has {path.stat().st_size} bytes and sha256" in text
    assert "wanted 5547497 and 72b4f7cfd7dda36de571c390b0c594297a6fd3c8610b95d6cd0b7dfde" in text
    assert "--any-copy (any_copy=True)" in text
    # What was kept of it must not be taken either.
    load("flowers17", tmp_path)
    with pytest.raises(DataDamagedError, match="is not the copy that is known here"):
        load("flowers17", tmp_path, any_copy=False)


@pytest.mark.parametrize("name", list(stand_ins.ARCHIVES))
def test_every_set_has_a_copy_that_is_known(name, tmp_path):
    folder = tmp_path / stand_ins.ARCHIVES[name].source.folder
    write_zip(folder / "some.zip", {"a.txt": b""})
    with pytest.raises(DataDamagedError, match=r"is not the copy that is known .* with --any-copy"):
        load(name, tmp_path, any_copy=False)


@pytest.mark.parametrize("name", list(stand_ins.ARCHIVES))
def test_an_absent_archive_says_what_to_fetch_and_where_to(name, tmp_path):
    source = stand_ins.ARCHIVES[name].source
    with pytest.raises(DataNotFoundError) as caught:
        stand_ins.load(name, tmp_path)
    assert f"{source.title} is not in {tmp_path / source.folder}" in str(caught.value)
    assert "http" in str(caught.value)


@pytest.mark.parametrize("function", [stand_ins.load, stand_ins.class_names])
def test_an_unknown_name_is_answered_with_the_nearest(function):
    with pytest.raises(
        ValueError, match=r"no stand-in data set is called 'scene'; did you mean 's"
    ):
        function("scene")


@pytest.mark.parametrize("argument", ["side", "per_class", "test_per_class"])
@pytest.mark.parametrize("value", [0, -3])
def test_numbers_below_one_are_refused(argument, value):
    with pytest.raises(ValueError, match=rf"^{argument} must be at least 1, got {value}"):
        stand_ins.load("mnist", **{argument: value})


def table(path: Path) -> list[dict[str, str]]:
    """The real table, read without our code."""
    with zipfile.ZipFile(path) as archive:
        return list(csv.DictReader(io.StringIO(archive.read("labels.csv").decode())))


# Folder, then training and test pictures. In the table flowers17's split is 1088 and 272, that of
# actions40 4000 and 5532, and that of scene15 1500 and 2985, of which 11 are moved; of cub10's 196
# and 98 one. The rest are counts of CRC-32s.
REAL = {
    "flowers17": ("oxford_flowers17", 1088, 272),
    "scene15": ("scene15", 1500 + 11, 2985 - 11),
    "cub10": ("cub200_2010_first10", 196 + 1, 98 - 1),
    "cars20": ("stanford_cars_20", 626, 321),
    "actions40": ("stanford40", 4000, 5532),
    "letters": ("chars74k_goodimg", 4157, 1045),
}


@real_data.needs(*(row[0] for row in REAL.values()))
@pytest.mark.parametrize("name", list(REAL))
def test_real_copies_have_their_counts_and_no_picture_in_both_parts(
    name, monkeypatch, tmp_path_factory
):
    monkeypatch.setenv("XDG_CACHE_HOME", real_data.cache(tmp_path_factory))
    folder, *counts = REAL[name]
    first = stand_ins.load(name, real_data.data_dir)
    assert [len(part.labels) for part in first[:2]] == counts
    assert first.train.inputs.shape[1:] == (72, 72, 3)
    assert first.skipped == ()
    (path,) = (Path(real_data.data_dir) / folder).glob("*.zip")
    labels = Counter(row["label"] for row in table(path))
    names = stand_ins.class_names(name, real_data.data_dir)
    if name != "letters":
        assert set(names) == set(labels)
    found = Counter(names[label] for part in first[:2] for label in part.labels)
    assert found == {class_name: labels[class_name] for class_name in names}
    seen = {picture.tobytes() for picture in first.train.inputs}
    assert not [row for row, picture in enumerate(first.test.inputs) if picture.tobytes() in seen]
    # From what was kept: decoding the largest takes 4 s, reading it 0.7 s.
    monkeypatch.setattr(stand_ins, "_decode", None)
    again = stand_ins.load(name, real_data.data_dir)
    for one, other in zip(first[:2], again[:2], strict=True):
        np.testing.assert_array_equal(one.inputs, other.inputs)
        np.testing.assert_array_equal(one.labels, other.labels)


@real_data.needs("chars74k_goodimg")
def test_real_letters_have_the_labels_of_chars74k(monkeypatch, tmp_path_factory):
    monkeypatch.setenv("XDG_CACHE_HOME", real_data.cache(tmp_path_factory))
    wanted = chars74k.load(real_data.data_dir)
    found = stand_ins.load("letters", real_data.data_dir)
    for one, other in zip(wanted[:2], found[:2], strict=True):
        np.testing.assert_array_equal(one.labels, other.labels)


@real_data.needs("fashion_mnist")
def test_real_fashion_mnist_has_the_published_pixels_at_its_own_size(monkeypatch, tmp_path_factory):
    monkeypatch.setenv("XDG_CACHE_HOME", real_data.cache(tmp_path_factory))
    found = stand_ins.load(
        "fashion_mnist", real_data.data_dir, side=28, per_class=30, test_per_class=20
    )
    folder = Path(real_data.data_dir) / "fashion_mnist"
    for part, count, files in zip(found[:2], (30, 20), idx_sets.FILES.values(), strict=True):
        images, labels = (idx_sets.read_idx(folder / file) for file in files)
        published = {
            image.tobytes(): label for image, label in zip(images, labels.tolist(), strict=True)
        }
        assert np.bincount(part.labels).tolist() == [count] * 10
        for picture, label in zip(part.inputs, part.labels, strict=True):
            assert all(published[picture[..., band].tobytes()] == label for band in range(3))
