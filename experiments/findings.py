"""What a look at files on disk found, for `experiments.doctor`, and how it is told."""

from pathlib import Path
from typing import Literal, NamedTuple

from experiments import files


class Finding(NamedTuple):
    """One thing found: whole, a leftover or a note, or damaged."""

    kind: Literal["well", "note", "damaged"]
    path: Path
    text: str
    advice: str = ""  # what to do about it; none where nothing is to be done


def leftover(path: Path) -> Finding:
    """A file or folder that was not whole when its process ended, if it has ended."""
    writer = files.writer_of(path)
    if files.is_alive(writer):
        return Finding("note", path, f"process {writer} is writing it", "let it finish")
    text = "a process that was killed left it half written"
    return Finding("note", path, text, "remove it, when no run is using the folder")


def unreadable(path: Path, error: OSError) -> Finding:
    """What the machine does not let us read."""
    advice = "look at the disk and at who may read it, then ask again"
    return Finding("damaged", path, f"it cannot be read: {error}", advice)


def as_text(findings: list[Finding]) -> str:
    """The findings in lines, and what they come to."""
    lines = []
    for kind, path, text, advice in findings:
        lines.append(f"{kind:8} {path}: {text}")
        if advice:
            lines.append(f"{'':8} what to do: {advice}")
    damaged = sum(finding.kind == "damaged" for finding in findings)
    return "\n".join([*lines, "", f"damaged: {damaged}" if damaged else "all is well"])
