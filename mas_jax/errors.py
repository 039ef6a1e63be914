"""The library's own errors: one type for each cause a caller may want to tell apart."""


class MasJaxError(Exception):
    """Base of every error below."""


class TreeMismatchError(MasJaxError, ValueError):
    """Two trees that belong together differ in a leaf's presence, shape or dtype."""


class NonFiniteError(MasJaxError, FloatingPointError):
    """A NaN or an infinity where only finite numbers make sense."""


class TaskNotFoundError(MasJaxError, KeyError):
    """The store holds no such task."""

    def __str__(self) -> str:
        # KeyError prints the repr of its argument, which hides line breaks and doubles quotes.
        return str(self.args[0]) if self.args else ""


class TaskExistsError(MasJaxError, FileExistsError):
    """The store holds this task already; nothing is overwritten."""


class CheckpointCorruptError(MasJaxError, ValueError):
    """What is on disk is not what was saved."""


class StoreLockedError(MasJaxError, RuntimeError):
    """Another process is writing to this store."""


class StoreNotWritableError(MasJaxError, PermissionError):
    """The store's directory cannot be written to."""


class StoreFormatError(MasJaxError, ValueError):
    """The store was written by a newer version of this library."""


class EngineError(MasJaxError, RuntimeError):
    """The fused engine failed on this model for a reason of its own."""


class FallbackError(MasJaxError, ValueError):
    """Under `strict`: a large parameter has no fused rule."""


class EngineWarning(UserWarning):
    """The fused engine failed, and the vmap engine was taken."""


class CoupledSamplesError(MasJaxError, ValueError):
    """The network's outputs for one sample depend on the others in the batch."""


class OlderAnchorWarning(UserWarning):
    """The task asked for is damaged, and by choice an older task's anchor was restored instead.

    Attributes:
      task: the name asked for.
      restored: the name of the task whose anchor was returned.
      damage: the error that would have been raised.
      is_known: whether the task is known to have been saved; where it is not, the damaged entry
        may be that of another.
    """

    def __init__(
        self, task: str, restored: str, damage: CheckpointCorruptError, *, is_known: bool = True
    ):
        super().__init__(task, restored, damage)
        self.task, self.restored, self.damage, self.is_known = task, restored, damage, is_known

    def __str__(self) -> str:
        if not self.is_known:
            return (
                f"no readable entry is that of task {self.task!r}, and the anchor of "
                f"{self.restored!r}, the newest whole one before the damaged entry, was restored. "
                f"See that {self.task!r} is the name meant; if it is, what was learned since "
                f"{self.restored!r} is not held. What is wrong: {self.damage}"
            )
        return (
            f"the anchor of task {self.task!r} cannot be restored, and that of {self.restored!r}, "
            f"the newest whole one before it, was: what was learned since then is not held. "
            f"Measure {self.task!r} again, if its data is still there. What is wrong: {self.damage}"
        )
