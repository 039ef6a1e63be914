"""The histograms of Ω, summed over seeds."""

from typing import Any, NamedTuple

import numpy as np

from experiments.names import numbers_as_numbers
from experiments.report.sections import Float64Array, Method, Section


class Bars(NamedTuple):
    """A histogram over the logarithm of Ω."""

    log10_edges: Float64Array  # (E + 1,), or (0,) where all values are zero
    counts: Float64Array  # (E,)
    zeros: int  # values that are exactly zero, in no bin

    @property
    def total(self) -> int:
        """How many values were counted."""
        return int(self.counts.sum()) + self.zeros

    @property
    def zero_share(self) -> float:
        """The fraction that is exactly zero."""
        return self.zeros / max(self.total, 1)


def parameters(section: Section, method: Method | None = None) -> list[str]:
    """The parameters with an Ω, of one method or of any in the section: conv2 before conv10."""
    methods = section.finished if method is None else (method,)
    records = [record for method in methods for record in method.result.seeds]
    return sorted(
        {name for record in records for name in record.importance}, key=numbers_as_numbers
    )


def importance_bars(method: Method, parameter: str) -> Bars:
    """The histogram of one parameter's Ω, counts summed over the seeds that have it.

    Raises:
      ValueError: the seeds' bins do not lie on one grid.
    """
    seeds = [r.importance[parameter] for r in method.result.seeds if parameter in r.importance]
    # Rounded, as the same edge may come out of different seeds' ranges with different last bits.
    all_edges = np.array([edge for seed in seeds for edge in seed["log10_edges"]], np.float64)
    edges = np.unique(all_edges.round(6))
    counts = np.zeros(max(len(edges) - 1, 0))
    for seed in seeds:
        counts[_positions(edges, seed, parameter)] += seed["counts"]
    return Bars(edges, counts, sum(int(seed["zeros"]) for seed in seeds))


def _positions(edges: Float64Array, seed: dict[str, Any], parameter: str) -> slice:
    """Which of the bins between `edges` a seed's bins are."""
    positions = np.searchsorted(edges, np.round(seed["log10_edges"], 6))
    if np.any(np.diff(positions) != 1):
        raise ValueError(
            f"the histograms of {parameter!r} have different bins from seed to seed, so they "
            "cannot be summed; run the experiment again with one version of this program"
        )
    return slice(positions[0], positions[-1]) if len(positions) else slice(0, 0)
