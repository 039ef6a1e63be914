"""What is found in a store's directory, for whoever wants to know whether it is well."""

from typing import NamedTuple

from mas_jax.errors import MasJaxError


class Entry(NamedTuple):
    """One entry, every byte of it read and compared with its digests.

    Attributes:
      folder: its name in the store's directory.
      task: the name of its task; None where the metadata is damaged.
      error: what `restore` would raise; None where it is whole.
    """

    folder: str
    task: str | None
    error: MasJaxError | OSError | None


class StoreCondition(NamedTuple):
    """What `AnchorStore.examine` found.

    Attributes:
      entries: all of them, in the order in which they were saved.
      leftovers: names of what killed writers left; the next writer removes it.
      others: names of what is neither an entry nor the store's own, such as an entry that was
        renamed or copied; it is read by nobody.
      writer: who holds the lock, in words, or who held it when it was killed; None for nobody.
    """

    entries: tuple[Entry, ...]
    leftovers: tuple[str, ...]
    others: tuple[str, ...]
    writer: str | None
