"""What is in the folder of one seed of a run, for `experiments.doctor`."""

import dataclasses
import json
import re
from collections.abc import Iterator
from pathlib import Path

from experiments import bookmark, checkpoint, files, results, runs, sequence
from experiments.findings import Finding, unreadable
from experiments.methods import METHODS
from experiments.results import Result, SeedRecord
from mas_jax import AnchorStore, MasJaxError


def result_in(folder: Path) -> Result | None:
    """The result of a method's run, None before there is one; raises as `results.read`."""
    file = folder / results.FILE_NAME
    return results.read(file) if file.exists() else None


def in_seed(folder: Path) -> Iterator[Finding]:
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
    result = _readable_result(folder.parent)
    seeds = result.seeds if result else ()
    told = next((seed for seed in seeds if folder.name == f"seed_{seed.seed}"), None)
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
    names = result.tasks if result else ()
    is_finished = len(record.accuracy) == len(names)
    yield Finding("well", folder, f"tasks learned: {len(record.accuracy)} of {len(names) or '?'}")
    yield from _in_memory(folder, stored, names, again)
    for path in sorted(folder.glob("*.msgpack")):
        if path.name not in (sequence.STATE_FILE, bookmark.FILE):
            yield from _in_tree(path, record, is_finished, again)


def _readable_result(folder: Path) -> Result | None:
    """The result of the run in `folder`; None where there is none, or it is damaged."""
    try:
        return result_in(folder)
    except (ValueError, OSError):
        return None


def _in_memory(
    folder: Path, stored: checkpoint.Stored, names: tuple[str, ...], again: str
) -> Iterator[Finding]:
    """What the method keeps of the tasks learned and is gone, or is of another task or seed."""
    stores, learned = _stores(folder), len(stored.record.accuracy)
    if stores is None:
        return
    goes_on = learned != len(names)
    kept = [folder / name for name in (f"memory_{learned - 1}.msgpack", *stores)]
    if goes_on and not any(path.exists() for path in kept):
        text = f"what the method keeps after its task number {learned} is gone"
        yield Finding("damaged", folder, text, again)
        return
    for name in stores:
        yield from _missing_anchors(folder, name, names[:learned], goes_on, again)
    if goes_on and names and _is_foreign(folder, stored, stores, names[learned - 1]):
        text = f"what the method keeps after its task number {learned} is of another task or seed"
        yield Finding("damaged", folder, text, f"put it back, or {again}")


def _is_foreign(
    folder: Path, stored: checkpoint.Stored, stores: tuple[str, ...], task: str
) -> bool:
    """Whether what a run goes on from is whole, and not what its state was written with."""
    file = folder / f"memory_{len(stored.record.accuracy) - 1}.msgpack"
    try:
        memory = [AnchorStore(folder / each).restore(task, like=stored.params) for each in stores]
        digest = checkpoint.tree_digest(memory or checkpoint.load_tree(file))
    except (ValueError, KeyError, OSError):
        return False  # it is gone, or damaged, and told of already
    return stored.memory not in ("", digest)


def _missing_anchors(
    folder: Path, store: str, learned: tuple[str, ...], goes_on: bool, again: str
) -> Iterator[Finding]:
    """The tasks learned whose anchor is not in one of a seed's stores."""
    try:
        held = AnchorStore(folder / store).tasks()
    except MasJaxError:
        return  # one whose name cannot be read may be the one, and is told of with the store
    except OSError as error:
        yield unreadable(folder / store, error)
        return
    missing = [task for task in learned if task not in held]
    if not missing:
        return
    # To go on, a run wants the anchor of the task learned last.
    is_needed = goes_on and learned[-1] in missing
    use = "which the run needs to go on" if is_needed else "which the run needs no more"
    text = f"{store} has no anchor of {', '.join(map(repr, missing))}, {use}"
    otherwise = again if is_needed else "do without, if nobody wants it any more"
    yield Finding("damaged", folder, text, f"put a copy back, or {otherwise}")


def _stores(folder: Path) -> tuple[str, ...] | None:
    """The names of the stores that a seed's folder has, by its method; None if that is unknown."""
    try:
        settings = json.loads(files.read(folder.parent / runs.SETTINGS_FILE))
        return METHODS[settings["method"]["name"]].stores
    except (ValueError, TypeError, KeyError, OSError, RecursionError):
        return None


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
