"""What the network is to say of a fact: the vectors of its three words."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from experiments.facts.types import Fact
from experiments.facts.word_vectors import MissingWordError, WordVectors, check, lookup


class FactTargets(NamedTuple):
    """Facts as vectors, one row a fact.

    Attributes:
      vectors: (F, 3, D) float32: subject, predicate, object; zeros where a fact has none.
      present: (F, 3) bool: which parts a fact has.
    """

    vectors: np.ndarray
    present: np.ndarray


def words(facts: Sequence[Fact]) -> frozenset[str]:
    """The words of facts: what to ask `word_vectors.read` for.

    >>> sorted(words([Fact("person", "run"), Fact("person", "ride", "horse")]))
    ['horse', 'person', 'ride', 'run']
    """
    return frozenset(word for fact in facts for word in fact if word)


def targets(
    facts: Sequence[Fact], vectors: WordVectors, *, unit_length: bool = True
) -> FactTargets:
    """Look up the vectors of facts' words.

    A part that a fact lacks is no target: `present` is False there, and whoever computes a loss
    or a distance leaves it out (the wildcard of Elhoseiny et al.), as

        distance(image, fact) = Σ_part present · ‖embedding − vector‖²

    Source: Elhoseiny et al., Sherlock: Scalable fact learning in images, AAAI 2017. Theirs are
    word2vec's 300 values a part; vectors of length 1 are ours.

    Args:
      facts: at least one, pairwise different.
      vectors: from `word_vectors.read`; words are found by the rule of `word_vectors.lookup`.
      unit_length: give each vector length 1. GloVe's lengths, about 4 to 6, say how common a word
        is rather than what it means; with one length the three parts weigh the same, and λ and
        the learning rate mean the same with other vectors. False keeps them as published.

    Returns:
      The targets, in the order of `facts`.

    Raises:
      ValueError: no facts, the same fact twice, or one with an object and no predicate, or with
        no subject.
      MissingWordError: words have no vector, or a vector of length 0 where length 1 is wanted;
        names them, and a fact of each.

    >>> vectors = WordVectors({"dog": 0, "run": 1}, np.array([[3, 4], [0, 2]], np.float32))
    >>> dog = targets([Fact("dog", "run")], vectors)
    >>> dog.vectors[0]
    array([[0.6, 0.8],
           [0. , 1. ],
           [0. , 0. ]], dtype=float32)
    >>> dog.present[0]
    array([ True,  True, False])
    """
    _check(facts)
    check(vectors, _first_facts(facts))
    present_Fx3 = np.array([[bool(word) for word in fact] for fact in facts])
    vectors_Fx3xD = np.zeros((*present_Fx3.shape, vectors.matrix.shape[1]), np.float32)
    for row, part in np.argwhere(present_Fx3):
        vectors_Fx3xD[row, part] = _target(facts[row], facts[row][part], vectors, unit_length)
    return FactTargets(vectors_Fx3xD, present_Fx3)


def _first_facts(facts: Sequence[Fact]) -> dict[str, str]:
    """The first fact that each word is of."""
    first: dict[str, str] = {}
    for fact in facts:
        for word in filter(None, fact):
            first.setdefault(word, str(fact))
    return first


def _target(fact: Fact, word: str, vectors: WordVectors, unit_length: bool) -> np.ndarray:
    """The vector of one word of a fact, (D,)."""
    vector = lookup(vectors, word)
    length = np.linalg.norm(vector)
    if unit_length and not length:
        raise MissingWordError(
            f"fact {fact}: the vector of {word!r} has length 0, so it cannot be given length 1; "
            "choose another word for it"
        )
    return vector / length if unit_length else vector


def _check(facts: Sequence[Fact]) -> None:
    """Raise ValueError unless these are facts, each once."""
    if not facts:
        raise ValueError("there are no facts, wanted at least one")
    first: dict[Fact, int] = {}
    for row, fact in enumerate(facts):
        subject, predicate, object_ = fact
        if not subject or (object_ and not predicate):
            raise ValueError(
                f"fact {row}, {tuple(fact)}, has a gap; wanted a subject, a subject and a "
                "predicate, or all three"
            )
        if first.setdefault(fact, row) != row:
            raise ValueError(
                f"facts {first[fact]} and {row} are both {fact}; give their images one label"
            )
