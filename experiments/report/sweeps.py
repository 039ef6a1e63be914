"""One method run with several strengths: which results belong together, and how they are read."""

import copy
import dataclasses
import json
from collections.abc import Sequence
from typing import Any

from experiments.results import Result


def split(results: Sequence[Result]) -> tuple[list[Result], list[list[Result]]]:
    """Part what is one method with several strengths from all else.

    Args:
      results: of one experiment.

    Returns:
      The results that stand for themselves, and those that differ in nothing but strength and
      learning rate, together, each in their order.
    """
    groups: dict[str, list[Result]] = {}
    for result in results:
        groups.setdefault(_otherwise(result), []).append(result)
    runs = [group for group in groups.values() if _is_sweep(group)]
    swept = {id(result) for group in runs for result in group}
    return [result for result in results if id(result) not in swept], runs


def strength(result: Result) -> float | None:
    """How strongly the method holds on to earlier tasks; None where it has no such setting."""
    value = _method_settings(result.config).get("strength")
    return float(value) if isinstance(value, int | float) else None


def learning_rate(result: Result) -> float | None:
    """The experiment's learning rate, or the method's own where that has one."""
    value = _method_settings(result.config).get("learning_rate", result.config.get("learning_rate"))
    return float(value) if isinstance(value, int | float) else None


def whole(results: Sequence[Result]) -> Result:
    """A sweep's results as one: all seeds, and lists of the settings that differ."""
    first = results[0]
    config = copy.deepcopy(first.config)
    _method_settings(config)["strength"] = _distinct(map(strength, results))
    rates = _distinct(map(learning_rate, results))
    if len(rates) > 1:
        holder = _method_settings(config)
        (holder if "learning_rate" in holder else config)["learning_rate"] = rates
    commands = dict.fromkeys(line for r in results for line in r.command.splitlines())
    return dataclasses.replace(
        first,
        config=config,
        command="\n".join(commands),
        seeds=tuple(record for result in results for record in result.seeds),
    )


def _is_sweep(results: Sequence[Result]) -> bool:
    """Whether there are several strengths, each once with each learning rate."""
    points = [(strength(result), learning_rate(result)) for result in results]
    strengths = {value for value, _ in points}
    return None not in strengths and len(strengths) > 1 and len(set(points)) == len(points)


def _otherwise(result: Result) -> str:
    """Everything that the results of one sweep have in common, as text."""
    config = copy.deepcopy(result.config)
    for settings in (config, _method_settings(config)):
        settings.pop("learning_rate", None)
    _method_settings(config).pop("strength", None)
    return json.dumps([result.method, config], sort_keys=True, default=str)


def _method_settings(config: dict[str, Any]) -> dict[str, Any]:
    """The part of the settings that is the method's own."""
    settings = config.get("method")
    return settings if isinstance(settings, dict) else {}


def _distinct(values: Any) -> list[float]:
    """Each value once, in order of size."""
    return sorted({value for value in values if value is not None})
