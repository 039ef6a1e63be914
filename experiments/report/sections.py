"""What a report shows of each experiment: methods under distinct names, finished seeds only."""

import dataclasses
import itertools
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from experiments.measures import ACCURACY, MEASURES, Measure
from experiments.report import sweeps
from experiments.results import Result, mean_interval

Float64Array = npt.NDArray[np.float64]

FEW = 4
"""As many methods find room in one panel, and side by side with a picture each."""


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
    def measure(self) -> Measure:
        """What its accuracies are."""
        return MEASURES[self.result.measure]

    @property
    def finished(self) -> bool:
        """Whether any seed came to the end."""
        return bool(self.result.seeds)

    def accuracy(self) -> Float64Array:
        """(S, T, T): the accuracy matrix of each finished seed."""
        return np.array([record.accuracy for record in self.result.seeds], np.float64)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sweep:
    """One method with several strengths, and perhaps several learning rates.

    Attributes:
      whole: all of it under one name, the settings that differ as lists.
      points: one per strength and learning rate.
    """

    whole: Method
    points: tuple[Method, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Section:
    """One experiment.

    Attributes:
      experiment: its name.
      description: what it is about.
      tasks: the tasks' names, in order.
      published: numbers to hold against, by source.
      methods: what is compared.
      sweeps: the methods that were run with several strengths, which are in `methods` only if
        they were also run with other settings.
      measure: what the accuracies are.
    """

    experiment: str
    description: str
    tasks: tuple[str, ...]
    published: dict[str, dict[str, float]]
    methods: tuple[Method, ...]
    sweeps: tuple[Sweep, ...] = ()
    measure: Measure = ACCURACY

    @property
    def finished(self) -> tuple[Method, ...]:
        """The methods with at least one finished seed."""
        return tuple(method for method in self.methods if method.finished)

    @property
    def made(self) -> tuple[Method, ...]:
        """Everything that was run, each sweep under one name."""
        return (*self.methods, *(sweep.whole for sweep in self.sweeps))

    @property
    def crowded(self) -> bool:
        """Whether it has more methods than one panel has room for."""
        return len(self.made) > FEW


def sections(results: Iterable[Result]) -> list[Section]:
    """Sort `results` by experiment, and runs over different tasks apart.

    Raises:
      ValueError: an accuracy matrix has rows of another length than there are tasks.
    """
    ordered = sorted(results, key=_group)
    groups = [sweeps.split(list(group)) for _, group in itertools.groupby(ordered, key=_group)]
    # The fewer there are beside each other, the more their looks differ.
    few_first = sorted(groups, key=lambda group: len(group[0]))
    names = dict.fromkeys(name for single, _ in few_first for name in sorted(_labels(single)))
    names |= dict.fromkeys(name for _, runs in groups for name in _sweep_labels(runs))
    return [_section(single, runs, list(names)) for single, runs in groups]


def interval(values: npt.ArrayLike) -> tuple[Float64Array, Float64Array]:
    """Mean and 95 % half-width over the leading axis (seeds) of `values`, entry by entry."""
    array = np.asarray(values, np.float64)
    pairs = np.array([mean_interval(column) for column in array.reshape(len(array), -1).T])
    mean, half_width = pairs.reshape(*array.shape[1:], 2).transpose(-1, *range(array.ndim - 1))
    return mean, half_width


def _group(result: Result) -> tuple[str, tuple[str, ...], str]:
    """What the results of one section have in common."""
    return result.experiment, tuple(result.tasks), result.measure


def _section(
    single: Sequence[Result], runs: Sequence[Sequence[Result]], names: Sequence[str]
) -> Section:
    """One experiment's section; `names` are the labels of the whole report."""
    results = [*single, *itertools.chain.from_iterable(runs)]
    return Section(
        experiment=results[0].experiment,
        description=results[0].description,
        tasks=tuple(results[0].tasks),
        published={
            source: numbers for result in results for source, numbers in result.published.items()
        },
        methods=tuple(map(_method, _labels(single), single, itertools.repeat(names))),
        sweeps=tuple(map(_sweep, _sweep_labels(runs), runs, itertools.repeat(names))),
        measure=MEASURES[results[0].measure],
    )


def _sweep(label: str, results: Sequence[Result], names: Sequence[str]) -> Sweep:
    """One method's runs with several strengths."""
    # All points in the sweep's colour: they are one method.
    points = zip(_labels(results), results, strict=True)
    index = names.index(label)
    return Sweep(
        whole=_method(label, sweeps.whole(results), names),
        points=tuple(
            dataclasses.replace(_method(point, result, (point,)), index=index)
            for point, result in points
        ),
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


def _sweep_labels(runs: Sequence[Sequence[Result]]) -> list[str]:
    """A name for each sweep."""
    return [f"{label}, by strength" for label in _labels([sweeps.whole(run) for run in runs])]


def _flat(config: dict[str, Any]) -> dict[str, Any]:
    """The settings with those of the method beside them: strength and not method['strength']."""
    method = config.get("method", {})
    return {**config, "method": None, **method} if isinstance(method, dict) else config


def differing(result: Result, others: Sequence[Result]) -> dict[str, Any]:
    """Those settings in which the namesakes of its method among `others` differ from it."""
    namesakes = [_flat(other.config) for other in others if other.method == result.method]
    missing = object()
    return {
        key: value
        for key, value in _flat(result.config).items()
        if any(other.get(key, missing) != value for other in namesakes)
    }


def _label(result: Result, others: Sequence[Result]) -> str:
    """The method's name, with the settings that tell it from its namesakes."""
    settings = ", ".join(f"{key}={value}" for key, value in differing(result, others).items())
    return f"{result.method} ({settings})" if settings else result.method
