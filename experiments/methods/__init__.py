"""The methods that are compared, one file each; what a file offers is in its METHODS."""

import dataclasses
import importlib
import pkgutil
from collections.abc import Mapping

from experiments.methods.base import Method, Stage
from experiments.methods.joint import Joint
from experiments.methods.mas import MAS
from experiments.names import nearest

ORDER = (
    "finetune",
    "joint",
    "l2",
    "ewc",
    "ewc_online",
    "si",
    "lwf",
    "ebll",
    "imm_mean",
    "imm_mode",
)
"""Those that tables begin with; the others follow by name."""


def _found() -> dict[str, Method]:
    """What all files of this folder offer."""
    files = [
        importlib.import_module(f"{__name__}.{file.name}")
        for file in pkgutil.iter_modules(__path__)
    ]
    found = {
        name: method for file in files for name, method in getattr(file, "METHODS", {}).items()
    }
    ordered = [name for name in ORDER if name in found]
    return {name: found[name] for name in dict.fromkeys([*ordered, *sorted(found)])}


METHODS: dict[str, Method] = _found()
"""Every method under its name, with its own defaults."""


def every_method(**strengths: float) -> dict[str, Method]:
    """All methods, with the strengths given here; a name's variants (mas_test) share its own.

    Raises:
      ValueError: a name that begins none of a method with a strength.
    """
    held = [name for name, method in METHODS.items() if "strength" in _fields(method)]
    for name in strengths:
        if not any(name == known or known.startswith(f"{name}_") for known in held):
            raise nearest("method with a strength", name, held)
    return {name: _with_strength(name, method, strengths) for name, method in METHODS.items()}


def _fields(method: Method) -> set[str]:
    """The names of a method's options."""
    return {field.name for field in dataclasses.fields(method)}


def _with_strength(name: str, method: Method, strengths: Mapping[str, float]) -> Method:
    """`method` with the strength for its name, or for the longest beginning of it."""
    known = [known for known in strengths if name == known or name.startswith(f"{known}_")]
    if not known:
        return method
    return dataclasses.replace(method, strength=strengths[max(known, key=len)])  # pyright: ignore[reportCallIssue]


__all__ = ["MAS", "METHODS", "Joint", "Method", "Stage", "every_method"]
