"""Whether a store that was harmed gives the right values, or says what was harmed and where."""

import pathlib
import re
import warnings
from typing import Literal, NamedTuple

from mas_jax import AnchorStore, CheckpointCorruptError, OlderAnchorWarning, TaskNotFoundError
from tests.faults import stores
from tests.faults.damage import TASKS, WHOLE, Damage, do

Ending = Literal["refused", "harmless"]


class Verdict(NamedTuple):
    """What came of a damage."""

    ending: Ending  # refused where a harmed entry was
    failure: str | None


class WrongError(Exception):
    """A damage is not told as it should be."""


def tried(damage: Damage, sound: pathlib.Path, directory: pathlib.Path) -> Verdict:
    """What comes of a damage to the store in `directory`, which is a copy of the `sound` one."""
    do(damage, sound, directory)
    refused: dict[int, Exception] = {}
    try:
        for entry in range(len(TASKS)):
            error = _restored(damage, directory, entry)
            if error is not None:
                refused[entry] = error
        _check_list(damage, directory, refused)
        _check_older(damage, directory, refused)
        _check_examined(damage, directory, refused)
    except Exception as error:  # what is in a damaged file may raise nearly anything
        return Verdict("harmless", f"{type(error).__name__}: {error}")
    return Verdict("refused" if refused else "harmless", None)


def _restored(damage: Damage, directory: pathlib.Path, entry: int) -> Exception | None:
    """Why the task of an entry was refused, as it may be; None where it came back right."""
    store, task = AnchorStore(directory), TASKS[entry]
    try:
        wrong = stores.difference(store, task)
    except (CheckpointCorruptError, TaskNotFoundError) as error:
        if entry not in damage.harmed:
            raise WrongError(f"{task}, which nobody harmed, is refused: {error}") from error
        _check_clear(damage, directory, error, entry)
        return error
    if wrong is not None:
        raise WrongError(wrong)
    return None


def _check_clear(
    damage: Damage, directory: pathlib.Path, error: Exception, entry: int | None = None
) -> None:
    """Raise where an error does not say what is harmed; asked for the task of `entry`, if any."""
    text = str(error)
    if isinstance(error, TaskNotFoundError):
        _require(damage.kind == "remove entry", f"a task that is there is not found: {text}")
        return
    named = {int(name) for name in re.findall(rf"{re.escape(str(directory))}/(\d+)\b", text)}
    # Of several entries with unreadable metadata, nobody knows which is that of the task.
    expected = {entry} if entry is not None and not _is_of_metadata(error) else {*damage.harmed}
    _require(bool(named & expected), f"it does not name the entry's folder: {text}")
    misplaced = {damage.other} if "was saved as" in text else set()
    _require(named <= expected | misplaced, f"it names another entry's folder: {text}")
    if _is_of_metadata(error):
        is_there = damage.kind in WHOLE or damage.file.parts[1] == "metadata"
        _require(is_there, f"the metadata is blamed, which is sound: {text}")
        return
    leaves = "|".join(stores.anchor_of("any").params)
    task = "" if entry is None else TASKS[entry]
    told = re.search(rf"(params|importance)\['({leaves})'\] of task '{task}'", text)
    _require(told is not None, f"it names no leaf, or not the task: {text}")


def _is_of_metadata(error: Exception) -> bool:
    """Whether an error says that the metadata is damaged, or another entry's."""
    return re.search("metadata in|was saved as", str(error)) is not None


def _check_list(damage: Damage, directory: pathlib.Path, refused: dict[int, Exception]) -> None:
    """Raise where the list of tasks is neither right, nor refused for metadata that is harmed."""
    is_unknown = any(map(_is_of_metadata, refused.values()))
    try:
        listed = tuple(AnchorStore(directory).tasks())
    except CheckpointCorruptError as error:
        _require(is_unknown, f"no list, though the metadata are whole: {error}")
        _check_clear(damage, directory, error)
        return
    removed = {damage.entry} if damage.kind == "remove entry" else set()
    wanted = tuple(task for entry, task in enumerate(TASKS) if entry not in removed)
    _require(not is_unknown, f"it lists {listed}, and does not know which they are")
    _require(listed == wanted, f"it lists {listed} and says nothing")


def _check_older(damage: Damage, directory: pathlib.Path, refused: dict[int, Exception]) -> None:
    """Raise where the choice of an older anchor gives any but the newest whole one before."""
    unknown = [entry for entry, error in refused.items() if _is_of_metadata(error)]
    for entry, error in refused.items():
        if isinstance(error, TaskNotFoundError):
            continue  # nothing is damaged that a fallback is for
        first = unknown[0] if entry in unknown else entry
        before = [older for older in range(first) if older not in refused]
        task, wanted = TASKS[entry], TASKS[before[-1]] if before else None
        got = _fallen_back(damage, directory, task)
        _require(got == wanted, f"asked for one before {task} it gives {got}, wanted {wanted}")


def _fallen_back(damage: Damage, directory: pathlib.Path, task: str) -> str | None:
    """The task whose anchor is given for that of `task`; None where there is none."""
    wanted = stores.anchor_of(task)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            anchor = AnchorStore(directory).restore(task, like=wanted.params, fallback="previous")
        except CheckpointCorruptError as error:
            _check_clear(damage, directory, error, TASKS.index(task))
            return None
    told = [each.message for each in caught if isinstance(each.message, OlderAnchorWarning)]
    _require(len(told) == 1 and told[0].task == task, f"an older anchor for {task}, unsaid")
    wrong = stores.unlike(anchor, told[0].restored)
    _require(wrong is None, str(wrong))
    return told[0].restored


def _check_examined(damage: Damage, directory: pathlib.Path, refused: dict[int, Exception]) -> None:
    """Raise where what the doctor is told of is not what is refused."""
    condition = AnchorStore(directory).examine()
    told = {int(entry.folder): entry.error for entry in condition.entries}
    removed = {damage.entry} if damage.kind == "remove entry" else set()
    _require(told.keys() == set(range(len(TASKS))) - removed, f"examined: {sorted(told)}")
    found = {entry for entry, error in told.items() if error is not None}
    wanted = refused.keys() - removed
    _require(found == wanted, f"errors are told of {sorted(found)}, of {sorted(wanted)} refused")
    for entry in found:
        error = told[entry]
        _require(isinstance(error, CheckpointCorruptError), f"told as {error!r}")
        assert error is not None
        _check_clear(damage, directory, error, entry)
        # Nothing else was asked for: here the entry itself has to be named.
        _require(f"{directory}/{entry}" in str(error), f"{entry} is told as {error}")


def _require(good: bool, wrong: str) -> None:
    """Raise WrongError unless `good`."""
    if not good:
        raise WrongError(wrong)
