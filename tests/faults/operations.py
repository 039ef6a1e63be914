"""All that is done under faults, to stores and to a run's files."""

import pathlib
from typing import Protocol

from tests.faults import run_files, stores


class Operation(Protocol):
    """Something done to a folder, after which it is as before or as it shall be."""

    @property
    def raises(self) -> type[Exception]:
        """What it raises where the disk fails."""
        ...

    @property
    def takes_room(self) -> bool:
        """Whether it cannot be done on a full disk."""
        ...

    def prepare(self, directory: pathlib.Path) -> None:
        """Make the folder what it is before."""
        ...

    def act(self, directory: pathlib.Path) -> None:
        """Do it."""
        ...

    def is_done(self, directory: pathlib.Path) -> bool:
        """Whether the folder is as it shall be; raises where it is not as before either."""
        ...

    def go_on(self, directory: pathlib.Path, is_done: bool) -> None:
        """Do it, or where it is done what comes next; raises where not just that is there then."""
        ...


OPERATIONS: dict[str, Operation] = {**stores.OPERATIONS, **run_files.OPERATIONS}
