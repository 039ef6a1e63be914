"""How well images are found by their facts: mean average precision of fact-to-image retrieval."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from experiments.facts.embeddings import FactTargets
from mas_jax import metrics


def retrieval_map(
    embeddings: npt.ArrayLike,
    labels: npt.ArrayLike,
    targets: FactTargets,
    queries: Sequence[int] | None = None,
    *,
    scope: Sequence[int] | None = None,
) -> float:
    """Compute the mean average precision of facts asked for among images.

    Each fact of `queries` ranks the images of all facts in `scope` by rising

        distance(image, fact) = Σ_part present[fact, part] · ‖embedding − vector‖²

    so that a fact without an object asks for none, whatever the images show. Relevant are the
    images labelled with that very fact; those of others that hold too (a person who rides a bike
    also rides) are not. Images at one distance are each ranked after all of their ties, so an
    embedding that is the same for all images scores each fact's share of the images.

    For a task, `queries` are its facts: they are asked for among its images. For all tasks,
    leave `queries` out. For a subset of a task, say the task's facts as `scope`.

    Source: Elhoseiny et al., Sherlock: Scalable fact learning in images, AAAI 2017; Aljundi et
    al., ECCV 2018, section 5.2.

    Args:
      embeddings: (N, 3, D), what the three heads say of each image.
      labels: (N,) int, rows of `targets`.
      targets: F facts.
      queries: which facts are asked for; all F by default.
      scope: the facts whose images are ranked; `queries` by default.

    Returns:
      A fraction, the mean over `queries`.

    Raises:
      ValueError: shapes do not fit, a label, a query or a fact of `scope` is none of F, a query
        (named) has no image in scope, or an embedding (its row is named) is not finite.

    >>> facts = FactTargets(np.eye(2)[:, None].repeat(3, 1), np.ones((2, 3), bool))
    >>> retrieval_map(np.array([[[1, 0]] * 3, [[0, 2]] * 3]), [0, 1], facts)
    1.0
    """
    embeddings_Nx3xD, labels_N = _checked(embeddings, labels, targets)
    everything = range(len(targets.present))
    asked = _checked_facts("queries", everything if queries is None else queries, targets)
    ranked = asked if scope is None else _checked_facts("scope", scope, targets)
    inside = np.isin(labels_N, ranked)
    missing = np.setdiff1d(asked, labels_N[inside])
    if missing.size:
        raise ValueError(f"fact {missing[0]} has no image among the {inside.sum()} to be ranked")
    scores_QxN = np.stack([-_distances(embeddings_Nx3xD[inside], targets, fact) for fact in asked])
    relevant_QxN = np.array(asked)[:, None] == labels_N[None, inside]
    return metrics.mean_average_precision(scores_QxN, relevant_QxN)


def _distances(embeddings_Nx3xD: np.ndarray, targets: FactTargets, fact: int) -> np.ndarray:
    """Squared distances (N,) of images to a fact, over the parts that it has."""
    present = targets.present[fact]
    # Differences, not a product of matrices: equal embeddings must stay equal, they are ties.
    difference = embeddings_Nx3xD[:, present] - targets.vectors[None, fact, present]
    return np.square(difference).sum(axis=(1, 2))


def _checked(
    embeddings: npt.ArrayLike, labels: npt.ArrayLike, targets: FactTargets
) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings in float64 and labels, which fit each other and the targets."""
    embeddings_Nx3xD, labels_N = np.asarray(embeddings, np.float64), np.asarray(labels)
    wanted = (labels_N.size, *targets.vectors.shape[1:])
    if embeddings_Nx3xD.shape != wanted or labels_N.ndim != 1:
        raise ValueError(
            f"embeddings must have shape {wanted}, as labels and targets have, got "
            f"{embeddings_Nx3xD.shape}"
        )
    broken = np.flatnonzero(~np.isfinite(embeddings_Nx3xD).all(axis=(1, 2)))
    if broken.size:
        raise ValueError(
            f"embeddings of image {broken[0]} are not finite ({broken.size} of {wanted[0]} images "
            "are so); the network diverged"
        )
    _checked_facts("labels", np.unique(labels_N).tolist(), targets)
    return embeddings_Nx3xD, labels_N


def _checked_facts(name: str, facts: Sequence[int], targets: FactTargets) -> list[int]:
    """Facts by number, each once and in range; not none."""
    count = len(targets.present)
    if not len(facts):
        raise ValueError(f"{name} names no fact, wanted at least one of {count}")
    for fact in facts:
        if fact not in range(count):
            raise ValueError(f"{name} has fact {fact}, wanted 0 to {count - 1}")
    return sorted({int(fact) for fact in facts})
