"""What a report shows of each experiment: its methods under distinct names, finished seeds only."""

import dataclasses
import itertools
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from experiments.results import Result, mean_interval

Float64Array = npt.NDArray[np.float64]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Method:
    """One row of the tables, one line of the pictures.

    Attributes:
      label: its name, distinct within the section.
      index: decides how it is drawn; equal labels of a report have equal indices.
      result: the result, with only those seeds that came to the end of the sequence.
      unfinished: the seeds that did not.
    """

    label: str
    index: int
    result: Result
    unfinished: tuple[int, ...]

    @property
    def finished(self) -> bool:
        """Whether any seed came to the end."""
        return bool(self.result.seeds)

    def accuracy(self) -> Float64Array:
        """(S, T, T): the accuracy matrix of each finished seed."""
        return np.array([record.accuracy for record in self.result.seeds], np.float64)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Section:
    """One experiment.

    Attributes:
      experiment: its name.
      description: what it is about.
      tasks: the tasks' names, in order.
      published: numbers to hold against, by source.
      methods: at least one.
    """

    experiment: str
    description: str
    tasks: tuple[str, ...]
    published: dict[str, dict[str, float]]
    methods: tuple[Method, ...]

    @property
    def finished(self) -> tuple[Method, ...]:
        """The methods with at least one finished seed."""
        return tuple(method for method in self.methods if method.finished)


def sections(results: Iterable[Result]) -> list[Section]:
    """Sort `results` by experiment, and runs over different tasks apart.

    Raises:
      ValueError: an accuracy matrix has rows of another length than there are tasks.
    """
    ordered = sorted(results, key=_group)
    groups = [list(group) for _, group in itertools.groupby(ordered, key=_group)]
    labelled = [list(zip(_labels(group), group, strict=True)) for group in groups]
    names = sorted({label for group in labelled for label, _ in group})
    return [_section(group, names) for group in labelled]


def interval(values: npt.ArrayLike) -> tuple[Float64Array, Float64Array]:
    """Mean and 95 % half-width over the leading axis (seeds) of `values`, entry by entry."""
    array = np.asarray(values, np.float64)
    pairs = np.array([mean_interval(column) for column in array.reshape(len(array), -1).T])
    mean, half_width = pairs.reshape(*array.shape[1:], 2).transpose(-1, *range(array.ndim - 1))
    return mean, half_width


def _group(result: Result) -> tuple[str, tuple[str, ...]]:
    """What the results of one section have in common."""
    return result.experiment, tuple(result.tasks)


def _section(labelled: Sequence[tuple[str, Result]], names: Sequence[str]) -> Section:
    """One experiment's section; `names` are the labels of the whole report."""
    first = labelled[0][1]
    return Section(
        experiment=first.experiment,
        description=first.description,
        tasks=tuple(first.tasks),
        published={
            source: numbers
            for _, result in labelled
            for source, numbers in result.published.items()
        },
        methods=tuple(_method(label, result, names) for label, result in labelled),
    )


def _method(label: str, result: Result, names: Sequence[str]) -> Method:
    """`result` without its unfinished seeds."""
    length = len(result.tasks)
    for record in result.seeds:
        if len(record.accuracy) > length or any(len(row) != length for row in record.accuracy):
            raise ValueError(
                f"seed {record.seed} of {result.method!r} in {result.experiment!r} must have one "
                f"accuracy per task ({length}) in at most as many rows, got rows of lengths "
                f"{[len(row) for row in record.accuracy]}; run it again"
            )
    finished = tuple(record for record in result.seeds if len(record.accuracy) == length)
    return Method(
        label=label,
        index=names.index(label),
        result=dataclasses.replace(result, seeds=finished),
        unfinished=tuple(r.seed for r in result.seeds if len(r.accuracy) < length),
    )


def _labels(results: Sequence[Result]) -> list[str]:
    """The methods' names; where one comes twice, with the settings that tell them apart."""
    labels = [_label(result, results) for result in results]
    seen: Counter[str] = Counter()
    for position, label in enumerate(labels):
        seen[label] += 1
        labels[position] = f"{label} #{seen[label]}" if seen[label] > 1 else label
    return labels


def _flat(config: dict[str, Any]) -> dict[str, Any]:
    """The settings with those of the method beside them: strength and not method['strength']."""
    method = config.get("method", {})
    return {**config, "method": None, **method} if isinstance(method, dict) else config


def _label(result: Result, others: Sequence[Result]) -> str:
    """The method's name, with those settings in which its namesakes among `others` differ."""
    namesakes = [_flat(other.config) for other in others if other.method == result.method]
    missing = object()
    differing: dict[str, Any] = {
        key: value
        for key, value in _flat(result.config).items()
        if any(other.get(key, missing) != value for other in namesakes)
    }
    settings = ", ".join(f"{key}={value}" for key, value in differing.items())
    return f"{result.method} ({settings})" if settings else result.method
