"""The pictures of a section as PNG files, with the words that stand for them."""

import io
import re
import struct
from collections.abc import Callable
from typing import NamedTuple

import matplotlib.style
from matplotlib.figure import Figure

from experiments.measures import Measure
from experiments.report import figures, looks, multiples, projections, subsets
from experiments.report.importance import importance_bars, parameters
from experiments.report.memory import counted, memory_along_sequence, size
from experiments.report.outcomes import outcomes
from experiments.report.pairs import Pairs, in_words, scatter
from experiments.report.sections import FEW, Method, Section, Sweep
from experiments.report.strength import finished_points, strength_curves
from experiments.results import summary

_IMPORTANCE = (
    "How many values of each parameter have which importance Ω at the end of the sequence, "
    "four bins per decade, counts summed over seeds. Exact zeros are in no bin; their share "
    "is written in each panel."
)
_IMPORTANCE_BY_METHOD = (
    "Which share of each parameter's values has which importance Ω at the end of the sequence, "
    "four bins per decade, all seeds together. Exact zeros are in no bin; the table below has "
    "their share. Of many parameters, the largest are drawn."
)


class Png(NamedTuple):
    """One picture file."""

    file_name: str
    content: bytes
    width: int  # of the page's pixels; the file has twice as many
    height: int


class Picture(NamedTuple):
    """One picture as the page shows it."""

    wide: Png
    narrow: Png | None  # for screens as narrow as a phone's; None where `wide` suits them too
    alternative: str
    caption: str


class SectionPictures(NamedTuple):
    """All pictures of a section; None for those it has nothing to show in."""

    outcomes: Picture | None = None
    sequence: Picture | None = None
    matrices: tuple[Picture, ...] = ()
    importance: Picture | None = None
    memory: Picture | None = None
    sweeps: tuple[Picture | None, ...] = ()
    subsets: Picture | None = None


def section_pictures(section: Section, prefix: str) -> SectionPictures | None:
    """Draw everything; None for a section without a finished seed."""
    sweeps = tuple(
        _sweep(sweep, f"{prefix}-strength-{number}") if sweep.whole.finished else None
        for number, sweep in enumerate(section.sweeps, start=1)
    )
    if not section.finished:
        return SectionPictures(sweeps=sweeps) if any(sweeps) else None
    many = len(section.finished) > FEW
    with_importance = [m for m in section.finished if parameters(section, m)]
    by_method = len(with_importance) > FEW
    return SectionPictures(
        _outcomes(section, prefix) if len(section.finished) > 1 else None,
        _sequence_by_method(section, prefix) if many else _sequence(section, prefix),
        _matrix_grid(section, prefix) if many else _matrices(section, prefix),
        _importance(section, prefix, by_method) if with_importance else None,
        _memory(section, prefix) if counted(section) else None,
        sweeps,
        _subsets(section, prefix) if subsets.followed(section) else None,
    )


def pairs_picture(found: Pairs, prefix: str) -> Picture:
    """Draw one importance against another."""
    return Picture(
        *_both_widths(lambda columns: scatter(found, columns), f"{prefix}-pairs"),
        in_words(found),
        "Each dot is one parameter value's Ω, measured twice; on the line both are equal. A "
        "sample of the values above zero is drawn; the rank correlation (Spearman's) is over all "
        "values.",
    )


def projections_picture(found: projections.Projections, prefix: str) -> Picture:
    """Draw pictures of facts before and after other tasks."""
    return Picture(
        *_both_widths(
            lambda columns: projections.planes(found, columns), f"{prefix}-projections", columns=4
        ),
        projections.in_words(found),
        found.caption,
    )


def files(pictures: SectionPictures | Picture | None) -> list[Png]:
    """Every file of a section's pictures, or of one picture."""
    if pictures is None:
        return []
    if isinstance(pictures, Picture):
        return [png for png in (pictures.wide, pictures.narrow) if png is not None]
    p = pictures
    every = [p.outcomes, p.sequence, *p.matrices, p.subsets, p.importance, p.memory, *p.sweeps]
    return [png for picture in every for png in files(picture)]


@matplotlib.style.context(looks.STYLE, after_reset=True)
def render(figure: Figure, file_name: str) -> Png:
    """Draw `figure` as a PNG; the same figure gives the same bytes."""
    buffer = io.BytesIO()
    # Cut to what is drawn, so that no long name is cut off.
    figure.savefig(buffer, format="png", dpi=200, bbox_inches="tight", metadata={"Software": None})
    # A PNG file has its width and height at bytes 16 to 24 (its IHDR chunk).
    width, height = struct.unpack(">II", buffer.getvalue()[16:24])
    return Png(file_name, buffer.getvalue(), width // 2, height // 2)


def slug(text: str) -> str:
    """`text` as part of a file name: letters, digits, dashes and underscores.

    >>> slug("MAS, λ=2 <b>")
    'MAS-2-b'
    """
    return re.sub(r"[^A-Za-z0-9_]+", "-", text).strip("-")[:40] or "unnamed"


def _both_widths(draw: Callable[[int], Figure], name: str, columns: int = 3) -> tuple[Png, Png]:
    """A picture of panels for the desk, `columns` beside each other, and for the phone."""
    wide = render(draw(columns), f"{name}.png")
    return wide, render(draw(2), f"{name}-narrow.png")


def _outcomes(section: Section, prefix: str) -> Picture:
    """Final accuracy and forgetting."""
    ends = "; ".join(map(_outcome_in_words, section.finished))
    quoted = " Hollow marks: published numbers of the method." if section.published else ""
    return Picture(
        *_both_widths(lambda columns: outcomes(section, columns), f"{prefix}-outcomes"),
        f"Dot plots of {section.measure.average} and forgetting after the last task. {ends}.",
        f"{_mean_measure(section.measure)} and forgetting after the last task, the means as "
        f"numbers at the right. Bars: 95 % t-interval over seeds.{quoted}",
    )


def _sequence(section: Section, prefix: str) -> Picture:
    """Each task's accuracy along the sequence."""
    ends = "; ".join(_final_accuracies(section, method) for method in section.finished)
    return Picture(
        *_both_widths(
            lambda columns: figures.accuracy_along_sequence(section, columns), f"{prefix}-sequence"
        ),
        f"Line charts, one per task: its {section.measure.name} after each task from when it is "
        "learned. "
        f"At the end of the sequence: {ends}.",
        f"Each task's {section.measure.name} from when it is learned to the end of the sequence "
        "(grey: not learned yet), and the mean over the tasks learned so far. Bands: 95 % "
        "t-interval over seeds.",
    )


def _sequence_by_method(section: Section, prefix: str) -> Picture:
    """The same with a panel per method."""
    ends = "; ".join(_mean_along(method) for method in section.finished)
    return Picture(
        *_both_widths(
            lambda columns: multiples.sequence_by_method(section, columns),
            f"{prefix}-sequence",
            columns=4,
        ),
        f"Line charts, one per method: {section.measure.name}, mean over the tasks so far"
        f"{_in_percent(section.measure)}. {ends}.",
        f"Thick: {section.measure.name}, mean over the tasks learned so far, with its 95 % "
        "t-interval over seeds. "
        "Thin: each task from when it is learned (dot) to the end of the sequence. Grey: "
        "methods to compare with, the same in every panel.",
    )


def _matrices(section: Section, prefix: str) -> tuple[Picture, ...]:
    """One heat map per method."""
    limits = figures.accuracy_limits(section)
    return tuple(
        Picture(
            render(
                figures.accuracy_heat_map(method, limits),
                f"{prefix}-matrix-{number}-{slug(method.label)}.png",
            ),
            None,
            f"Heat map of the {section.measure.short} matrix of "
            f"{_final_accuracies(section, method)}.",
            _matrix_caption(method),
        )
        for number, method in enumerate(section.finished, start=1)
    )


def _matrix_grid(section: Section, prefix: str) -> tuple[Picture, ...]:
    """All heat maps as one picture."""
    ends = "; ".join(_final_accuracies(section, method) for method in section.finished)
    wide, narrow = _both_widths(
        lambda columns: multiples.accuracy_matrices(section, columns),
        f"{prefix}-matrices",
        columns=4,
    )
    alternative = f"Heat maps of the {section.measure.short} matrices. After the last task: {ends}."
    return (Picture(wide, narrow, alternative, "Tasks by their number in the sequence."),)


def _importance(section: Section, prefix: str, by_method: bool) -> Picture:
    """The histograms of Ω."""
    shares = "; ".join(
        f"{method.label}, {name}: {100 * importance_bars(method, name).zero_share:.1f} % zeros"
        for method in section.finished
        for name in parameters(section, method)
    )
    draw = multiples.importance_by_method if by_method else figures.importance_histograms
    return Picture(
        *_both_widths(
            lambda columns: draw(section, columns),
            f"{prefix}-importance",
            columns=4 if by_method else 3,
        ),
        f"Histograms of the importance of each parameter's values, on a log scale. {shares}.",
        _IMPORTANCE_BY_METHOD if by_method else _IMPORTANCE,
    )


def _memory(section: Section, prefix: str) -> Picture:
    """Memory along the sequence."""
    ends = "; ".join(
        f"{label} {size(memory.at_rest[0])} and {size(memory.at_rest[-1])}"
        for label, memory in counted(section).items()
    )
    return Picture(
        *_both_widths(lambda columns: memory_along_sequence(section, columns), f"{prefix}-memory"),
        f"Line charts of memory at each task. MiB kept after the first and the last task: {ends}.",
        "Bytes of arrays, counted while running: the network's parameters and what the method "
        "keeps from one task to the next; at the right also what it holds while it learns. "
        "Methods that hold the same share a line.",
    )


def _subsets(section: Section, prefix: str) -> Picture:
    """A few facts along the sequence."""
    return Picture(
        *_both_widths(lambda columns: subsets.subset_curves(section, columns), f"{prefix}-subsets"),
        subsets.in_words(section),
        subsets.CAPTION,
    )


def _sweep(sweep: Sweep, name: str) -> Picture:
    """Strength against accuracy and forgetting."""
    of = sweep.whole.measure
    where = sweep.whole.result.config.get("evaluate_on", "test")
    ends = "; ".join(
        f"{point.label}: {_outcome_in_words(point, named=False)}"
        for point in finished_points(sweep)
    )
    return Picture(
        *_both_widths(lambda columns: strength_curves(sweep, columns), name),
        f"Line charts of {of.average} and forgetting over strength. {ends}.",
        f"{_mean_measure(of)} and forgetting after the last task over the strength with which the "
        f"method holds on to earlier tasks, measured on {where} examples. Bars: 95 % t-interval "
        "over seeds.",
    )


def _mean_measure(of: Measure) -> str:
    """The mean over tasks, at the beginning of a caption; short forms explained."""
    text = of.average if of.short == of.name else f"mean over tasks of {of.name}"
    return text[:1].upper() + text[1:]


def _in_percent(of: Measure) -> str:
    """What the numbers are in, where that is not plain."""
    return ", in percent" if of.factor == 100 else ""


def _outcome_in_words(method: Method, named: bool = True) -> str:
    """A method's headline numbers."""
    found = summary(method.result)
    of = method.measure
    words = f"{of.text(found['average_accuracy'][0])}{of.symbol}"
    if "overall" in found:
        words += f", of all together {of.text(found['overall'][0])}"
    if "forgetting" in found:
        points = " points" if of.points else ""
        words += f", forgetting {of.change(found['forgetting'][0])}{points}"
    return f"{method.label} {words}" if named else words


def _mean_along(method: Method) -> str:
    """A method's mean accuracy over the tasks so far, after each task."""
    _, mean, _ = figures.curves_of(method.accuracy())[-1]
    return f"{method.label} " + ", ".join(map(method.measure.text, mean))


def _final_accuracies(section: Section, method: Method) -> str:
    """A method's mean accuracies after the last task, in words."""
    final = method.accuracy()[:, -1].mean(axis=0)
    pairs = zip(section.tasks, map(section.measure.text, final), strict=True)
    ends = (f"{name} {value}{section.measure.symbol}" for name, value in pairs)
    return f"{method.label}: " + ", ".join(ends)


def _matrix_caption(method: Method) -> str:
    """What a heat map is a mean of."""
    count = len(method.result.seeds)
    return f"{method.label}, mean of {count} seeds" if count > 1 else f"{method.label}, one seed"
