"""What is in a run's folder or a store, what is damaged, and what to do; nothing is changed."""

import dataclasses
import json
import re
from collections.abc import Iterator
from pathlib import Path

from experiments import bookmark, checkpoint, files, results, runs, sequence
from experiments.doctor_stores import in_store, is_store
from experiments.findings import Finding, leftover, unreadable
from experiments.methods import METHODS
from experiments.results import Result, SeedRecord
from mas_jax import AnchorStore


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
        yield from _in_seed(folder)
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
        except (ValueError, TypeError) as error:
            yield Finding("damaged", settings, f"it is no JSON of ours ({error})", copy)
        except OSError as error:
            yield unreadable(settings, error)
    try:
        result = _result(file)
    except ValueError as error:
        advice = (
            "remove it and give the run's command again, which writes it from the seeds' states"
        )
        yield Finding("damaged", file, str(error), advice)
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
    except (ValueError, OSError):
        return  # told of already
    if held != result.config:
        yield Finding(
            "damaged", settings, f"it is not what {results.FILE_NAME} was made with", copy
        )


def _result(file: Path) -> Result | None:
    """The run's result, None before there is one."""
    return results.read(file) if file.exists() else None


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


def _in_seed(folder: Path) -> Iterator[Finding]:
    """The states of one seed."""
    again = f"remove {folder} to learn that seed again from the start; nothing else is affected"
    try:
        stored = checkpoint.load(folder / sequence.STATE_FILE)
    except OSError as error:
        yield unreadable(folder / sequence.STATE_FILE, error)
        return
    except Exception as error:  # what is in a damaged file may raise nearly anything
        yield Finding("damaged", folder / sequence.STATE_FILE, f"{error}", again)
        return
    told = _told(folder)
    tasks = len(stored.record.accuracy) if stored else 0
    if (folder / bookmark.FILE).exists():
        yield _within_task(folder / bookmark.FILE, tasks)
    if stored is None and told is not None:
        text = f"it is gone, and {results.FILE_NAME} has tasks that were learned with it"
        yield Finding("damaged", folder / sequence.STATE_FILE, text, f"put it back, or {again}")
        return
    if stored is None:
        yield Finding("note", folder, "no task is finished yet", "give the run's command again")
        return
    record = stored.record
    if folder.name != f"seed_{record.seed}":
        text = f"it is that of seed {record.seed}"
        yield Finding("damaged", folder / sequence.STATE_FILE, text, f"put it back, or {again}")
    elif told is not None and len(told.accuracy) == tasks and _plain(told) != _plain(record):
        text = f"the numbers of seed {record.seed} are not those of its state"
        advice = f"remove {results.FILE_NAME} and give the run's command again, which writes it"
        yield Finding("damaged", folder.parent / results.FILE_NAME, text, advice)
    names = _task_names(folder)
    is_finished = len(record.accuracy) == len(names)
    yield Finding("well", folder, f"tasks learned: {len(record.accuracy)} of {len(names) or '?'}")
    kept = [folder / f"memory_{tasks - 1}.msgpack", *folder.glob("*/")]
    if not is_finished and not any(path.exists() for path in kept):
        text = f"what the method keeps after its task number {tasks} is gone"
        yield Finding("damaged", folder, text, again)
    else:
        yield from _missing_anchors(folder, record, names, again)
    for path in sorted(folder.glob("*.msgpack")):
        if path.name not in (sequence.STATE_FILE, bookmark.FILE):
            yield from _in_tree(path, record, is_finished, again)


def _task_names(folder: Path) -> tuple[str, ...]:
    """The tasks of the run that a seed's folder belongs to; none where it is not known."""
    try:
        result = _result(folder.parent / results.FILE_NAME)
    except (ValueError, OSError):
        return ()
    return result.tasks if result else ()


def _missing_anchors(
    folder: Path, record: SeedRecord, names: tuple[str, ...], again: str
) -> Iterator[Finding]:
    """What the method of a seed's run keeps of each task in stores, and is not there."""
    learned = names[: len(record.accuracy)]
    for name in _stores(folder):
        entries = AnchorStore(folder / name).examine().entries
        if any(entry.task is None for entry in entries):
            continue  # it may be the one with that name, and is told of already
        held = [entry.task for entry in entries]
        if missing := [task for task in learned if task not in held]:
            # To go on, a run wants the anchor of the task learned last.
            is_needed = learned[-1] in missing and len(learned) < len(names)
            use = "which the run needs to go on" if is_needed else "which the run needs no more"
            text = f"{name} has no anchor of {', '.join(map(repr, missing))}, {use}"
            yield Finding("damaged", folder, text, f"put a copy back, or {again}")


def _stores(folder: Path) -> tuple[str, ...]:
    """The names of the stores that a seed's folder has, by its method, if that is known."""
    try:
        settings = json.loads(files.read(folder.parent / runs.SETTINGS_FILE))
        return METHODS[settings["method"]["name"]].stores
    except (ValueError, TypeError, KeyError, OSError):
        return ()


def _told(folder: Path) -> SeedRecord | None:
    """What the run's result says of the seed of `folder`, if anything can be read there."""
    try:
        result = _result(folder.parent / results.FILE_NAME)
    except (ValueError, OSError):
        return None
    of_seed = {f"seed_{record.seed}": record for record in result.seeds} if result else {}
    return of_seed.get(folder.name)


def _plain(record: SeedRecord) -> str:
    """A record as it is written, in which a loss that is no number equals itself."""
    return json.dumps(dataclasses.asdict(record))


def _within_task(path: Path, learned: int) -> Finding:
    """Where a run that has learned so many tasks is within the next one."""
    try:
        task, epochs, chunks = bookmark.place(path)
    except OSError as error:
        return unreadable(path, error)
    except Exception as error:  # what is in a damaged file may raise nearly anything
        text = f"it is not what was written ({type(error).__name__})"
        advice = (
            "give the run's command again, which removes this file and learns the task it is at "
            "from its start; nothing else is lost"
        )
        return Finding("damaged", path, text, advice)
    if task != learned:
        text = f"within task number {task + 1}, which is not the one after those learned"
        return Finding("note", path, text, "nothing: the run's next start removes it")
    measured = f", parts of importance measured: {chunks}" if chunks else ""
    text = f"within task number {task + 1}; epochs learned: {epochs}{measured}"
    return Finding("note", path, text, "give the run's command again, which goes on from here")


def _in_tree(path: Path, record: SeedRecord, is_finished: bool, again: str) -> Iterator[Finding]:
    """A file that `checkpoint.save_tree` wrote."""
    try:
        checkpoint.load_tree(path)
        return
    except OSError as error:
        yield unreadable(path, error)
        return
    except Exception as error:  # what is in a damaged file may raise nearly anything
        text = f"it is not what was written ({type(error).__name__})"
    of_task = re.fullmatch(r"memory_(\d+)\.msgpack", path.name)
    if of_task is None:
        advice = "remove this file: the run goes on after the last finished task"
        yield Finding("damaged", path, text, advice)
    elif is_finished or int(of_task[1]) != len(record.accuracy) - 1:
        yield Finding("note", path, f"{text}, and not needed any more", "remove it")
    else:
        yield Finding("damaged", path, text, again)
