"""Names: their order, and the one that was probably meant by one that is not known."""

import difflib
import re
from collections.abc import Collection


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
