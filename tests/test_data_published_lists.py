"""The paper's data sets' lists and tables, where they are not as they must be; 6DS's facts."""

import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io

from experiments.data import folders, published
from experiments.data.published import catalogue, contents, sixds
from experiments.data.types import DataDamagedError, DataNotFoundError
from tests import published_archives as mini
from tests.image_archives import write_tgz


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder, and nothing else in the environment."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv(folders.DATA_DIR_VARIABLE, raising=False)
    # TFDS leaves an empty temporary folder behind for each builder.
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path / "cache" / "mas_jax"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A data set's own folder, to be filled; its name is that of the data set, below."""
    return tmp_path / "data"


@pytest.fixture
def load(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Take what is in a data set's folder for what was published, and load it."""

    def load(name: str, **options: Any) -> Any:
        counts = dict(published.BUILDERS[name].counts)
        builder = mini.builder(name, folder / name)
        if counts and options.pop("real_counts", False):
            builder.counts, builder.classes = counts, 67
        monkeypatch.setitem(catalogue.BUILDERS, name, builder)
        return published.load(name, folder, side=8, **options)

    return load


def written(folder: Path, name: str) -> Path:
    """The miniature's files; gives their folder."""
    (folder / name).mkdir(parents=True)
    mini.MINIATURES[name].write(folder / name)
    return folder / name


def test_indoors_lists_are_counted_because_no_digest_is_on_record(folder, load):
    written(folder, "indoor67")
    with pytest.raises(DataDamagedError, match="has 2 train pictures, wanted 5360; fetch indoorC"):
        load("indoor67", real_counts=True)


def test_indoors_classes_are_counted(folder, load):
    source = written(folder, "indoor67")
    (source / "TrainImages.txt").write_text("bar/b_1.jpg\ncloset/a_1.jpg\n")
    (source / "TestImages.txt").write_text("bar/b_2.jpg\nairport_inside/a_2.JPG\n")
    with pytest.raises(DataDamagedError, match="has 3 classes, wanted 2; fetch"):
        load("indoor67")


def test_a_picture_that_indoors_list_names_but_the_archive_lacks_is_named(folder, load):
    source = written(folder, "indoor67")
    (source / "TrainImages.txt").write_text("bar/b_7.jpg\nairport_inside/a_1.jpg\n")
    with pytest.raises(DataDamagedError, match=r"bar/b_7\.jpg is listed, but not in"):
        load("indoor67")


def test_a_list_that_is_no_text_is_named(folder, load):
    (written(folder, "indoor67") / "TestImages.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataDamagedError, match=r"TestImages\.txt is not a text"):
        load("indoor67")


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        ({"images_variant_test.txt": None}, r"has no images_variant_test\.txt; fetch"),
        ({"variants.txt": b"F-16A/B\n"}, "has the variant '737-300 of Boeing', which is not in"),
        ({"images_variant_test.txt": b"0000003\n"}, "has a line '0000003'; wanted 2 columns"),
    ],
)
def test_aircrafts_lists_are_checked(change, wanted, folder, load):
    source = written(folder, "aircraft")
    files = {**mini.aircraft_files(), **change}
    present = {name: content for name, content in files.items() if content is not None}
    mini.write_aircraft(source, present)
    with pytest.raises(DataDamagedError, match=wanted):
        load("aircraft")


def test_cubs_lists_must_be_of_the_same_pictures(folder, load):
    source = written(folder, "cub200")
    files = {**mini.cub_files(), "CUB_200_2011/train_test_split.txt": b"1 0\n2 1\n3 1\n"}
    write_tgz(source / "CUB_200_2011.tgz", files)
    with pytest.raises(DataDamagedError, match="have 4, 4 and 3 pictures; wanted the same"):
        load("cub200")


def test_an_archive_of_something_else_is_named(folder, load):
    source = written(folder, "cars196")
    write_tgz(source / "car_devkit.tgz", {"devkit/README.txt": b""})
    with pytest.raises(DataDamagedError, match=r"car_devkit\.tgz has no devkit/cars_train_annos"):
        load("cars196")


def test_an_archive_that_is_cut_off_is_named(folder, load):
    path = written(folder, "letters") / "EnglishImg.tgz"
    path.write_bytes(path.read_bytes()[:-400])
    with pytest.raises(DataDamagedError, match=r"EnglishImg\.tgz.*fetch"):
        load("letters")


def test_svhns_images_and_labels_must_fit(folder, load):
    path = written(folder, "svhn") / "train_32x32.mat"
    images = np.zeros((32, 32, 3, 2), np.uint8)
    scipy.io.savemat(path, {"X": images, "y": np.array([[1], [2], [3]])})
    with pytest.raises(DataDamagedError, match=r"\(32, 32, 3, 2\) uint8 and 3 labels; wanted"):
        load("svhn")


@pytest.mark.parametrize("content", [b"", b"MATLAB 5.0 MAT-file" + bytes(300)])
def test_a_damaged_matlab_file_is_named(content, tmp_path):
    (tmp_path / "a.mat").write_bytes(content)
    with pytest.raises(DataDamagedError, match=r"a\.mat (cannot be read|has no variable 'X')"):
        contents.mat(tmp_path / "a.mat", "X")


@pytest.mark.parametrize(
    ("note", "complaint"),
    [
        (mini.note((1, 1, 9, 9)), "index out of range"),
        (mini.note((1, 1, 9, 9)).replace(b">person<", b">horse<"), "it is not a person"),
        (b"<annotation><object>", "no element found|unclosed|mismatched"),
    ],
)
def test_an_annotation_without_the_persons_box_is_named(note, complaint, folder, load):
    source = written(folder, "actions")
    mini.write_voc(
        source, {**mini.voc_files(), "VOCdevkit/VOC2012/Annotations/2010_000001.xml": note}
    )
    with pytest.raises(DataDamagedError, match=rf"Annotations/2010_000001\.xml in .*({complaint})"):
        load("actions")


def test_a_person_in_a_damaged_picture_is_skipped_on_request(folder, load):
    source = written(folder, "actions")
    files = mini.voc_files()
    name = "VOCdevkit/VOC2012/JPEGImages/2010_000005.jpg"
    mini.write_voc(source, {**files, name: files[name][:-300]})
    with pytest.raises(DataDamagedError, match=r"2010_000005_\d of VOC 2012 Actions is not a pict"):
        load("actions")
    splits = load("actions", skip_damaged=True)
    assert sorted(splits.skipped) == ["2010_000005_2", "2010_000005_3"]
    assert splits.test.labels.tolist() == [9]


# 6DS

HEADER = "file,subject,predicate,object,split\n"
LINES = (
    "a/1.jpg,person,ride,horse,train\n"
    "2.jpg,dog,,,train\n"
    "3.jpg,person,ride,horse,test\n"
    "4.jpg,dog,,,test\n"
    '5.jpg,"boy, small",run,,train\n'
)


def write_sixds(folder: Path, table: str = HEADER + LINES) -> Path:
    """A table and five pictures; gives their folder."""
    source = folder / "sixds"
    (source / "images" / "a").mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(("a/1.jpg", "2.jpg", "3.jpg", "4.jpg", "5.jpg"), start=1):
        (source / "images" / name).write_bytes(mini.picture(number))
    (source / "facts.csv").write_text(table)
    return source


def test_facts_are_numbered_in_order_and_go_with_their_pictures(folder):
    write_sixds(folder)
    found = published.load_facts(folder, side=8)
    facts = (("boy, small", "run", ""), ("dog", "", ""), ("person", "ride", "horse"))
    assert found.facts == facts
    parts = ((found.pictures.train, {1: 2, 2: 1, 5: 0}), (found.pictures.test, {3: 2, 4: 1}))
    for part, wanted in parts:
        assert part.inputs.shape == (len(wanted), 8, 8, 3)
        middles = part.inputs[:, 4, 4].astype(int)
        numbers = [abs(middle - np.array(mini.COLOURS)).sum(1).argmin() for middle in middles]
        assert dict(zip(numbers, part.labels.tolist(), strict=True)) == wanted
    again = published.load("sixds", folder, side=8)
    np.testing.assert_array_equal(again.train.inputs, found.pictures.train.inputs)


def test_another_table_gives_other_facts(folder):
    write_sixds(folder)
    assert published.load_facts(folder, side=8).pictures.skipped == ()
    write_sixds(folder, HEADER + LINES.replace("horse", "pony").replace("2.jpg,dog,,,train\n", ""))
    with pytest.raises(DataDamagedError) as caught:
        published.load_facts(folder, side=8)
    text = str(caught.value)
    assert text.startswith(f"6DS in {folder / 'sixds'} has test pictures, but no training pictures")
    assert "one is <dog>, which 4.jpg is of. Give it a training picture in " in text
    assert f"{folder / 'sixds' / 'facts.csv'}, or take its test pictures out" in text
    write_sixds(folder, HEADER + LINES.replace("horse", "pony"))
    assert published.load_facts(folder, side=8).facts[2] == ("person", "ride", "pony")


def middles(pictures: Any) -> dict[str, list[list[int]]]:
    """The colours in the middle, sorted, of both parts."""
    parts = {"train": pictures.train, "test": pictures.test}
    return {name: sorted(part.inputs[:, 4, 4].tolist()) for name, part in parts.items()}


def test_another_folder_with_the_same_table_gives_its_own_pictures(folder, tmp_path):
    write_sixds(folder)
    first = published.load_facts(folder, side=8).pictures
    source = write_sixds(tmp_path / "other")
    assert published.facts_digest(tmp_path / "other") == published.facts_digest(folder)
    (source / "images" / "4.jpg").write_bytes(mini.picture(6))
    assert published.facts_digest(tmp_path / "other") != published.facts_digest(folder)
    second = published.load_facts(tmp_path / "other", side=8).pictures
    assert middles(second)["train"] == middles(first)["train"]
    assert middles(second)["test"] != middles(first)["test"]


def test_a_picture_that_was_repaired_is_read_again_though_its_size_and_time_are_the_same(folder):
    path = write_sixds(folder) / "images" / "4.jpg"
    whole = path.read_bytes()
    path.write_bytes(bytes(len(whole)))
    before = path.stat()
    assert published.load_facts(folder, side=8, skip_damaged=True).pictures.skipped == ("4.jpg",)
    path.write_bytes(whole)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    # As in another process.
    sixds._digest.cache_clear()
    assert published.load_facts(folder, side=8, skip_damaged=True).pictures.skipped == ()


def test_a_picture_that_went_away_is_named_with_its_own_folder(folder, tmp_path):
    write_sixds(folder)
    published.load_facts(folder, side=8)
    source = write_sixds(tmp_path / "other")
    for name in ("5.jpg", "4.jpg"):
        (source / "images" / name).unlink()
    with pytest.raises(DataDamagedError) as caught:
        published.load_facts(tmp_path / "other", side=8)
    where = f"listed in {source / 'facts.csv'}, but not in {source / 'images'} (2 such)"
    assert f"6DS: 4.jpg is {where}" in str(caught.value)
    assert str(folder) not in str(caught.value)


@pytest.mark.parametrize("missing", ["facts.csv", "images"])
def test_what_6ds_needs_is_said_file_by_file(missing, folder):
    path = write_sixds(folder) / missing
    path.rename(path.with_name("elsewhere"))
    with pytest.raises(DataNotFoundError) as caught:
        published.load("sixds", folder)
    for piece in ("facts.csv: a table with the columns file, subject,", "images/: the files that"):
        assert piece in str(caught.value)


@pytest.mark.parametrize(
    ("table", "complaint"),
    [
        ("file,subject,object,split\n", "has no column predicate; wanted file, subject"),
        (HEADER + ",dog,,,train\n", "line 2: file or subject is empty"),
        (HEADER + LINES + "7.jpg,,ride,horse,train\n", "line 7: file or subject is empty"),
        (HEADER + LINES + "2.jpg,cat,,,test\n", r"line 7: 2\.jpg is there twice"),
        (HEADER + "2.jpg,dog,,cat,train\n", r"2\.jpg has the object 'cat', but no predicate"),
        (HEADER + "2.jpg,dog,,,val\n", r"2\.jpg has the split 'val'; wanted train or test"),
        (HEADER + "2.jpg,dog\n", r"2\.jpg has the split ''"),
        (HEADER, "lists no train pictures"),
        (HEADER + LINES + "6.jpg,dog,,,train\n", r"6DS: 6\.jpg is listed in .*, but not"),
    ],
)
def test_a_table_that_is_not_as_it_must_be_is_refused(table, complaint, folder):
    write_sixds(folder, table)
    with pytest.raises(DataDamagedError, match=complaint):
        published.load_facts(folder, side=8)


def test_a_damaged_picture_of_a_fact_is_named_and_skipped_on_request(folder):
    (write_sixds(folder) / "images" / "5.jpg").write_bytes(b"no picture")
    with pytest.raises(DataDamagedError, match=r"5\.jpg of 6DS is not a picture"):
        published.load_facts(folder, side=8)
    pictures = published.load_facts(folder, side=8, skip_damaged=True).pictures
    assert pictures.skipped == ("5.jpg",)
    assert sorted(pictures.train.labels.tolist()) == [1, 2]
