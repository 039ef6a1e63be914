"""Mean average precision of fact-to-image retrieval, again: plain loops, nothing of ours."""

from collections.abc import Sequence
from typing import Any

import numpy as np


def retrieval_map(
    embeddings_Nx3xD: np.ndarray,
    labels: Sequence[int] | np.ndarray,
    targets: Any,
    queries: Sequence[int],
    scope: Sequence[int],
) -> float:
    """How well each fact of `queries` finds its images among those of all facts in `scope`.

    Images are ranked by rising Σ_part present[fact, part] · ‖embedding − vector‖²; those at one
    distance are each ranked after all of their ties. Relevant are the images of that very fact.
    `targets` has the facts' vectors (F, 3, D), and which parts are present (F, 3).
    """
    precisions = []
    images = [i for i in range(len(labels)) if labels[i] in scope]
    for fact in queries:
        distance = {i: _distance(embeddings_Nx3xD[i], targets, fact) for i in images}
        relevant = [i for i in images if labels[i] == fact]
        total = 0.0
        for i in relevant:
            before = [j for j in images if distance[j] <= distance[i]]
            total += sum(labels[j] == fact for j in before) / len(before)
        precisions.append(total / len(relevant))
    return sum(precisions) / len(precisions)


def _distance(embedding_3xD: np.ndarray, targets: Any, fact: int) -> float:
    """From an image to a fact, over the parts that the fact has."""
    distance = 0.0
    for part in range(3):
        if targets.present[fact][part]:
            pairs = zip(embedding_3xD[part], targets.vectors[fact][part], strict=True)
            distance += sum((float(value) - float(wanted)) ** 2 for value, wanted in pairs)
    return distance
