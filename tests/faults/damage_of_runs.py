"""Files of a run that was stopped, harmed: given again it ends the same, or says what to do."""

import re
import shutil
import zlib
from pathlib import Path, PurePath
from typing import NamedTuple

import numpy as np

from experiments import doctor, results, runs
from tests.faults import damage, small_runs
from tests.faults.changes import BY_CHANCE, CHANGES, possible
from tests.faults.judge import Verdict
from tests.faults.small_runs import SoundRun

PER_FILE = {1: 20, 2: 6}
"""How often a damage with chance in it is done to a file, by how deep it lies: the settings and
the result, which are text, and those of a seed. To one of a store once: `damage` has those."""
NEXT_STEP = re.compile(r"\b(put|remove|give|rename|delete)\b", re.IGNORECASE)


class RunDamage(NamedTuple):
    """What happens to a file of a run, or to a folder."""

    run: SoundRun
    kind: str
    file: PurePath  # from the method's folder
    place: str  # of the file; unlike its name the same in each run that is made
    number: int  # of the damages there
    draw: int  # the seed of what is random in it

    def __str__(self) -> str:
        return f"{self.kind} {self.run.method}/{self.file} (draw {self.draw})"


def plan(run: SoundRun, seed: int) -> list[RunDamage]:
    """Every kind of damage to every file and folder of a stopped run."""
    damages = []
    for name, file in _places(run).items():
        place = f"{run.method}/{name}"
        rng = np.random.default_rng([seed, zlib.crc32(place.encode())])
        for number, kind in enumerate(_kinds(run, file)):
            draw = int(rng.integers(2**31))
            damages.append(RunDamage(run, kind, file, place, number, draw))
    return damages


def _places(run: SoundRun) -> dict[str, PurePath]:
    """What is harmed, by place; of the seeds' folders that of seed 0."""
    folder, seed = run.half_way / run.method, PurePath("seed_0")
    files = [seed / path.name for path in sorted((folder / seed).glob("*.msgpack"))]
    files += [PurePath(runs.SETTINGS_FILE), PurePath(results.FILE_NAME), seed]
    anchors = seed / "anchors"
    if not (folder / anchors).is_dir():
        return {str(file): file for file in files}
    files += [anchors, anchors / "0", anchors / "1"]
    inside = damage.places(folder / anchors)
    return {str(file): file for file in files} | {
        f"{anchors}/{place}": anchors / file for place, file in inside.items()
    }


def _kinds(run: SoundRun, file: PurePath) -> list[str]:
    """What can be done to a file or a folder."""
    path = run.half_way / run.method / file
    kinds = [] if path.is_dir() else possible(path.read_bytes())
    times = PER_FILE.get(len(file.parts), 1)
    kinds = [kind for kind in kinds for _ in range(times if kind in BY_CHANCE else 1)]
    replaced = [name for name, other in _others(run, file).items() if other.exists()]
    exchanged = ["exchange with the other seed's"] if OTHER_SEED in replaced else []
    renumbered = [RENUMBER] if file.name == results.FILE_NAME else []
    return [*kinds, "delete", *renumbered, *exchanged, *replaced]


OTHER_SEED = "overwrite with the other seed's"
RENUMBER = "flip a bit of a seed's number in"


def _others(run: SoundRun, file: PurePath) -> dict[str, Path]:
    """What can stand in the place of a file or a folder, whether or not it is there."""
    folder, text = run.half_way / run.method, str(file)
    task = re.sub(r"(anchors/|memory_)([01])", lambda m: f"{m[1]}{1 - int(m[2])}", text)
    found = {"overwrite with an earlier": run.earlier / run.method / file}
    # An older anchor of another seed is whole, and nothing that a run reads tells it from its own:
    # what a run goes on from, the latest one, is compared with the state.
    if file.parts[0] == "seed_0" and file.parts[1:3] != ("anchors", "0"):
        found[OTHER_SEED] = folder / text.replace("seed_0", "seed_1", 1)
    if task != text:
        found["overwrite with another task's"] = folder / task
    return found


def tried(harm: RunDamage, directory: Path) -> Verdict:
    """Harm a copy of the stopped run in `directory`, and give its command again."""
    out, run = directory / "out", harm.run
    shutil.copytree(run.half_way, out)
    folder = out / run.method
    _do(harm, folder)
    told = [found.path for found in doctor.examine(out) if found.kind == "damaged"]
    try:
        run.learn(out)
        end = small_runs.end_of(folder)
    except Exception as error:
        return Verdict("refused", _unclear(harm, folder, error, told))
    wrong = {name for name in end.keys() | run.end.keys() if end.get(name) != run.end.get(name)}
    # What a run does not read is told by who reads it: as damaged, or that it is not there.
    unread = {name for name in wrong if end.get(name) is None}
    if wrong - unread:
        return Verdict("harmless", f"another end, and nobody says so: {sorted(wrong - unread)}")
    if unread & end.keys() and not told:
        return Verdict("refused", f"{sorted(unread)} are damaged, and the doctor finds all well")
    return Verdict("refused" if unread else "harmless", None)


def _do(harm: RunDamage, folder: Path) -> None:
    """Harm a method's folder."""
    path = folder / harm.file
    other = folder / str(harm.file).replace("seed_0", "seed_1", 1)
    if harm.kind in CHANGES:
        rng = np.random.default_rng(harm.draw)
        path.write_bytes(CHANGES[harm.kind](path.read_bytes(), rng))
    elif harm.kind == RENUMBER:
        path.write_bytes(path.read_bytes().replace(b'"seed": 0', b'"seed": 4'))
    elif harm.kind == "delete":
        _remove(path)
    elif harm.kind in (named := _others(harm.run, harm.file)):
        _replace(path, named[harm.kind])
    else:
        before = harm.run.half_way / harm.run.method
        _replace(path, before / other.relative_to(folder))
        _replace(other, before / harm.file)


def _remove(path: Path) -> None:
    """Remove a file, or a folder."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()


def _replace(path: Path, by: Path) -> None:
    """Put a copy of a file or of a folder in the place of another."""
    _remove(path)
    if by.is_dir():
        shutil.copytree(by, path)
    else:
        shutil.copy(by, path)


def _unclear(harm: RunDamage, folder: Path, error: Exception, told: list[Path]) -> str | None:
    """What is missing from a refusal, or from what the doctor said before."""
    text = f"{type(error).__name__}: {error}"
    if not isinstance(error, ValueError):
        return f"an error of no type that a run has for damage: {text}"
    if not any(str(place) in text for place in _around(folder / harm.file, folder)):
        return f"it names neither the file nor its folder: {text}"
    if not NEXT_STEP.search(str(error)):
        return f"it names no next step: {text}"
    where = {*_around(folder / harm.file, folder)}
    if not any({*_around(path, folder)} & where for path in told):
        return f"the doctor finds {told or 'all well'}, where the run says: {text}"
    return None


def _around(path: Path, folder: Path) -> list[Path]:
    """A path and the folders it is in, up to that of its seed, or to the run's if it has none."""
    found = [each for each in (path, *path.parents) if folder in each.parents]
    return found if len(found) > 1 or path.is_dir() else [*found, folder]
