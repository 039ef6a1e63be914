"""What is in a run's folder or a store, what is damaged, and what to do; nothing is changed."""

import dataclasses
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

from experiments import bookmark, checkpoint, files, results, runs, sequence
from experiments.results import Result, SeedRecord
from mas_jax import AnchorStore, MasJaxError

UNREADABLE = "look at the disk and at who may read it, then ask again"


class Finding(NamedTuple):
    """One thing found: whole, a leftover or a note, or damaged."""

    kind: Literal["well", "note", "damaged"]
    path: Path
    text: str
    advice: str = ""  # what to do about it; none where nothing is to be done


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
    if not _is_store(folder):
        for child in sorted(folder.iterdir()):
            if child.is_dir() and not child.is_symlink():
                yield from _folders(child)


def _is_store(folder: Path) -> bool:
    """Whether an AnchorStore has its entries there."""
    parts = ("metadata", "anchor", "_CHECKPOINT_METADATA")
    return (folder / ".lock").exists() or any(
        child.name.isdecimal() and any((child / part).exists() for part in parts)
        for child in folder.iterdir()
    )


def _in_folder(folder: Path) -> Iterator[Finding]:
    """What is found in one folder itself."""
    if _is_store(folder):
        yield from _in_store(folder)
        return
    if any((folder / name).exists() for name in (runs.SETTINGS_FILE, results.FILE_NAME)) or any(
        folder.glob("seed_*/*")
    ):
        yield from _in_run(folder)
    elif folder.name.startswith("seed_") or (folder / sequence.STATE_FILE).exists():
        yield from _in_seed(folder)
    for path in sorted(folder.glob("*.tmp")):
        yield _leftover(path)


def _in_store(folder: Path) -> Iterator[Finding]:
    """The condition of a store."""
    condition = AnchorStore(folder).examine()
    whole = [repr(entry.task) for entry in condition.entries if entry.error is None]
    for entry in condition.entries:
        if isinstance(entry.error, MasJaxError):
            yield Finding("damaged", folder / entry.folder, str(entry.error))
        elif entry.error is not None:
            yield _unreadable(folder / entry.folder, entry.error)
    names = f": {', '.join(whole)}" if whole else ""
    yield Finding("well", folder, f"a store of anchors, whole ones {len(whole)}{names}")
    for name in condition.leftovers:
        text = "a writer that was killed, or is at work, left it half done"
        yield Finding("note", folder / name, text, "nothing: the next save or delete removes it")
    if condition.writer is not None:
        gone = "not run any more" in condition.writer
        advice = "nothing: a lock ends with its process" if gone else "let it finish"
        yield Finding("note", folder, f"the lock was signed by {condition.writer}", advice)


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
            yield _unreadable(settings, error)
    try:
        result = _result(file)
    except ValueError as error:
        advice = (
            "remove it and give the run's command again, which writes it from the seeds' states"
        )
        yield Finding("damaged", file, str(error), advice)
    except OSError as error:
        yield _unreadable(file, error)
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
        yield _unreadable(folder / sequence.STATE_FILE, error)
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
    if not is_finished and (missing := _missing_memory(folder, record, names)):
        yield Finding("damaged", folder, missing, again)
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


def _missing_memory(folder: Path, record: SeedRecord, names: tuple[str, ...]) -> str | None:
    """What a run needs to go on and does not find."""
    last = len(record.accuracy) - 1
    if (folder / f"memory_{last}.msgpack").exists():
        return None
    kept = [child for child in sorted(folder.iterdir()) if child.is_dir() and _is_store(child)]
    if not kept:
        return f"what the method keeps after its task number {last + 1} is gone"
    for store in kept if names else ():
        entries = AnchorStore(store).examine().entries
        # One whose name cannot be read is told of already.
        if all(entry.task not in (None, names[last]) for entry in entries):
            return f"{store.name} has no anchor of {names[last]!r}, the task learned last"
    return None


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
        return _unreadable(path, error)
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
        yield _unreadable(path, error)
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


def _leftover(path: Path) -> Finding:
    """A file or folder that was not whole when its process ended, if it has ended."""
    writer = files.writer_of(path)
    if files.is_alive(writer):
        return Finding("note", path, f"process {writer} is writing it", "let it finish")
    text = "a process that was killed left it half written"
    return Finding("note", path, text, "remove it, when no run is using the folder")


def _unreadable(path: Path, error: OSError) -> Finding:
    """The finding for what the machine does not let us read."""
    return Finding("damaged", path, f"it cannot be read: {error}", UNREADABLE)


def as_text(findings: list[Finding]) -> str:
    """The findings in lines, and what they come to."""
    lines = []
    for kind, path, text, advice in findings:
        lines.append(f"{kind:8} {path}: {text}")
        if advice:
            lines.append(f"{'':8} what to do: {advice}")
    damaged = sum(finding.kind == "damaged" for finding in findings)
    return "\n".join([*lines, "", f"damaged: {damaged}" if damaged else "all is well"])
