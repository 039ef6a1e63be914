"""The pictures of a section as PNG files, with the words that stand for them."""

import io
import re
import struct
from collections.abc import Callable
from typing import NamedTuple

import matplotlib.style
from matplotlib.figure import Figure

from experiments.report import figures, looks
from experiments.report.importance import importance_bars, parameters
from experiments.report.sections import Method, Section


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
    """All pictures of a section."""

    sequence: Picture
    matrices: tuple[Picture, ...]
    importance: Picture | None


def section_pictures(section: Section, prefix: str) -> SectionPictures | None:
    """Draw everything; None for a section without a finished seed."""
    if not section.finished:
        return None
    return SectionPictures(
        _sequence(section, prefix),
        _matrices(section, prefix),
        _importance(section, prefix) if parameters(section) else None,
    )


def files(pictures: SectionPictures | None) -> list[Png]:
    """Every file of a section's pictures."""
    if pictures is None:
        return []
    every = [pictures.sequence, *pictures.matrices, pictures.importance]
    pairs = [(picture.wide, picture.narrow) for picture in every if picture is not None]
    return [png for pair in pairs for png in pair if png is not None]


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


def _both_widths(draw: Callable[[Section, int], Figure], section: Section, name: str) -> list[Png]:
    """A picture of panels for the desk and for the phone."""
    wide = render(draw(section, 3), f"{name}.png")
    return [wide, render(draw(section, 2), f"{name}-narrow.png")]


def _sequence(section: Section, prefix: str) -> Picture:
    """Each task's accuracy along the sequence."""
    wide, narrow = _both_widths(figures.accuracy_along_sequence, section, f"{prefix}-sequence")
    ends = "; ".join(_final_accuracies(section, method) for method in section.finished)
    return Picture(
        wide,
        narrow,
        f"Line charts, one per task: its accuracy after each task from when it is learned. "
        f"At the end of the sequence: {ends}.",
        "Each task's accuracy from when it is learned to the end of the sequence (grey: not "
        "learned yet), and the mean over the tasks learned so far. Bands: 95 % t-interval over "
        "seeds.",
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
            f"Heat map of the accuracy matrix of {_final_accuracies(section, method)}.",
            _matrix_caption(method),
        )
        for number, method in enumerate(section.finished, start=1)
    )


def _importance(section: Section, prefix: str) -> Picture:
    """The histograms of Ω."""
    wide, narrow = _both_widths(figures.importance_histograms, section, f"{prefix}-importance")
    shares = "; ".join(
        f"{method.label}, {name}: {100 * importance_bars(method, name).zero_share:.1f} % zeros"
        for method in section.finished
        for name in parameters(section, method)
    )
    return Picture(
        wide,
        narrow,
        f"Histograms of the importance of each parameter's values, on a log scale. {shares}.",
        "How many values of each parameter have which importance Ω at the end of the sequence, "
        "four bins per decade, counts summed over seeds. Exact zeros are in no bin; their share "
        "is written in each panel.",
    )


def _final_accuracies(section: Section, method: Method) -> str:
    """A method's mean accuracies after the last task, in words."""
    final = method.accuracy()[:, -1].mean(axis=0)
    pairs = zip(section.tasks, final, strict=True)
    return f"{method.label}: " + ", ".join(f"{name} {100 * value:.2f} %" for name, value in pairs)


def _matrix_caption(method: Method) -> str:
    """What a heat map is a mean of."""
    count = len(method.result.seeds)
    return f"{method.label}, mean of {count} seeds" if count > 1 else f"{method.label}, one seed"
