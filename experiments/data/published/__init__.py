"""The data sets of the paper's tables, as their publishers offer them."""

from experiments.data.published.catalogue import BUILDERS, NAMES, load
from experiments.data.published.sixds import Facts, facts_digest, load_facts

__all__ = ["BUILDERS", "NAMES", "Facts", "facts_digest", "load", "load_facts"]
