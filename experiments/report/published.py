"""Published numbers beside the methods that they are about."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

Numbers = Mapping[str, float]


class Published(NamedTuple):
    """One published row."""

    source: str  # who published it: "GT-RIPL" of "GT-RIPL: mas"
    numbers: Numbers


def of_method(published: Mapping[str, Numbers], method: str) -> list[Published]:
    """The published rows of `method`: those named "SOURCE: METHOD", in any case of letters.

    >>> of_method({"GT-RIPL: MAS": {"average_accuracy": 0.9922}, "a demo": {}}, "mas")
    [Published(source='GT-RIPL', numbers={'average_accuracy': 0.9922})]
    """
    return [
        Published(source, numbers)
        for name, numbers in published.items()
        for source, of in [_parts(name)]
        if of == method.casefold()
    ]


def of_none(published: Mapping[str, Numbers], methods: Iterable[str]) -> dict[str, Numbers]:
    """The published rows of none of `methods`."""
    known = {method.casefold() for method in methods}
    return {name: row for name, row in published.items() if _parts(name)[1] not in known}


def sources(published: Mapping[str, Numbers], methods: Iterable[str]) -> list[str]:
    """Who published rows of one of `methods`, each once."""
    known = {method.casefold() for method in methods}
    parts = map(_parts, published)
    return list(dict.fromkeys(source for source, method in parts if method in known))


def _parts(name: str) -> tuple[str, str]:
    """ "SOURCE: METHOD" in its parts; no method where there is no colon."""
    source, colon, method = name.rpartition(":")
    return (source.strip(), method.strip().casefold()) if colon else (name, "")
