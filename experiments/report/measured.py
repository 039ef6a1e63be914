"""JSON files of measurements that a report shows beside the runs."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")


def read(path: Path, identity: tuple[int, str], noun: str, build: Callable[[Any], T]) -> T:
    """What `build` makes of a file's content.

    Args:
      path: the file.
      identity: its format and its kind, as they stand in it.
      noun: what it holds, for the error's text.
      build: makes the result of the rest; raises ValueError, KeyError, TypeError or
        AttributeError where it is not as it should be.

    Raises:
      ValueError: the file is not one of this format and kind.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if (content.pop("format"), content.pop("kind")) != identity:
            raise ValueError("it was written in another format than this version reads")
        return build(content)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is not a file of {noun} of this version: {error}") from error
