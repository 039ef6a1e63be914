"""Stanford-40's actions as facts: all of them, all different, all with vectors."""

import csv
import io
import string
import zipfile
from pathlib import Path

import numpy as np
import pytest

from experiments.facts import embeddings, word_vectors
from experiments.facts.table import MUSIC, SPORTS, STANFORD40, facts_of
from experiments.facts.types import Fact
from tests import real_data


def test_every_action_is_another_fact_about_a_person():
    facts = list(STANFORD40.values())
    assert len(STANFORD40) == len(set(facts)) == 40
    assert {fact.subject for fact in facts} == {"person"}
    assert all(fact.predicate for fact in facts)


def test_every_word_is_one_word_in_lower_case():
    for word in embeddings.words(list(STANFORD40.values())):
        assert set(word) <= set(string.ascii_lowercase), word


def test_an_action_of_several_words_has_an_object_and_one_of_a_single_word_has_none():
    for name, fact in STANFORD40.items():
        assert bool(fact.object) == ("_" in name), name


def test_words_are_those_of_the_actions_names_but_for_seven():
    """A slip of a row would be seen here; "use" is a stem shorter than three letters."""
    stems = {name: {word[:3] for word in fact[1:] if word} for name, fact in STANFORD40.items()}
    words = {name: {word[:3].lower() for word in name.split("_")} for name in STANFORD40}
    strange = {name: stems[name] - words[name] for name in STANFORD40 if stems[name] - words[name]}
    assert strange == {
        "looking_through_a_microscope": {"len"},
        "looking_through_a_telescope": {"obs"},
        "playing_violin": {"str"},
        "shooting_an_arrow": {"bow"},
        "throwing_frisby": {"dis"},
        "using_a_computer": {"use"},
        "watching_TV": {"tel"},
    }


def test_sports_and_music_are_the_actions_one_expects():
    names = {fact: name for name, fact in STANFORD40.items()}
    assert {names[fact] for fact in SPORTS} == {
        "climbing",
        "riding_a_bike",
        "riding_a_horse",
        "rowing_a_boat",
        "running",
        "shooting_an_arrow",
        "throwing_frisby",
    }
    assert {names[fact] for fact in MUSIC} == {"playing_guitar", "playing_violin"}


def test_facts_come_in_the_order_of_the_names():
    names = ["watching_TV", "applauding"]
    assert facts_of(names) == (Fact("person", "watch", "television"), Fact("person", "applause"))


def test_an_unknown_action_is_named():
    with pytest.raises(ValueError, match="'rideing_a_horse' is not an action of Stanford-40"):
        facts_of(["riding_a_horse", "rideing_a_horse"])


@pytest.mark.parametrize(
    ("fact", "text"),
    [
        (Fact("person", "ride", "horse"), "<person, ride, horse>"),
        (Fact("person", "run"), "<person, run>"),
        (Fact("person"), "<person>"),
    ],
)
def test_a_fact_is_printed_without_the_parts_it_lacks(fact, text):
    assert str(fact) == text


@real_data.needs("stanford40")
def test_real_labels_are_the_names_in_the_table():
    (path,) = (Path(real_data.data_dir) / "stanford40").glob("*.zip")
    with zipfile.ZipFile(path) as archive:
        rows = csv.DictReader(io.StringIO(archive.read("labels.csv").decode()))
        labels = {row["label"] for row in rows}
    assert sorted(labels) == list(STANFORD40), "the table is in the order of labels"


@real_data.needs("word_vectors")
def test_real_vectors_know_every_word_and_tell_all_facts_apart():
    facts = list(STANFORD40.values())
    vectors = word_vectors.read(
        word_vectors.find(real_data.data_dir), words=embeddings.words(facts)
    )
    # Exactly, and not by way of lower case or of the words of a phrase.
    assert embeddings.words(facts) <= vectors.rows.keys()
    targets = embeddings.targets(facts, vectors)
    np.testing.assert_allclose(
        np.linalg.norm(targets.vectors, axis=2), targets.present, rtol=0, atol=1e-6
    )
    flat_Fx3D = targets.vectors.reshape(len(facts), -1)
    distances_FxF = np.linalg.norm(flat_Fx3D[:, None] - flat_Fx3D[None], axis=2)
    # The nearest are <person, jump> and <person, climb>; equal ones would be at 0.
    assert distances_FxF[~np.eye(len(facts), dtype=bool)].min() > 0.3
