"""What a user says of an anchor: its task's name, and what the store keeps as plain JSON."""

import json
from numbers import Integral
from typing import Any

MAX_TASK_NAME = 200
MAX_DEPTH = 100
"""How deep `extra` may be. Python reads JSON of about a thousand levels, less from deep inside."""


def check_task_name(task: Any) -> None:
    """Raise ValueError unless `task` can name a task."""
    if (
        not isinstance(task, str)
        or not task.strip()
        or not task.isprintable()
        or len(task) > MAX_TASK_NAME
    ):
        raise ValueError(
            f"task must be a name of 1 to {MAX_TASK_NAME} printable characters, got {task!r:.250}"
        )


def check_description(objective: Any, num_samples: Any, extra: Any) -> None:
    """Raise ValueError unless what the user says about an anchor is what JSON can hold."""
    if not isinstance(objective, str) or not objective:
        raise ValueError(f"objective must be a name such as 'squared_l2_norm', got {objective!r}")
    is_whole = isinstance(num_samples, Integral) and not isinstance(num_samples, bool)
    if not is_whole or not 0 <= int(num_samples) < 2**63:
        bits = int(num_samples).bit_length() if is_whole else 0
        sign = "a negative one" if is_whole and int(num_samples) < 0 else "one"
        got = f"{sign} of {bits} bits" if bits > 63 else f"{num_samples!r:.250}"
        raise ValueError(f"num_samples must be an int from 0 to 2⁶³ - 1, got {got}")
    if extra is None:
        return
    try:
        same = isinstance(extra, dict) and json.loads(json.dumps(extra, allow_nan=False)) == extra
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"extra must be plain JSON: {error}") from error
    if not _is_within(MAX_DEPTH, extra):
        raise ValueError(f"extra must be at most {MAX_DEPTH} containers deep, or readers may fail")
    if not same:
        raise ValueError(
            "extra must be a dict that comes back from JSON as it was: str keys, lists and not "
            f"tuples; got {extra!r:.250}"
        )


def _is_within(depth: int, value: Any) -> bool:
    """Whether `value` has no more containers than so many within each other."""
    children = value.values() if isinstance(value, dict) else value
    if not isinstance(value, dict | list):
        return True
    return depth > 0 and all(_is_within(depth - 1, child) for child in children)
