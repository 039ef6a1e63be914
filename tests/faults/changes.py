"""What befalls the bytes of a file."""

from collections.abc import Callable

import numpy as np

Change = Callable[[bytes, np.random.Generator], bytes]


def flipped(content: bytes, rng: np.random.Generator) -> bytes:
    """`content` with one bit turned over."""
    changed = bytearray(content)
    changed[rng.integers(len(content))] ^= 1 << int(rng.integers(8))
    return bytes(changed)


def truncated(content: bytes, rng: np.random.Generator) -> bytes:
    """`content` without its end."""
    return content[: rng.integers(len(content))]


def lengthened(content: bytes, rng: np.random.Generator) -> bytes:
    """`content` and some bytes more."""
    return content + rng.bytes(int(rng.integers(1, 64)))


def zeroed(content: bytes, rng: np.random.Generator) -> bytes:
    """`content` with a block of zeros in it, as after a crash of the machine."""
    start = int(rng.integers(len(content)))
    length = min(len(content) - start, 512)
    return content[:start] + bytes(length) + content[start + length :]


def emptied(content: bytes, rng: np.random.Generator) -> bytes:
    """Nothing."""
    del content, rng
    return b""


BY_CHANCE: dict[str, Change] = {
    "flip a bit of": flipped,
    "truncate": truncated,
    "zero a block of": zeroed,
}
"""Those of which it matters where they are done."""
CHANGES: dict[str, Change] = {**BY_CHANCE, "lengthen": lengthened, "empty": emptied}
"""All; an empty file can only be lengthened."""


def possible(content: bytes) -> list[str]:
    """The kinds of changes that can be made to `content`."""
    return [kind for kind in CHANGES if content or kind == "lengthen"]
