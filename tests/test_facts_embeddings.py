"""What the network is to say of a fact."""

import numpy as np
import pytest

from experiments.facts.embeddings import targets
from experiments.facts.types import Fact
from experiments.facts.word_vectors import MissingWordError, WordVectors

RNG = np.random.default_rng(0)
WORDS = ["person", "dog", "ride", "run", "horse"]
VECTORS = WordVectors(
    {word: row for row, word in enumerate(WORDS)},
    RNG.normal(size=(len(WORDS), 6)).astype(np.float32),
)
FACTS = [Fact("person", "ride", "horse"), Fact("dog", "run"), Fact("person")]


@pytest.mark.parametrize("unit_length", [False, True])
def test_targets_are_the_words_vectors_in_order(unit_length):
    found = targets(FACTS, VECTORS, unit_length=unit_length)
    assert found.vectors.shape == (3, 3, 6)
    assert found.vectors.dtype == np.float32
    for row, fact in enumerate(FACTS):
        for part, word in enumerate(fact):
            expected = np.zeros(6)
            if word:
                expected = VECTORS.matrix[WORDS.index(word)].astype(np.float64)
                if unit_length:
                    expected /= np.sqrt(sum(value * value for value in expected))
            np.testing.assert_allclose(found.vectors[row, part], expected, rtol=1e-6, atol=0)


def test_a_part_that_a_fact_lacks_is_absent():
    assert targets(FACTS, VECTORS).present.tolist() == [
        [True, True, True],
        [True, True, False],
        [True, False, False],
    ]


def test_published_vectors_are_not_changed():
    before = VECTORS.matrix.copy()
    targets(FACTS, VECTORS)
    np.testing.assert_array_equal(VECTORS.matrix, before)


def test_words_are_found_by_the_rule_for_missing_words():
    found = targets([Fact("Dog", "horse_ride")], VECTORS, unit_length=False)
    np.testing.assert_array_equal(found.vectors[0, 0], VECTORS.matrix[1])
    np.testing.assert_allclose(
        found.vectors[0, 1], (VECTORS.matrix[4] + VECTORS.matrix[2]) / 2, rtol=1e-6
    )


def test_all_words_without_a_vector_are_named_with_a_fact_of_each():
    facts = [*FACTS, Fact("person", "ride", "camel"), Fact("cat", "ride", "camel")]
    wanted = r"for 'camel' \(of <person, ride, camel>\), 'cat' \(of <cat, ride, camel>\) among"
    with pytest.raises(MissingWordError, match=wanted):
        targets(facts, VECTORS)


def test_of_many_words_without_a_vector_ten_are_named_and_the_rest_counted():
    facts = [Fact("person", "ride", f"camel{number}") for number in range(13)]
    wanted = r"'camel9' \(of <person, ride, camel9>\) and 3 more among 5 words"
    with pytest.raises(MissingWordError, match=wanted) as caught:
        targets(facts, VECTORS)
    assert "camel10" not in str(caught.value)


def test_a_vector_of_length_zero_cannot_be_given_length_one():
    vectors = WordVectors({"dog": 0}, np.zeros((1, 2), np.float32))
    with pytest.raises(MissingWordError, match="fact <dog>: the vector of 'dog' has length 0"):
        targets([Fact("dog")], vectors)
    assert targets([Fact("dog")], vectors, unit_length=False).present[0, 0]


@pytest.mark.parametrize(
    ("facts", "text"),
    [
        ([], "there are no facts"),
        ([Fact("a", "b"), Fact("a"), Fact("a", "b")], "facts 0 and 2 are both <a, b>"),
        ([Fact("dog"), Fact("dog", "", "horse")], r"fact 1, \('dog', '', 'horse'\), has a gap"),
        ([Fact("", "run")], r"fact 0, \('', 'run', ''\), has a gap"),
    ],
)  # fmt: skip
def test_what_is_no_list_of_facts_is_refused(facts, text):
    with pytest.raises(ValueError, match=text):
        targets(facts, VECTORS)
