"""Fact-to-image retrieval against plain loops, and against rankings worked out by hand."""

import jax.numpy as jnp
import numpy as np
import pytest

from experiments.facts.embeddings import FactTargets
from experiments.facts.retrieval import retrieval_map

PRESENT = [[True, True, True], [True, True, False], [True, False, False], [True, True, True]]


def made_up(seed: int = 0) -> tuple[np.ndarray, np.ndarray, FactTargets]:
    """(12, 3, 2) embeddings near four facts' targets, with noise, and what they are."""
    rng = np.random.default_rng(seed)
    present = np.array(PRESENT)
    vectors = rng.normal(size=(4, 3, 2)) * present[..., None]
    labels = np.array([0, 1, 2, 3] * 3)
    embeddings = vectors[labels] + rng.normal(size=(12, 3, 2))
    return embeddings.astype(np.float32), labels, FactTargets(vectors.astype(np.float32), present)


def oracle(embeddings, labels, targets, queries, scope) -> float:
    """Mean average precision in plain loops; ties count against the relevant image."""
    precisions = []
    images = [i for i in range(len(labels)) if labels[i] in scope]
    for fact in queries:
        distance = {}
        for i in images:
            distance[i] = 0.0
            for part in range(3):
                if targets.present[fact][part]:
                    for value, wanted in zip(
                        embeddings[i][part], targets.vectors[fact][part], strict=True
                    ):
                        distance[i] += (float(value) - float(wanted)) ** 2
        relevant = [i for i in images if labels[i] == fact]
        total = 0.0
        for i in relevant:
            before = [j for j in images if distance[j] <= distance[i]]
            total += sum(labels[j] == fact for j in before) / len(before)
        precisions.append(total / len(relevant))
    return sum(precisions) / len(precisions)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
    ("queries", "scope"),
    [(None, None), ([0, 2], None), ([3], [1, 3]), ([2, 0], [0, 1, 2, 3]), ([1], None)],
)
def test_it_is_what_plain_loops_compute(seed, queries, scope):
    embeddings, labels, targets = made_up(seed)
    asked = range(4) if queries is None else queries
    expected = oracle(embeddings, labels, targets, asked, asked if scope is None else scope)
    found = retrieval_map(embeddings, labels, targets, queries, scope=scope)
    assert found == pytest.approx(expected, rel=1e-12)


def test_embeddings_at_their_targets_are_found_perfectly():
    _, labels, targets = made_up()
    assert retrieval_map(targets.vectors[labels], labels, targets, [0, 3]) == 1.0


def line(points: list[float]) -> np.ndarray:
    """Embeddings on a line: (N, 3, 1), the subject at these points, the rest at 0."""
    embeddings = np.zeros((len(points), 3, 1))
    embeddings[:, 0, 0] = points
    return embeddings


def on_a_line(points: list[float]) -> FactTargets:
    return FactTargets(line(points), np.ones((len(points), 3), bool))


def test_a_ranking_worked_out_by_hand():
    # Fact 0 at 0 finds images at 1, 2, 3, 4, in this order; its own are the first and the third:
    # (1/1 + 2/3)/2 = 5/6. Fact 1 at 5 finds them the other way round, its own first and third.
    found = retrieval_map(line([1, 2, 3, 4]), [0, 1, 0, 1], on_a_line([0, 5]))
    assert found == pytest.approx(5 / 6)


def test_ties_rank_after_all_that_tie():
    # Around fact 0 at 0, images at ±1 tie: rank 2, of which 1 relevant: 1/2; then 2 relevant of
    # 3: (1/2 + 2/3)/2 = 7/12.
    points, labels = [-1.0, 1.0, 2.0], [0, 1, 0]
    targets = on_a_line([0, 9])
    assert retrieval_map(line(points), labels, targets, [0], scope=[0, 1]) == pytest.approx(7 / 12)


def test_a_constant_embedding_scores_the_share_of_relevant_images():
    # 1 of 4 and 3 of 4: mean 1/2.
    assert retrieval_map(line([7.0] * 4), [0, 1, 1, 1], on_a_line([0, 1])) == 0.5


def test_order_of_images_changes_nothing():
    embeddings, labels, targets = made_up()
    order = np.random.default_rng(1).permutation(len(labels))
    assert retrieval_map(embeddings[order], labels[order], targets) == retrieval_map(
        embeddings, labels, targets
    )


def test_a_part_that_a_fact_lacks_changes_nothing_for_it():
    embeddings, labels, targets = made_up()
    other = embeddings.copy()
    other[:, 2] += np.random.default_rng(1).normal(size=(12, 2)) * 10
    everything = list(range(4))
    for fact, same in [(1, True), (2, True), (0, False)]:
        one, two = (
            retrieval_map(given, labels, targets, [fact], scope=everything)
            for given in (embeddings, other)
        )
        assert (one == two) is same


def test_images_out_of_scope_do_not_count():
    embeddings, labels, targets = made_up()
    inside = np.isin(labels, [0, 2])
    alone = retrieval_map(embeddings[inside], labels[inside], targets, [0, 2])
    assert retrieval_map(embeddings, labels, targets, [0, 2]) == alone
    # Those nearer than every relevant image push it down where they are in scope.
    embeddings[labels == 1] = targets.vectors[0]
    embeddings[labels == 0] += 5
    narrow, wide = (
        retrieval_map(embeddings, labels, targets, [0], scope=scope) for scope in ([0], [0, 1])
    )
    # Images of 1 first, three of them: 1/4, 2/5, 3/6.
    assert (narrow, wide) == (1.0, pytest.approx((1 / 4 + 2 / 5 + 3 / 6) / 3))


def test_each_query_counts_once():
    embeddings, labels, targets = made_up()
    assert retrieval_map(embeddings, labels, targets, [0, 0, 1]) == retrieval_map(
        embeddings, labels, targets, [1, 0]
    )


def test_device_arrays_are_taken():
    embeddings, labels, targets = made_up()
    found = retrieval_map(jnp.asarray(embeddings), jnp.asarray(labels), targets)
    assert found == retrieval_map(embeddings, labels, targets)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"embeddings": np.zeros((12, 3, 5))}, r"must have shape \(12, 3, 2\), .* \(12, 3, 5\)"),
        ({"embeddings": np.zeros((12, 6))}, r"must have shape \(12, 3, 2\), .* \(12, 6\)"),
        ({"labels": np.zeros(11, int)}, r"must have shape \(11, 3, 2\), .* got \(12, 3, 2\)"),
        ({"labels": np.array([4] * 12)}, "labels has fact 4, wanted 0 to 3"),
        ({"labels": np.array([1] * 12)}, "fact 0 has no image among the 12 to be ranked"),
        ({"queries": [-1]}, "queries has fact -1, wanted 0 to 3"),
        ({"queries": []}, "queries names no fact, wanted at least one of 4"),
        ({"queries": [1], "scope": [0]}, "fact 1 has no image among the 3 to be ranked"),
        ({"scope": [9]}, "scope has fact 9"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named(change, text):
    embeddings, labels, targets = made_up()
    arguments = {"embeddings": embeddings, "labels": labels, "targets": targets, **change}
    with pytest.raises(ValueError, match=text):
        retrieval_map(**arguments)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_diverged_network_is_an_error(value):
    embeddings, labels, targets = made_up()
    embeddings[5, 2, 0] = value
    with pytest.raises(ValueError, match=r"image 5 are not finite \(1 of 12 images"):
        retrieval_map(embeddings, labels, targets)
