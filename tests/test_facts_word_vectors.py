"""Word vectors from small files in the publishers' layouts, and what is wrong with others."""

import re
from pathlib import Path

import numpy as np
import pytest

from experiments.data import folders
from experiments.data.types import DataDamagedError, DataNotFoundError
from experiments.facts import word_vectors
from experiments.facts.word_vectors import MissingWordError, WordVectors, lookup, read
from tests import real_data

# Exact in float32 and in decimal.
VECTORS = {"the": [0.5, -1.25, 3.0], "dog": [2.0, 0.0, -0.125], "New_York": [4.0, 1.0, 1.0]}


def glove(entries: dict[str, list[float]]) -> bytes:
    """GloVe's text."""
    lines = [" ".join([word, *map(str, values)]) for word, values in entries.items()]
    return "".join(f"{line}\n" for line in lines).encode()


def word2vec_text(entries: dict[str, list[float]]) -> bytes:
    """word2vec's text: a header, and a space at the end of each line."""
    size = len(next(iter(entries.values())))
    return f"{len(entries)} {size}\n".encode() + glove(entries).replace(b"\n", b" \n")


def word2vec_binary(entries: dict[str, list[float]], end: bytes = b"\n") -> bytes:
    """word2vec's binary; its program ends vectors with a line feed, GoogleNews has none."""
    size = len(next(iter(entries.values())))
    content = f"{len(entries)} {size}\n".encode()
    for word, values in entries.items():
        content += word.encode() + b" " + np.array(values, "<f4").tobytes() + end
    return content


def save(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def as_dict(vectors: WordVectors) -> dict[str, list[float]]:
    return {word: vectors.matrix[row].tolist() for word, row in vectors.rows.items()}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("glove.6B.3d.txt", glove(VECTORS)),
        ("glove.6B.3d.txt", glove(VECTORS).rstrip(b"\n")),
        ("glove.6B.3d.txt", glove(VECTORS).replace(b"\n", b"\r\n")),
        ("vectors.vec", word2vec_text(VECTORS)),
        ("vectors.bin", word2vec_binary(VECTORS)),
        ("vectors.bin", word2vec_binary(VECTORS, end=b"")),
    ],
    ids=["glove", "glove_no_last_line_feed", "glove_crlf", "text", "binary", "google_news"],
)
def test_every_layout_gives_the_same_vectors_in_order(tmp_path, name, content):
    vectors = read(save(tmp_path / name, content))
    assert as_dict(vectors) == VECTORS
    assert list(vectors.rows) == list(VECTORS)
    assert vectors.matrix.dtype == np.float32


@pytest.mark.parametrize("end", [b"", b"\n"])
def test_values_that_look_like_spaces_and_line_feeds_are_values(tmp_path, end):
    # Bytes 20 20 20 20 and 0a 0a 0a 0a.
    values = [float(np.frombuffer(bytes([code] * 4), "<f4")[0]) for code in (0x20, 0x0A)]
    entries = {"a": values, "b": values[::-1]}
    path = save(tmp_path / "vectors.bin", word2vec_binary(entries, end))
    assert as_dict(read(path)) == entries


def test_words_may_hold_what_python_takes_for_white_space(tmp_path):
    entries = {"a\x85b": [1.0], "c\xa0d": [2.0], "e\u2028f": [3.0], "g\x1ch": [4.0]}
    assert as_dict(read(save(tmp_path / "glove.txt", glove(entries)))) == entries


def test_words_that_were_cut_off_within_a_letter_are_kept_apart(tmp_path):
    content = b"3 1\n"
    for number, word in enumerate([b"caf\xc3", b"caf\xe2", b"cafe"]):
        content += word + b" " + np.array([number], "<f4").tobytes()
    vectors = read(save(tmp_path / "vectors.bin", content))
    assert vectors.matrix[:, 0].tolist() == [0, 1, 2]
    assert vectors.rows["cafe"] == 2


def test_several_files_are_read_as_one(tmp_path):
    first = save(tmp_path / "glove.a.txt", glove({"the": [0.5, 1.0], "dog": [2.0, 3.0]}))
    second = save(tmp_path / "b.bin", word2vec_binary({"dog": [2.0, 3.0], "cat": [4.0, 5.0]}))
    merged = read([first, second])
    assert as_dict(merged) == {"the": [0.5, 1.0], "dog": [2.0, 3.0], "cat": [4.0, 5.0]}


@pytest.mark.parametrize(("name", "make"), [("a.txt", glove), ("a.bin", word2vec_binary)])
def test_only_what_lookup_may_need_is_kept(tmp_path, name, make):
    entries = {"the": [1.0], "dog": [2.0], "New_York": [3.0], "new": [4.0], "york": [5.0]}
    path = save(tmp_path / name, make(entries))
    assert read(path, words={"Dog"}).rows == {"dog": 0}
    # The phrase itself, and its words in case there is no such phrase.
    some = read(path, words={"New_York"})
    assert list(some.rows) == ["New_York", "new", "york"]
    for word in ("New_York", "York-New", "new"):
        np.testing.assert_array_equal(
            lookup(read(path, words=[word]), word), lookup(read(path), word)
        )
    assert read(path, words={"cat"}).matrix.shape == (0, 1)


def test_a_word_is_found_as_written_before_lower_case_before_its_parts():
    rows = {"US": 0, "us": 1, "play_guitar": 2, "play": 3, "guitar": 4}
    vectors = WordVectors(rows, np.diag([1, 2, 3, 4, 6]).astype(np.float32))

    def found(word: str) -> list[float]:
        return lookup(vectors, word).tolist()

    assert found("US") == [1, 0, 0, 0, 0]
    assert found("us") == found("Us") == [0, 2, 0, 0, 0]
    assert found("play_guitar") == found("Play_Guitar") == [0, 0, 3, 0, 0]
    # (4/2, 6/2): the mean of the two words.
    for phrase in ("play-guitar", "play guitar", "Guitar__Play"):
        assert found(phrase) == [0, 0, 0, 2, 3]
    # The mean over three words of which one comes twice: (2·4/3, 6/3).
    np.testing.assert_allclose(lookup(vectors, "play play guitar")[3:], [8 / 3, 2], rtol=1e-6)


@pytest.mark.parametrize(
    ("word", "text"),
    [
        ("cat", "no word vector for 'cat' among 1 words"),
        ("Cat", "no word vector for 'Cat' among 1 words"),
        ("dog_sled", r"no word vector for 'sled' \(of 'dog_sled'\) among 1 words"),
        ("_", "no word vector for '_' among 1 words"),
        ("", "no word vector for '' among 1 words"),
    ],
)
def test_a_word_without_a_vector_is_named_and_never_a_vector_of_zeros(word, text):
    vectors = WordVectors({"dog": 0}, np.ones((1, 2), np.float32))
    with pytest.raises(MissingWordError, match=text) as caught:
        lookup(vectors, word)
    assert "https://nlp.stanford.edu/data/glove.6B.zip" in str(caught.value)


def test_where_a_word_was_looked_for_is_said_with_all_words_that_are_there(tmp_path):
    first = save(tmp_path / "glove.a.txt", glove({"the": [1.0], "dog": [2.0], "cat": [3.0]}))
    second = save(tmp_path / "b.bin", word2vec_binary({"cow": [4.0], "dog": [2.0]}))
    # Only the vector of dog is kept.
    vectors = read([first, second], words=["dog", "horse"])
    wanted = re.escape(
        f"for 'horse' among the 3 of {first} and the 2 of {second}, as written or in lower"
    )
    with pytest.raises(MissingWordError, match=wanted):
        lookup(vectors, "horse")


@pytest.mark.parametrize(
    ("name", "content", "text"),
    [
        ("glove.txt", b"", r"glove\.txt is not a file of word vectors: its first line is b''"),
        ("a.bin", b"", r"a\.bin is not .* wanted \"count size\""),
        ("glove.txt", b"<html> <head>\n", "first line is b'<html> <head>.*a word and its values"),
        ("a.bin", glove(VECTORS), 'first line is b\'the 0.5 -1.25 3.0.*wanted "count size"'),
        ("glove.txt", b"a 1 2\nb 1\n", r"glove\.txt, line 2: 1 values after the word, wanted 2"),
        ("glove.txt", b"a 1 2\nb 1 2 3\n", "line 2: 3 values after the word, wanted 2"),
        ("glove.txt", b"a 1 2\n\nb 1 2\n", "line 2: 0 values after the word, wanted 2"),
        ("glove.txt", b"a 1 2\nb 1 x\n", "line 2: could not convert string to float: b'x'"),
        ("glove.txt", b"a 1 2\nb nan 1\n", "line 2: the vector of 'b' has nan in it"),
        ("glove.txt", b"a 1e60 2\n", "line 1: the vector of 'a' has inf in it"),
        ("a.vec", b"2 2\na 1 2\n", "has 1 words where its first line says 2"),
        ("a.vec", b"1 2\na 1 2\nb 1 2\n", "has 2 words where its first line says 1"),
        ("a.bin", word2vec_binary(VECTORS, b"")[:-1], r"a\.bin, word 3 of 3 is cut off"),
        ("a.bin", word2vec_binary(VECTORS)[:40], "word 3 of 3 is cut off"),
        ("a.bin", b"9" + word2vec_binary(VECTORS), "word 4 of 93 is cut off"),
        ("a.bin", word2vec_binary(VECTORS) + b"more", "goes on after the 3 words of 3 values"),
        ("a.bin", word2vec_binary({"a": [1, -np.inf]}), "word 1 of 1: .* 'a' has -inf in it"),
        ("glove.txt", b"a 1 2\na 1 3\n", "line 2: 'a' has another vector than before"),
    ],
)  # fmt: skip
def test_a_damaged_file_is_named_with_the_place(tmp_path, name, content, text):
    with pytest.raises(DataDamagedError, match=text):
        read(save(tmp_path / name, content))


def test_cut_lines_are_found_among_words_that_are_not_wanted(tmp_path):
    path = save(tmp_path / "glove.txt", b"a 1 2\nb 1\n")
    with pytest.raises(DataDamagedError, match="line 2"):
        read(path, words=["a"])


def test_files_that_do_not_go_together_are_refused(tmp_path):
    first = save(tmp_path / "glove.a.txt", b"dog 1 2\n")
    longer = save(tmp_path / "glove.b.txt", b"cat 1 2 3\n")
    other = save(tmp_path / "glove.c.txt", b"cat 1 2\ndog 1 3\n")
    with pytest.raises(DataDamagedError, match=r"2 values in .*a\.txt and 3 in .*b\.txt"):
        read([first, longer])
    with pytest.raises(DataDamagedError, match=r"2 values in .*a\.txt and 3 in .*b\.txt"):
        read([first, longer], words=["dog"])
    with pytest.raises(DataDamagedError, match=r"c\.txt, line 2: 'dog' has another vector"):
        read([first, other])
    with pytest.raises(ValueError, match="no files of word vectors"):
        read([])


def test_a_file_that_cannot_be_opened_is_named(tmp_path):
    with pytest.raises(DataDamagedError, match=r"glove\.txt cannot be read"):
        read(tmp_path / "glove.txt")


def test_files_are_found_by_their_names(tmp_path):
    folder = tmp_path / "word_vectors"
    folder.mkdir()
    names = ["GoogleNews-vectors-negative300.bin", "glove.6B.50d.txt", "wiki.vec"]
    for name in [*names, "SOURCE.txt", "glove.6B.zip"]:
        save(folder / name, b"")
    assert [path.name for path in word_vectors.find(tmp_path)] == names


def test_the_error_says_what_to_fetch(tmp_path, monkeypatch):
    monkeypatch.setenv(folders.DATA_DIR_VARIABLE, str(tmp_path))
    with pytest.raises(DataNotFoundError) as caught:
        word_vectors.find()
    assert "https://nlp.stanford.edu/data/glove.6B.zip" in str(caught.value)
    assert "GoogleNews-vectors-negative300.bin.gz" in str(caught.value)
    assert f"into the folder\n  {tmp_path / 'word_vectors'}\n" in str(caught.value)


@real_data.needs("word_vectors")
def test_real_vectors_agree_where_they_overlap():
    paths = word_vectors.find(real_data.data_dir)
    each = [read(path) for path in paths]
    both = read(paths)
    assert [one.matrix.shape for one in each] == [(9163, 50), (5403, 50)]
    assert both.matrix.shape == (len(set(each[0].rows) | set(each[1].rows)), 50)
    for one in each:
        rows = [both.rows[word] for word in one.rows]
        np.testing.assert_array_equal(both.matrix[rows], one.matrix)


@real_data.needs("word_vectors")
def test_real_words_are_nearest_to_words_of_their_kind():
    vectors = read(word_vectors.find(real_data.data_dir))
    unit_VxD = vectors.matrix / np.linalg.norm(vectors.matrix, axis=1, keepdims=True)
    words = np.array([*vectors.rows])

    def nearest(word: str) -> list[str]:
        order = np.argsort(-unit_VxD @ unit_VxD[vectors.rows[word]])
        return words[order[1:11]].tolist()

    assert "piano" in nearest("guitar")
    assert "dog" in nearest("cat")
    assert "riding" in nearest("ride")
