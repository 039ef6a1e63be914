"""What is in a run's folder or a store, what is damaged, and what to do; nothing is changed."""

import json
from collections.abc import Iterator
from pathlib import Path

from experiments import results, runs, sequence
from experiments.doctor_seeds import in_seed, result_in
from experiments.doctor_stores import in_store, is_store
from experiments.findings import Finding, leftover, unreadable
from experiments.results import Result


def examine(directory: Path) -> list[Finding]:
    """Everything below `directory` that an experiment or a store wrote, in the folders' order.

    Raises:
      FileNotFoundError: there is nothing of the kind.
    """
    if not directory.is_dir():
        raise FileNotFoundError(
            f"{directory} is no folder: wanted that of a run (its --out) or of an AnchorStore"
        )
    found = [finding for folder in _folders(directory) for finding in _in_folder(folder)]
    if not found:
        raise FileNotFoundError(
            f"nothing in {directory} is from a run or an AnchorStore: wanted the folder that a "
            "run was given as --out, or that of a store"
        )
    return found


def _folders(folder: Path) -> Iterator[Path]:
    """`folder` and those below it; a store's inside is the store's own."""
    yield folder
    if not is_store(folder):
        for child in sorted(folder.iterdir()):
            if child.is_dir() and not child.is_symlink():
                yield from _folders(child)


def _in_folder(folder: Path) -> Iterator[Finding]:
    """What is found in one folder itself."""
    if is_store(folder):
        yield from in_store(folder)
        return
    if any((folder / name).exists() for name in (runs.SETTINGS_FILE, results.FILE_NAME)) or any(
        folder.glob("seed_*/*")
    ):
        yield from _in_run(folder)
    elif folder.name.startswith("seed_") or (folder / sequence.STATE_FILE).exists():
        yield from in_seed(folder)
    for path in sorted(folder.glob("*.tmp")):
        yield leftover(path)


def _in_run(folder: Path) -> Iterator[Finding]:
    """The settings and the result of a method's run."""
    settings, file = folder / runs.SETTINGS_FILE, folder / results.FILE_NAME
    copy = f'put a copy back; the entry "config" of a whole {results.FILE_NAME} is the same'
    if not settings.exists():
        yield Finding("damaged", settings, "it is gone: nobody knows what this is a run of", copy)
    else:
        try:
            dict(json.loads(settings.read_text(encoding="utf-8")))
        except (ValueError, TypeError, RecursionError) as error:
            yield Finding("damaged", settings, f"it is no JSON of ours ({error})", copy)
        except OSError as error:
            yield unreadable(settings, error)
    try:
        result = result_in(folder)
    except ValueError as error:
        yield Finding("damaged", file, str(error))
    except OSError as error:
        yield unreadable(file, error)
    else:
        yield Finding("well", folder, _progress(result))
        if result is not None and settings.exists():
            yield from _other_settings(settings, result, copy)


def _other_settings(settings: Path, result: Result, copy: str) -> Iterator[Finding]:
    """Settings that are not those of the result beside them."""
    try:
        held = json.loads(settings.read_text(encoding="utf-8"))
    except (ValueError, OSError, RecursionError):
        return  # told of already
    if held != result.config:
        yield Finding(
            "damaged", settings, f"it is not what {results.FILE_NAME} was made with", copy
        )


def _progress(result: Result | None) -> str:
    """How far a run has come."""
    if result is None:
        return "a run that has written no result yet"
    done = len(results.finished(result))
    return (
        f"a run of {_shown(result.method)} in {_shown(result.experiment)}; seeds that learned all "
        f"{len(result.tasks)} tasks: {done} of {len(result.seeds)} begun"
    )


def _shown(name: str) -> str:
    """A name out of a file, without what a terminal would obey."""
    return name if name.isprintable() else repr(name)
