"""Names that are not known, answered with the one that was probably meant."""

import difflib
from collections.abc import Collection


def nearest(kind: str, name: str, known: Collection[str]) -> ValueError:
    """The error for an unknown name."""
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else "."
    return ValueError(f"no {kind} is called {name!r}{hint} There are: {', '.join(known)}")
