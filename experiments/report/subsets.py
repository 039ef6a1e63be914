"""A few facts along the sequence of tasks: the paper's Fig. 7 as a picture and as a table."""

import math
from collections.abc import Collection, Mapping, Sequence

import matplotlib.style
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.facts import splits
from experiments.facts.subsets import is_recorded, subset_precision
from experiments.facts.table import MUSIC, SPORTS, STANFORD40, facts_of
from experiments.facts.types import Fact
from experiments.report import looks
from experiments.report.axes import legend, line_style, panel_grid, task_axis, title
from experiments.report.markup import Markup, column_header, element, row_header, table
from experiments.report.sections import Method, Section, interval
from experiments.report.tables import best_of, name_of, value_cell

EXPERIMENT = "facts_adaptation"
SUBSETS: Mapping[str, Collection[Fact]] = {
    "person playing sports": SPORTS,
    "person playing music": MUSIC,
}
"""What is followed; importance is measured on the first alone, where it is on a subset."""

CAPTION = (
    "Mean average precision (MAP) of a few facts of Stanford 40 Actions among the pictures of "
    "their own task, after each task (grey: none of them learned yet). Bands: 95 % t-interval over "
    "seeds. The sports facts are all in the first task; mas_sports measures importance on their "
    "pictures alone. In the paper's Fig. 7, on other pictures (6DS) and with VGG-16, sports end at "
    "0.50 with importance from the subset alone, and near 0.20 with fine-tuning and SI: orders may "
    "be compared, not levels."
)

_styled = matplotlib.style.context(looks.STYLE, after_reset=True)


def followed(section: Section) -> list[Method]:
    """The methods of an adaptation to facts that have a precision for each fact; else none."""
    if section.experiment != EXPERIMENT:
        return []
    return [method for method in section.finished if is_recorded(method.result)]


@_styled
def subset_curves(section: Section, columns: int) -> Figure:
    """Draw the subsets' precision after each task, a line for each method.

    Args:
      section: with at least one method that is `followed`.
      columns: panels side by side.
    """
    methods, length = followed(section), len(section.tasks)
    height = 2.9 if columns > 2 else 2.2
    # Below each other on a phone.
    across = 1 if columns == 2 else columns
    figure, panels = panel_grid(len(SUBSETS), across, height, share_y=True)
    for axes, (name, subset) in zip(panels, SUBSETS.items(), strict=True):
        title(axes, name, 3)
        first = _first_learned(methods[0], subset)
        # As grey as before a task is learned in the pictures of tasks.
        axes.axvspan(0, first + 0.5, color=looks.NOT_LEARNED, linewidth=0)
        for rank, method in enumerate(methods):
            aside = min(0.05, 0.3 / len(methods)) * (rank - (len(methods) - 1) / 2)
            _line(axes, method, subset, aside)
        task_axis(axes, length)
        axes.grid(True)
    _precision_axis(panels[0], methods)
    figure.supylabel("MAP", fontsize=8.5, color=looks.MUTED)
    figure.supxlabel("after learning task", fontsize=8.5, color=looks.MUTED)
    legend(figure, methods)
    return figure


def subset_table(section: Section) -> Markup:
    """The first subset's precision after each task, the best in bold."""
    name, subset = next(iter(SUBSETS.items()))
    methods, of = followed(section), section.measure
    found = [interval(subset_precision(method.result, subset)) for method in methods]
    columns = range(len(section.tasks))
    best = [best_of(c, [float(mean_T[c]) for mean_T, _ in found], of) for c in columns]
    rows = [
        element(
            "tr",
            row_header(name_of(method)),
            [value_cell(c, (float(mean_T[c]), float(half_T[c])), best[c], of) for c in columns],
        )
        for method, (mean_T, half_T) in zip(methods, found, strict=True)
    ]
    head = [column_header("Method"), *(column_header(f"after {task}") for task in section.tasks)]
    return table(f"MAP of {name}", [head], rows)


def in_words(section: Section) -> str:
    """What the picture shows, for those who do not see it."""
    ends = "; ".join(
        f"{name}: " + ", ".join(_along(method, subset) for method in followed(section))
        for name, subset in SUBSETS.items()
    )
    return (
        "Line charts of the mean average precision (MAP) of a few facts after each task, one line "
        f"per method. {ends}."
    )


def _along(method: Method, subset: Collection[Fact]) -> str:
    """A method's precision after the first and the last task."""
    mean_T = subset_precision(method.result, subset).mean(axis=0)
    text = method.measure.text
    return f"{method.label} from {text(mean_T[0])} to {text(mean_T[-1])}"


def _first_learned(method: Method, subset: Collection[Fact]) -> int:
    """The first task, counted from 0, that has a fact of the subset."""
    facts, seed = facts_of(sorted(STANFORD40)), int(method.result.config.get("split_seed", 0))
    groups = splits.adaptation_tasks(facts, SPORTS, len(method.result.tasks), seed)
    rows = set(splits.rows_of(facts, subset))
    return next(number for number, group in enumerate(groups) if rows & set(group))


def _line(axes: Axes, method: Method, subset: Collection[Fact], aside: float) -> None:
    """One method's mean and interval; a little beside the others, so that none is hidden."""
    mean_T, half_T = interval(subset_precision(method.result, subset))
    x_T = np.arange(1, len(mean_T) + 1) + aside
    color = looks.look(method.index).color
    axes.fill_between(x_T, mean_T - half_T, mean_T + half_T, color=color, alpha=0.16, linewidth=0)
    axes.plot(x_T, mean_T, **line_style(method), clip_on=False)


def _precision_axis(axes: Axes, methods: Sequence[Method]) -> None:
    """From 0 to the tenth above all lines and, as far as that is possible, their bands."""
    found = [
        interval(subset_precision(method.result, subset))
        for method in methods
        for subset in SUBSETS.values()
    ]
    highest = max(float((mean_T + np.nan_to_num(half_T)).max()) for mean_T, half_T in found)
    top = min(max(math.ceil(10 * highest) / 10, 0.1), 1.0)
    step = 0.1 if top <= 0.6 else 0.2
    ticks = np.arange(0, top + step / 2, step).tolist()
    axes.set_yticks(ticks, [f"{tick:.1f}" for tick in ticks])
    axes.set_ylim(0, top)
