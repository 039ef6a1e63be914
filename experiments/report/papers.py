"""The paper's tables, ours beside the paper's: from the Markdown that an analysis makes to HTML."""

import inspect
import itertools
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from experiments import results
from experiments.report.markup import Markup, column_header, element, join, row_header, table

_RULE = re.compile(r"\|(:?-+:?\|)+")
_PAPER = "paper"

_QUOTED = (
    "Columns and rows that begin with “paper” are quoted from Aljundi et al. (ECCV 2018) and were "
    "not run here; all other numbers are ours, from the runs in this report. "
)
_OURS = "All numbers in it are ours, from the runs in this report. "
_STAND_INS = (
    "Data sets go by their own names: a stand-in (Flowers-17, Scene-15, CUB-10, Stanford-40, say) "
    "is not the paper's set, and was run on another network, at another size. Orders may be "
    "compared, not levels."
)


class Source(NamedTuple):
    """What has a table in the paper's layout.

    Attributes:
      name: of the experiment, or of the group of them.
      members: the experiments of a group, each in a folder of its name; none for an experiment.
      make: makes the tables, in Markdown, of the folder that has the runs; its docstring says how
        they are read.
    """

    name: str
    members: tuple[str, ...]
    make: Callable[[Path], str]


class Printed(NamedTuple):
    """A source's tables of one folder.

    Attributes:
      name: of the experiment or the group.
      folder: below the report's; "." for that itself.
      tasks: the experiment's; none for a group.
      reading: how the tables are read.
      text: the tables in Markdown, with an empty line between.
    """

    name: str
    folder: str
    tasks: tuple[str, ...]
    reading: str
    text: str


def read_all(directory: Path, sources: Sequence[Source]) -> list[Printed]:
    """The tables of every source that has finished runs in `directory` or a folder of its name.

    Raises:
      ValueError: a result is not one of this version (named).
    """
    below = {path.parent.parent for path in directory.rglob(results.FILE_NAME)}
    printed = []
    for source in sources:
        folders = {f.parent for f in below if f.name in source.members} if source.members else below
        for folder in sorted(folders):
            named = folder == directory or folder.name == source.name
            if named and folder.is_relative_to(directory):
                printed += _printed(source, folder, directory)
    return printed


def own_of(printed: Sequence[Printed], experiment: str, tasks: Sequence[str]) -> list[Printed]:
    """Those of one experiment over these tasks."""
    return [each for each in printed if (each.name, each.tasks) == (experiment, tuple(tasks))]


def heading(printed: Printed) -> str:
    """What the tables are of."""
    folder = "" if Path(printed.folder).name in ("", printed.name) else f" ({printed.folder})"
    return f"{printed.name}{folder}, in the paper's layout"


def whose(printed: Printed) -> str:
    """What of the tables is ours, what is the paper's, and on which data sets."""
    heads: list[str] = []
    for grid in map(_grid, _blocks(printed)):
        heads += itertools.chain(*grid[:1], (row[0] for row in grid))
    return f"{_QUOTED if any(map(_is_papers, heads)) else _OURS}{_STAND_INS}"


def papers_tables(printed: Printed) -> Markup:
    """The tables, and what stands between and below them."""
    blocks = _blocks(printed)
    count = sum(bool(_grid(block)) for block in blocks)
    numbers = itertools.count(1)
    parts = []
    for block in blocks:
        if grid := _grid(block):
            # Of several, those below the first may be of ours alone.
            which = f", table {next(numbers)} of {count}" if count > 1 else " in the paper's layout"
            parts.append(_table(f"{printed.name}{which}", grid))
        else:
            parts.append(element("p", block, class_="note"))
    return join(parts)


def _printed(source: Source, folder: Path, directory: Path) -> list[Printed]:
    """The tables of `folder`; none where it has no finished run, or runs of something else."""
    parts = {name: folder / name for name in source.members} or {source.name: folder}
    found = {
        name: results.read_all(part)
        for name, part in parts.items()
        if any(part.rglob(results.FILE_NAME))
    }
    alike = all(
        {(result.experiment, result.tasks) for result in of_part} == {(name, of_part[0].tasks)}
        for name, of_part in found.items()
    )
    every = list(itertools.chain.from_iterable(found.values()))
    if not alike or not any(map(results.finished, every)):
        return []
    tasks = () if source.members else every[0].tasks
    reading = inspect.getdoc(source.make) or ""
    place = folder.relative_to(directory).as_posix()
    return [Printed(source.name, place, tasks, reading, _made(source, folder))]


def _made(source: Source, folder: Path) -> str:
    """The tables, or why there are none: a report shows what there is."""
    try:
        return source.make(folder)
    except ValueError as error:
        return f"There is no table: {error}."


def _blocks(printed: Printed) -> list[str]:
    """What stands between empty lines."""
    return [block for block in printed.text.split("\n\n") if block]


def _grid(block: str) -> list[list[str]]:
    """The cells of a table, the headings first; [] where `block` is none.

    They are cut where the line below the headings is, as our tables are aligned: a name may have
    a | in it.
    """
    lines = block.split("\n")
    if len(lines) < 2 or not _RULE.fullmatch(lines[1]):
        return []
    edges = [place for place, character in enumerate(lines[1]) if character == "|"]
    return [
        [line[begin + 1 : end].strip() for begin, end in itertools.pairwise(edges)]
        for line in (lines[0], *lines[2:])
    ]


def _is_papers(cell: str) -> bool:
    """Whether it heads numbers of the paper."""
    return cell.startswith(_PAPER)


def _table(caption: str, grid: Sequence[Sequence[str]]) -> Markup:
    """A table whose columns and rows of the paper's are fainter than ours."""
    heads, *rows = grid
    written = [
        element(
            "tr",
            row_header(name),
            [
                element("td", cell, class_="published" if _is_papers(head) else None)
                for head, cell in zip(heads[1:], cells, strict=True)
            ],
            class_="published" if _is_papers(name) else None,
        )
        for name, *cells in rows
    ]
    return table(caption, [[column_header(head) for head in heads]], written)
