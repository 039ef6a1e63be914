"""The page: sections of words, tables and pictures, in one HTML file."""

import base64
import inspect
import itertools
import textwrap
from collections.abc import Sequence

from experiments.measures import MAP, Measure
from experiments.report import papers, provenance, tables
from experiments.report.markup import Markup, element, join
from experiments.report.memory import memory_table
from experiments.report.pairs import Pairs, pairs_table
from experiments.report.pictures import Picture, Png, SectionPictures
from experiments.report.projections import Projections, distances_table
from experiments.report.sections import FEW, Section
from experiments.report.strength import strength_table
from experiments.report.stylesheet import STYLESHEET
from experiments.report.subsets import subset_table

# Nothing is fetched and nothing runs, whatever the names in the results may be.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"

_DEFINITIONS = (
    "Mean over seeds ± half-width of the 95 % Student t-interval. {meaning}Average {short} is the "
    "mean over all tasks after the last one. Forgetting is, for each task but the last, its best "
    "{short} before the last task minus its final one, averaged. Backward transfer is final "
    "{short} minus {short} when the task was learned, averaged. Bold: best of the methods run "
    "here. Published numbers are quoted from their source, not run here, and may average "
    "forgetting in another way (some print minus the backward transfer)."
)

_MEANING = {
    MAP: "Mean average precision (MAP), a fraction, says how well pictures are found by their "
    "facts: each fact ranks pictures, those of its own task, or where it says all facts, all. "
}

_MATRICES = (
    "Row: after learning this task. Column: {what}, mean over "
    "seeds. Grey: not learned yet at that time. The colours follow the logarithm of "
    "{error}, and mean the same in all of these pictures."
)


def page(
    drawn: Sequence[tuple[Section, SectionPictures | None]],
    pairs: Sequence[tuple[Pairs, Picture | None]] = (),
    projections: Sequence[tuple[Projections, Picture | None]] = (),
    printed: Sequence[papers.Printed] = (),
) -> str:
    """The whole page as HTML.

    Args:
      drawn: the sections, each with its pictures (None where no seed has finished).
      pairs: importances against each other, each with its picture.
      projections: facts before and after other tasks, likewise.
      printed: tables in the paper's layout, of experiments among `drawn` and of groups of them.
    """
    groups = [each for each in printed if not each.tasks]
    names = [found.experiment for found, _ in (*drawn, *pairs, *projections)]
    title = "Tasks in sequence: " + ", ".join(dict.fromkeys(names))
    numbers = itertools.count(1)
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("title", title),
        element("style", Markup(STYLESHEET)),
    )
    body = element(
        "body",
        _header(
            [
                *map(papers.heading, groups),
                *(_heading(section) for section, _ in drawn),
                *(_pairs_heading(found) for found, _ in pairs),
                *(_projections_heading(found) for found, _ in projections),
            ]
        ),
        element(
            "main",
            [_group_section(next(numbers), group) for group in groups],
            [_section(next(numbers), *of_section, printed) for of_section in drawn],
            [_pairs_section(next(numbers), *of_file) for of_file in pairs],
            [_projections_section(next(numbers), *of_file) for of_file in projections],
        ),
    )
    return "<!doctype html>\n" + element("html", head, "\n", body, lang="en") + "\n"


def _header(headings: Sequence[str]) -> Markup:
    """The page's title, and links where there is more than one section."""
    links = [
        element("li", element("a", heading, href=f"#experiment-{number}"))
        for number, heading in enumerate(headings, start=1)
    ]
    return element(
        "header",
        element("p", "mas_jax report", class_="eyebrow"),
        element("h1", "Learning tasks in sequence"),
        element(
            "p",
            "What networks still know of earlier tasks after learning later ones. Every number "
            "and picture here is made from the result files of the runs alone.",
            class_="lead",
        ),
        element("nav", element("ul", links), aria_label="Experiments") if len(links) > 1 else None,
    )


def _group_section(number: int, group: papers.Printed) -> Markup:
    """The table of a group of experiments, each of which has a section too."""
    return element(
        "section",
        element("h2", papers.heading(group), id=f"experiment-{number}"),
        _as_printed(group),
        aria_labelledby=f"experiment-{number}",
    )


def _as_printed(printed: papers.Printed) -> Markup:
    """How tables in the paper's layout are read, whose their numbers are, and the tables."""
    return join(
        [
            _description(printed.reading),
            element("p", papers.whose(printed), class_="note"),
            papers.papers_tables(printed),
        ]
    )


def _section(
    number: int,
    section: Section,
    pictures: SectionPictures | None,
    printed: Sequence[papers.Printed],
) -> Markup:
    """One experiment; its tables in the paper's layout, if it has any, are among `printed`."""
    own = papers.own_of(printed, section.experiment, section.tasks)
    return element(
        "section",
        element("h2", _heading(section), id=f"experiment-{number}"),
        _description(section.description),
        element("p", element("strong", "Tasks, in order: "), " → ".join(section.tasks)),
        [(element("h3", papers.heading(each)), _as_printed(each)) for each in own],
        _outcome(section, pictures),
        _how_it_was_made(section),
        aria_labelledby=f"experiment-{number}",
    )


def _description(text: str) -> Markup:
    """A docstring's paragraphs; what is indented in it (lists, commands) keeps its lines."""
    blocks = [block.strip("\n") for block in inspect.cleandoc(text).split("\n\n")]
    return join(
        element("pre", textwrap.dedent(block)) if "\n " in f"\n{block}" else element("p", block)
        for block in blocks
        if block
    )


def _heading(section: Section) -> str:
    """The section's title."""
    count = len(section.tasks)
    return f"{section.experiment}, {count} tasks" if count > 1 else f"{section.experiment}, 1 task"


def _outcome(section: Section, pictures: SectionPictures | None) -> Markup:
    """Tables and pictures of what came out."""
    parts = [_unfinished_note(section)]
    if section.methods:
        parts += [
            element("h3", "Results"),
            tables.results_table(section),
            element("p", _definitions(section.measure), class_="note"),
        ]
    if section.finished and pictures is not None:
        parts += [_figure(pictures.outcomes), _along_the_sequence(section, pictures)]
    if pictures is not None and pictures.subsets is not None:
        heading = element("h3", "A few facts along the sequence")
        parts += [heading, _figure(pictures.subsets), subset_table(section)]
    if pictures is not None and pictures.memory is not None:
        parts += [element("h3", "Memory"), _figure(pictures.memory), memory_table(section)]
    if pictures is not None and pictures.importance is not None:
        parts += [
            element("h3", "Importance of the parameters"),
            _figure(pictures.importance),
            tables.zeros_table(section),
        ]
    drawn = pictures.sweeps if pictures is not None else [None] * len(section.sweeps)
    for sweep, picture in zip(section.sweeps, drawn, strict=True):
        parts += [
            element("h3", sweep.whole.label),
            _figure(picture),
            strength_table(sweep),
        ]
    return join(parts)


def _along_the_sequence(section: Section, pictures: SectionPictures) -> Markup:
    """Accuracy after each task, and as matrices."""
    many = len(section.finished) > FEW
    matrices = [_figure(p) for p in pictures.matrices] if many else _side_by_side(pictures.matrices)
    short = section.measure.short
    heading = "Each method along the sequence" if many else "Each task along the sequence"
    return join(
        [
            element("h3", heading),
            _figure(pictures.sequence),
            element("h3", f"{short[:1].upper()}{short[1:]} matrices"),
            element("p", _matrices(section.measure)),
            matrices,
        ]
    )


def _definitions(of: Measure) -> str:
    """What the columns of the results mean."""
    return _DEFINITIONS.format(meaning=_MEANING.get(of, ""), short=of.short)


def _matrices(of: Measure) -> str:
    """How to read the matrices."""
    in_percent = of.factor == 100
    return _MATRICES.format(
        what=f"{of.name} on that task" + (", in percent" if in_percent else ""),
        error="the error, which keeps 99 and 99.5 % apart" if in_percent else of.error,
    )


def _unfinished_note(section: Section) -> Markup | None:
    """Names the seeds that are left out."""
    unfinished = [
        f"{method.label}: {', '.join(map(str, method.unfinished))}"
        for method in section.made
        if method.unfinished
    ]
    if not unfinished:
        return None
    text = "These seeds have not reached the last task and are left out: "
    return element(
        "p", element("strong", "Unfinished. "), text, "; ".join(unfinished), ".", class_="warning"
    )


def _how_it_was_made(section: Section) -> Markup:
    """What is needed to make the numbers again."""
    parts = [
        element("h3", "How it was made"),
        provenance.commands(section),
        provenance.seeds_list(section),
        element(
            "div",
            provenance.settings_table(section),
            provenance.environment_table(section),
            class_="tables",
        ),
    ]
    if any(method.finished for method in section.made):
        parts.append(provenance.times_table(section))
    if section.finished:
        parts.append(tables.seeds_table(section))
    return join(parts)


def _pairs_heading(found: Pairs) -> str:
    """The title of a section about one importance against another."""
    return f"{found.experiment}, importance from other data"


def _pairs_section(number: int, found: Pairs, picture: Picture | None) -> Markup:
    """One file of pairs."""
    return _file_section(number, _pairs_heading(found), found, picture, pairs_table(found))


def _projections_heading(found: Projections) -> str:
    """The title of a section about facts before and after other tasks."""
    return f"{found.experiment}, pictures before and after"


def _projections_section(number: int, found: Projections, picture: Picture | None) -> Markup:
    """One file of projections."""
    heading = _projections_heading(found)
    return _file_section(number, heading, found, picture, distances_table(found))


def _file_section(
    number: int, heading: str, found: Pairs | Projections, picture: Picture | None, rows: Markup
) -> Markup:
    """What an analysis has written into a file."""
    return element(
        "section",
        element("h2", heading, id=f"experiment-{number}"),
        _description(found.description),
        _figure(picture),
        rows,
        element("h3", "How it was made"),
        element("pre", element("code", found.command), tabindex=0),
        element("p", f"seed: {found.seed}"),
        provenance.values_table("Versions and machine", found.versions, found.machine),
        aria_labelledby=f"experiment-{number}",
    )


def _figure(picture: Picture | None) -> Markup | None:
    """A picture with its caption; the narrow version where the screen is narrow."""
    if picture is None:
        return None
    image = element(
        "img",
        src=_data_uri(picture.wide),
        alt=picture.alternative,
        width=picture.wide.width,
        height=picture.wide.height,
    )
    if picture.narrow is not None:
        narrow = element(
            "source",
            media="screen and (max-width: 640px)",
            srcset=_data_uri(picture.narrow),
            width=picture.narrow.width,
            height=picture.narrow.height,
        )
        image = element("picture", narrow, image)
    return element("figure", image, element("figcaption", picture.caption))


def _side_by_side(pictures: Sequence[Picture]) -> Markup:
    """Pictures of one size in as many columns as the screen has room for."""
    return element(
        "div",
        [_figure(picture) for picture in pictures],
        class_="side-by-side",
        style=f"--picture: {pictures[0].wide.width}px",
    )


def _data_uri(png: Png) -> str:
    """The picture itself, as an address."""
    return "data:image/png;base64," + base64.b64encode(png.content).decode("ascii")
