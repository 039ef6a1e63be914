"""Fact-to-image retrieval, as the network measures it, against rankings worked out by hand."""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
import pytest

from experiments.facts.embeddings import FactTargets
from experiments.facts.network import FactNetwork, Facts
from experiments.networks import MLP, Accuracy
from tests.oracle_retrieval import retrieval_map

PRESENT = [[True, True, True], [True, True, False], [True, False, False], [True, True, True]]


def made_up(seed: int = 0) -> tuple[np.ndarray, np.ndarray, FactTargets]:
    """(12, 3, 2) embeddings near four facts' targets, with noise, and what they are."""
    rng = np.random.default_rng(seed)
    present = np.array(PRESENT)
    vectors = rng.normal(size=(4, 3, 2)) * present[..., None]
    labels = np.array([0, 1, 2, 3] * 3)
    embeddings = vectors[labels] + rng.normal(size=(12, 3, 2))
    return embeddings.astype(np.float32), labels, FactTargets(vectors.astype(np.float32), present)


def retrieved(
    embeddings: np.ndarray,
    labels: Sequence[int] | np.ndarray,
    targets: FactTargets,
    task_of: Sequence[int] | None = None,
) -> Accuracy:
    """What a network that says this measures; `task_of` each fact, one task by default."""
    count = len(targets.present)
    tasks = np.array(task_of or [0] * count)
    heads = ((True,) * count,) * (tasks.max() + 1)
    network = FactNetwork(MLP(()), heads, "class", facts=Facts(targets))
    outputs = jnp.asarray(embeddings, jnp.float32).reshape(len(labels), -1)
    labels = jnp.asarray(labels)
    return network.accuracy(outputs, jnp.asarray(tasks)[labels], labels, jnp.ones(len(labels)))


@pytest.mark.parametrize("seed", range(5))
def test_it_is_what_plain_loops_compute(seed):
    embeddings, labels, targets = made_up(seed)
    found = retrieved(embeddings, labels, targets, [0, 1, 0, 1])
    # Single precision.
    for task, facts in enumerate([(0, 2), (1, 3)]):
        expected = retrieval_map(embeddings, labels, targets, facts, facts)
        assert found.per_task[task] == pytest.approx(expected, rel=1e-5)
        for fact in facts:
            expected = retrieval_map(embeddings, labels, targets, [fact], facts)
            assert found.per_class[fact] == pytest.approx(expected, rel=1e-5)
    expected = retrieval_map(embeddings, labels, targets, range(4), range(4))
    assert found.overall == pytest.approx(expected, rel=1e-5)


def line(points: list[float]) -> np.ndarray:
    """Embeddings on a line: (N, 3, 1), the subject at these points, the rest at 0."""
    embeddings = np.zeros((len(points), 3, 1), np.float32)
    embeddings[:, 0, 0] = points
    return embeddings


def on_a_line(points: list[float]) -> FactTargets:
    return FactTargets(line(points), np.ones((len(points), 3), bool))


def test_embeddings_at_their_targets_are_found_perfectly():
    targets = on_a_line([0, 3, 5])
    labels = np.array([0, 1, 2] * 2)
    found = retrieved(targets.vectors[labels], labels, targets)
    assert (found.per_task[0], found.overall) == (1.0, 1.0)


def test_a_ranking_worked_out_by_hand():
    # Fact 0 at 0 finds images at 1, 2, 3, 4, in this order; its own are the first and the third:
    # (1/1 + 2/3)/2 = 5/6. Fact 1 at 5 finds them the other way round, its own first and third.
    found = retrieved(line([1, 2, 3, 4]), [0, 1, 0, 1], on_a_line([0, 5]))
    np.testing.assert_allclose(found.per_class, [5 / 6, 5 / 6], rtol=1e-6)
    assert found.overall == pytest.approx(5 / 6)


def test_ties_rank_after_all_that_tie():
    # Around fact 0 at 0, images at ±1 tie: rank 2, of which 1 relevant: 1/2; then 2 relevant of
    # 3: (1/2 + 2/3)/2 = 7/12.
    found = retrieved(line([-1.0, 1.0, 2.0]), [0, 1, 0], on_a_line([0, 9]))
    assert found.per_class[0] == pytest.approx(7 / 12)


def test_a_constant_embedding_scores_the_share_of_relevant_images():
    found = retrieved(line([7.0] * 4), [0, 1, 1, 1], on_a_line([0, 1]))
    np.testing.assert_array_equal(found.per_class, [1 / 4, 3 / 4])
    assert found.overall == 1 / 2


def test_order_of_images_changes_nothing():
    embeddings, labels, targets = made_up()
    order = np.random.default_rng(1).permutation(len(labels))
    shuffled = retrieved(embeddings[order], labels[order], targets)
    for one, other in zip(shuffled, retrieved(embeddings, labels, targets), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)


def test_a_part_that_a_fact_lacks_changes_nothing_for_it():
    embeddings, labels, targets = made_up()
    other = embeddings.copy()
    other[:, 2] += np.random.default_rng(1).normal(size=(12, 2)) * 10
    one, two = (retrieved(given, labels, targets).per_class for given in (embeddings, other))
    assert (np.asarray(one) == np.asarray(two)).tolist() == [False, True, True, False]


def test_images_of_other_tasks_count_over_all_alone():
    embeddings, labels, targets = made_up()
    # Those of fact 1 nearer to fact 0 than its own.
    embeddings[labels == 1] = targets.vectors[0]
    embeddings[labels == 0] += 5
    embeddings[labels >= 2] += 50
    apart = retrieved(embeddings, labels, targets, [0, 1, 1, 1])
    together = retrieved(embeddings, labels, targets, [0, 0, 1, 1])
    # Images of 1 first, three of them: 1/4, 2/5, 3/6.
    assert apart.per_class[0] == 1.0
    assert together.per_class[0] == pytest.approx((1 / 4 + 2 / 5 + 3 / 6) / 3)
    assert apart.overall == together.overall
