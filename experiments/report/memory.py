"""The bytes that each method holds along the sequence: counted, drawn, tabulated."""

from typing import NamedTuple

import matplotlib.style
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.report import looks
from experiments.report.axes import legend_of, line_style, short, task_axis
from experiments.report.markup import Markup, column_header, element, row_header, table
from experiments.report.sections import Float64Array, Method, Section
from experiments.report.tables import NOTHING, name_of

_styled = matplotlib.style.context(looks.STYLE, after_reset=True)

MEBIBYTE = 2**20


class Memory(NamedTuple):
    """Bytes at each task, the mean over seeds."""

    parameters: Float64Array  # (T,): of the network
    kept: Float64Array  # (T,): of the method, from this task to the next
    training: Float64Array  # (T,): beside these while the task was learned

    @property
    def at_rest(self) -> Float64Array:
        """(T,): what has to be kept between tasks."""
        return self.parameters + self.kept

    @property
    def while_learning(self) -> Float64Array:
        """(T,): what is held while a task is learned."""
        return self.at_rest + self.training


def memory_of(method: Method) -> Memory | None:
    """What the seeds counted; None where none did, at every task."""
    length = len(method.result.tasks)
    rows = [record.memory for record in method.result.seeds if len(record.memory) == length]
    if not rows:
        return None
    return Memory(
        *(
            np.mean([[task.get(kind, 0) for task in seed] for seed in rows], axis=0)
            for kind in Memory._fields
        )
    )


def counted(section: Section) -> dict[str, Memory]:
    """The memory of each method that has it counted, by label."""
    found = {method.label: memory_of(method) for method in section.finished}
    return {label: memory for label, memory in found.items() if memory is not None}


def alike(section: Section) -> list[tuple[list[Method], Memory]]:
    """The methods in groups that hold the same bytes all along."""
    found = counted(section)
    groups: dict[bytes, tuple[list[Method], Memory]] = {}
    for method in section.finished:
        if method.label in found:
            memory = found[method.label]
            key = np.round(np.concatenate(memory)).tobytes()
            groups.setdefault(key, ([], memory))[0].append(method)
    return list(groups.values())


@_styled
def memory_along_sequence(section: Section, columns: int) -> Figure:
    """Draw the memory of each method at each task, kept and while learning, on a log scale.

    Args:
      section: with at least one method whose memory is counted.
      columns: below 3, the two panels are above each other and not side by side.
    """
    groups = alike(section)
    shape, size = ((1, 2), (10.8, 3.6)) if columns > 2 else ((2, 1), (3.8, 5.6))
    figure = Figure(figsize=size, layout="constrained")
    kept, learning = figure.subplots(*shape, sharey=True, squeeze=False).flat
    kept.set_title("between tasks: network + kept")
    learning.set_title("while learning a task")
    for rank, (methods, memory) in enumerate(groups):
        # A little beside each other, so that none hides behind another.
        aside = min(0.05, 0.3 / len(groups)) * (rank - (len(groups) - 1) / 2)
        x = np.arange(1, len(section.tasks) + 1) + aside
        kept.plot(x, _mebibytes(memory.at_rest), **line_style(methods[0]))
        learning.plot(x, _mebibytes(memory.while_learning), **line_style(methods[0]), alpha=0.7)
    for axes in (kept, learning):
        _size_axis(axes, [memory for _, memory in groups])
        task_axis(axes, len(section.tasks))
    figure.supylabel("MiB (log scale)", fontsize=8.5, color=looks.MUTED)
    figure.supxlabel("task", fontsize=8.5, color=looks.MUTED)
    legend_of(figure, [(methods[0], _names(methods)) for methods, _ in groups])
    return figure


def memory_table(section: Section) -> Markup:
    """The memory of each method: of the network, kept after the first and last task, at most."""
    headings = (
        "Network", "Kept after the first task", "Kept after the last task",
        "Between tasks, at the end", "While learning, at most",
    )  # fmt: skip
    rows = [
        element(
            "tr",
            row_header(name_of(method)),
            [element("td", text) for text in _cells(memory_of(method), len(headings))],
        )
        for method in section.finished
    ]
    head = [column_header("Method"), *map(column_header, headings)]
    return table("Memory, MiB", [head], rows)


def size(byte_count: float) -> str:
    """Bytes in MiB, to three digits.

    >>> [size(count * 2**20) for count in (0, 0.25, 1, 20, 179.44)]
    ['0', '0.250', '1.00', '20.0', '179']
    """
    mebibytes = byte_count / MEBIBYTE
    if mebibytes == 0:
        return "0"
    digits = 0 if mebibytes >= 100 else 1 if mebibytes >= 10 else 2 if mebibytes >= 1 else 3
    return f"{mebibytes:,.{digits}f}"


def _cells(memory: Memory | None, count: int) -> list[str]:
    """The row of the table."""
    if memory is None:
        return [NOTHING] * count
    values = (
        memory.parameters[-1],
        memory.kept[0],
        memory.kept[-1],
        memory.at_rest[-1],
        memory.while_learning.max(),
    )
    return [size(float(value)) for value in values]


def _names(methods: list[Method]) -> str:
    """A group's name: the first few of its methods."""
    names = ", ".join(short(method.label, 24) for method in methods[:3])
    return names + (f" and {len(methods) - 3} more" if len(methods) > 3 else "")


def _mebibytes(byte_counts: Float64Array) -> Float64Array:
    """In MiB; at least one byte, so that all have a place on a log scale."""
    return np.maximum(byte_counts, 1) / MEBIBYTE


def _size_axis(axes: Axes, memories: list[Memory]) -> None:
    """MiB along y, a tick at each 1, 2 and 5, or at each decade where that is too many."""
    values = _mebibytes(np.concatenate([[*m.at_rest, *m.while_learning] for m in memories]))
    low, high = values.min() / 1.25, values.max() * 1.25
    decades = np.arange(np.floor(np.log10(low)), np.ceil(np.log10(high)) + 1)
    steps = (1, 2, 5) if len(decades) <= 4 else (1,)
    ticks = [float(f"{step}e{decade:.0f}") for decade in decades for step in steps]
    axes.set_yscale("log")
    axes.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    axes.set_ylim(low, high)
    axes.grid(True)
