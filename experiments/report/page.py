"""The page: sections of words, tables and pictures, in one HTML file."""

import base64
import inspect
import textwrap
from collections.abc import Sequence

from experiments.report import provenance, tables
from experiments.report.markup import Markup, element, join
from experiments.report.pictures import Picture, Png, SectionPictures
from experiments.report.sections import Section
from experiments.report.stylesheet import STYLESHEET

# Nothing is fetched and nothing runs, whatever the names in the results may be.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"

_DEFINITIONS = (
    "Mean over seeds ± half-width of the 95 % Student t-interval. Average accuracy is the mean "
    "over all tasks after the last one. Forgetting is, for each task but the last, its best "
    "accuracy before the last task minus its final one, averaged. Backward transfer is final "
    "accuracy minus accuracy when the task was learned, averaged. Bold: best of the methods run "
    "here. Published numbers are quoted from their source, not run here, and may average "
    "forgetting in another way (some print minus the backward transfer)."
)


def page(drawn: Sequence[tuple[Section, SectionPictures | None]]) -> str:
    """The whole page as HTML.

    Args:
      drawn: the sections, each with its pictures (None where no seed has finished).
    """
    title = "Tasks in sequence: " + ", ".join(
        dict.fromkeys(section.experiment for section, _ in drawn)
    )
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
        _header(drawn),
        element(
            "main",
            [_section(n, section, pictures) for n, (section, pictures) in enumerate(drawn, 1)],
        ),
    )
    return "<!doctype html>\n" + element("html", head, "\n", body, lang="en") + "\n"


def _header(drawn: Sequence[tuple[Section, SectionPictures | None]]) -> Markup:
    """The page's title, and links where there is more than one section."""
    links = [
        element("li", element("a", _heading(section), href=f"#experiment-{number}"))
        for number, (section, _) in enumerate(drawn, start=1)
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


def _section(number: int, section: Section, pictures: SectionPictures | None) -> Markup:
    """One experiment."""
    return element(
        "section",
        element("h2", _heading(section), id=f"experiment-{number}"),
        _description(section.description),
        element("p", element("strong", "Tasks, in order: "), " → ".join(section.tasks)),
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
    parts = [
        element("h3", "Results"),
        _unfinished_note(section),
        tables.results_table(section),
        element("p", _DEFINITIONS, class_="note"),
    ]
    if pictures is None:
        return join(parts)
    parts += [
        element("h3", "Each task along the sequence"),
        _figure(pictures.sequence),
        element("h3", "Accuracy matrices"),
        element(
            "p",
            "Row: after learning this task. Column: accuracy on that task, in percent, mean over "
            "seeds. Grey: not learned yet at that time. The colours follow the logarithm of the "
            "error, which keeps 99 and 99.5 % apart, and mean the same in all of these pictures.",
        ),
        _side_by_side(pictures.matrices),
    ]
    if pictures.importance is not None:
        parts += [
            element("h3", "Importance of the parameters"),
            _figure(pictures.importance),
            tables.zeros_table(section),
        ]
    return join(parts)


def _unfinished_note(section: Section) -> Markup | None:
    """Names the seeds that are left out."""
    unfinished = [
        f"{method.label}: {', '.join(map(str, method.unfinished))}"
        for method in section.methods
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
    if section.finished:
        parts += [provenance.times_table(section), tables.seeds_table(section)]
    return join(parts)


def _figure(picture: Picture) -> Markup:
    """A picture with its caption; the narrow version where the screen is narrow."""
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
