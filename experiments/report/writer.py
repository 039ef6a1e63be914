"""From a folder of results to a page and its pictures."""

import itertools
from collections.abc import Sequence
from pathlib import Path

from experiments import results
from experiments.methods import METHODS
from experiments.report import pairs, papers, projections
from experiments.report.page import page
from experiments.report.pictures import (
    files,
    pairs_picture,
    projections_picture,
    section_pictures,
    slug,
)
from experiments.report.sections import sections


def write_report(
    directory: Path, out: Path | None = None, sources: Sequence[papers.Source] = ()
) -> Path:
    """Make the page and the pictures of every result below `directory`.

    Tables in the paper's layout stand first in their experiment's section; those of a group have
    a section of their own, before all others.

    Files of pairs (`experiments.analyses.importance_data`) and of projections
    (`experiments.analyses.fact_embeddings`) have sections of their own, after those.

    The page is one file that needs nothing else: pictures and style are inside it. The same
    pictures lie beside it as PNG files. The same results give the same bytes.

    Args:
      directory: where `python -m experiments` wrote its results, at any depth.
      out: the folder to write into, made if need be; `directory`/report by default.
      sources: the experiments, and groups of them, that have such tables.

    Returns:
      The page's path, `out`/index.html.

    Raises:
      FileNotFoundError: there is no result and no such file below `directory`.
      ValueError: a file is not one of this version (named), or does not hold together.
    """
    compared, projected = pairs.read_all(directory), projections.read_all(directory)
    alone = (compared or projected) and not any(directory.rglob(results.FILE_NAME))
    parts = sections([] if alone else results.read_all(directory, tuple(METHODS)))
    printed = papers.read_all(directory, sources)
    # Those without tasks are of groups, whose sections have no pictures and come first.
    numbers = itertools.count(1 + sum(not each.tasks for each in printed))
    drawn = [
        (section, section_pictures(section, f"{next(numbers)}-{slug(section.experiment)}"))
        for section in parts
    ]
    scattered = [
        (found, pairs_picture(found, f"{next(numbers)}-{slug(found.experiment)}"))
        for found in compared
    ]
    placed = [
        (found, projections_picture(found, f"{next(numbers)}-{slug(found.experiment)}"))
        for found in projected
    ]
    out = directory / "report" if out is None else out
    out.mkdir(parents=True, exist_ok=True)
    for _, pictures in [*drawn, *scattered, *placed]:
        for png in files(pictures):
            (out / png.file_name).write_bytes(png.content)
    path = out / "index.html"
    path.write_text(page(drawn, scattered, placed, printed), encoding="utf-8")
    return path
