"""Names: their order, a few of many, and the one that one that is not known probably meant."""

import difflib
import re
from collections.abc import Collection, Sequence


def nearest(kind: str, name: str, known: Collection[str]) -> ValueError:
    """The error for an unknown name."""
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else "."
    return ValueError(f"no {kind} is called {name!r}{hint} There are: {', '.join(known)}")


def numbers_as_numbers(name: str) -> tuple[list[str | int], str]:
    """A key to sort names by, in the alphabet's order, but numbers in them as numbers.

    >>> sorted(["conv10/kernel", "conv2/kernel", "conv2/bias"], key=numbers_as_numbers)
    ['conv2/bias', 'conv2/kernel', 'conv10/kernel']
    """
    pieces = re.split(r"(\d+)", name)
    return [int(piece) if odd % 2 else piece for odd, piece in enumerate(pieces)], name


def first_few(names: Sequence[str], most: int = 10) -> str:
    """The first of these names, and how many more there are.

    >>> first_few(["a.jpg", "b.jpg", "c.jpg"], most=2)
    'a.jpg, b.jpg and 1 more'
    """
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
