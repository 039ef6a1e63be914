"""From a folder of results to a page and its pictures."""

from pathlib import Path

from experiments import results
from experiments.report.page import page
from experiments.report.pictures import files, section_pictures, slug
from experiments.report.sections import sections


def write_report(directory: Path, out: Path | None = None) -> Path:
    """Make the page and the pictures of every result below `directory`.

    The page is one file that needs nothing else: pictures and style are inside it. The same
    pictures lie beside it as PNG files. The same results give the same bytes.

    Args:
      directory: where `python -m experiments` wrote its results, at any depth.
      out: the folder to write into, made if need be; `directory`/report by default.

    Returns:
      The page's path, `out`/index.html.

    Raises:
      FileNotFoundError: there is no result below `directory`.
      ValueError: a file is not a result of this version (named), or does not hold together.
    """
    parts = sections(results.read_all(directory))
    drawn = [
        (section, section_pictures(section, f"{number}-{slug(section.experiment)}"))
        for number, section in enumerate(parts, start=1)
    ]
    out = directory / "report" if out is None else out
    out.mkdir(parents=True, exist_ok=True)
    for _, pictures in drawn:
        for png in files(pictures):
            (out / png.file_name).write_bytes(png.content)
    path = out / "index.html"
    path.write_text(page(drawn), encoding="utf-8")
    return path
