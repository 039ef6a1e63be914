"""One seed: a network learns the tasks of a sequence, one after the other."""

import dataclasses
import time
import types
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeGuard

import jax

import mas_jax
from experiments import bookmark as bookmarks
from experiments import checkpoint, devices, preemption
from experiments.account import Measured, bytes_held, evaluate, histograms
from experiments.bookmark import Bookmark
from experiments.files import make_folder
from experiments.learning import Epoch, Report, Start, Trained, train
from experiments.methods import Stage
from experiments.results import SeedRecord
from experiments.search import search
from experiments.setup import Setup
from experiments.training import Rates, Recorded

__all__ = ["Epoch", "Report", "learn"]

STATE_FILE = "state.msgpack"
"""What a seed's folder holds after each task, beside the method's memory."""


class State(NamedTuple):
    """What goes on from task to task."""

    params: Any
    opt_state: Any
    memory: Any


def learn(
    setup: Setup,
    seed: int,
    folder: Path,
    report: Report,
    keep: Callable[[SeedRecord], None] = lambda _: None,
    made: Mapping[str, Any] = types.MappingProxyType({}),
    stop_after: int | None = None,
    first: Path | None = None,
    checkpoint_seconds: float = bookmarks.SECONDS,
) -> SeedRecord:
    """Learn the tasks that `folder` does not hold yet; the record of all of them.

    `keep` is given the record after each task learned here, `made` says how it was; after
    `stop_after` tasks it ends early. `first` is the folder of the same seed's run of fine-tuning,
    which has learned the first task; a method that learns it likewise goes on from there. Within
    a task, how far it has come is kept at boundaries, if `checkpoint_seconds` have gone by since
    the last time. Boundaries are the ends of epochs and of chunks of batches that importance is
    measured on; a search for strengths is one piece.

    What a task draws at random depends on the seed, the task's number and the epoch's alone, so
    that a run that goes on from a boundary ends like one that was never stopped, bit for bit.

    Raises:
      Preempted: a signal asked to stop; what was learned is kept in `folder`.
    """
    key = jax.random.key(seed)
    last = len(setup.task_names) if stop_after is None else stop_after
    with preemption.until_boundary():
        state, record = _begin(setup, key, seed, folder, first)
        for task in range(len(record.accuracy), last):
            bookmark = _bookmark(setup, folder, task, first, checkpoint_seconds)
            learned = _learn_task(setup, task, key, state, record, report, first, bookmark)
            stage = learned.stage
            state, record = _consolidate(setup, learned, state.memory, record)
            record = dataclasses.replace(record, made=dict(made))
            record = _save(setup, folder, stage, state, record)
            bookmark.remove()
            keep(record)
    return record


def _bookmark(
    setup: Setup, folder: Path, task: int, first: Path | None, checkpoint_seconds: float
) -> Bookmark:
    """Where the run stands within `task`."""

    def origin() -> str:
        # A task goes on from one file, or, shared, from another run's.
        before = [folder, first] if _is_shared(first, setup, task) else [folder]
        return " ".join([str(task), *(checkpoint.digest(each / STATE_FILE) for each in before)])

    path = folder / bookmarks.FILE
    return Bookmark(path, devices.from_first(origin), checkpoint_seconds, setup.mesh)


def _begin(
    setup: Setup, key: jax.Array, seed: int, folder: Path, first: Path | None
) -> tuple[State, SeedRecord]:
    """The state after the last task that `folder` holds, or that before the first."""
    restored = devices.from_first(lambda: _restore(setup, seed, folder))
    if restored is not None and restored.params is None:
        return State(None, None, None), restored.record
    init_optimizer = setup.learner.init_optimizer
    if restored is None:
        params = setup.learner.init(
            jax.random.fold_in(key, len(setup.task_names)), setup.evaluation
        )
        if setup.pretrained is not None:
            params = {**params, "trunk": devices.replicated(setup.mesh, setup.pretrained)}
        if _is_shared(first, setup, 0):
            untrained = _stored(first).record.untrained
        else:
            untrained = evaluate(setup, params).per_task
        record = SeedRecord(seed=seed, untrained=untrained)
        return State(params, init_optimizer(params), None), record
    params, memory, leaves = devices.replicated(
        setup.mesh, (restored.params, restored.memory, restored.optimizer)
    )
    opt_state = init_optimizer(params)
    if leaves:
        opt_state = jax.tree.unflatten(jax.tree.structure(opt_state), leaves)
    return State(params, opt_state, memory), restored.record


class Restored(NamedTuple):
    """What a folder holds after a finished task, on the host; after the last, the record alone."""

    params: Any
    optimizer: list[Any]  # the leaves of its state; none where each task resets it
    memory: Any
    record: SeedRecord


def _restore(setup: Setup, seed: int, folder: Path) -> Restored | None:
    """The state after the last task that `folder` holds, or None before the first.

    Raises ValueError where its files are not all of one moment of the run of `seed`.
    """
    make_folder(folder)
    stored = checkpoint.load(folder / STATE_FILE)
    if stored is None:
        return None
    params, optimizer, record, memory_digest = stored
    again = f"Put it back, or remove {folder} to learn that seed again"
    if record.seed != seed:
        raise ValueError(f"{folder / STATE_FILE} is that of seed {record.seed}. {again}")
    task = len(record.accuracy) - 1
    if task + 1 == len(setup.task_names):
        (folder / bookmarks.FILE).unlink(missing_ok=True)  # killed just before it was removed
        return Restored(None, [], None, record)
    name = setup.task_names[task]
    try:
        memory = setup.method.load_memory(params, folder, task, name)
    except (FileNotFoundError, mas_jax.TaskNotFoundError) as error:
        gone = f"what {folder} kept after task {name!r} is gone ({error}). {again}"
        raise ValueError(gone) from error
    if memory_digest not in ("", checkpoint.tree_digest(memory)):
        raise ValueError(
            f"what {folder} kept after task {name!r} is not what {STATE_FILE} was written with: "
            f"files of another task or seed lie there. {again}"
        )
    return Restored(params, optimizer, memory, record)


def _save(setup: Setup, folder: Path, stage: Stage, state: State, record: SeedRecord) -> SeedRecord:
    """Keep the state after a task in `folder`; `record`, with the time that took."""
    start = time.perf_counter()

    def write_memory() -> str:
        memory = jax.device_get(state.memory)
        setup.method.save_memory(memory, folder, stage)
        return checkpoint.tree_digest(memory)

    digest = devices.from_first(write_memory)
    record = _timed(record, saving=time.perf_counter() - start)
    kept = [] if setup.config.reset_optimizer else jax.tree.leaves(state.opt_state)

    def write() -> None:
        params, optimizer = jax.device_get((state.params, kept))
        checkpoint.save(folder / STATE_FILE, params, optimizer, record, digest)

    devices.from_first(write)
    return record


class LearnedTask(NamedTuple):
    """Where a run stands after training on a task, and what the record keeps of it."""

    stage: Stage
    recorded: Recorded
    losses: tuple[float, ...]
    seconds: float
    chosen: tuple[dict[str, float], ...]  # by a search, if there was one
    measured: Measured | None = None  # where another run has measured it


def _learn_task(
    setup: Setup,
    task: int,
    key: jax.Array,
    state: State,
    record: SeedRecord,
    report: Report,
    first: Path | None,
    bookmark: Bookmark,
) -> LearnedTask:
    """Train on one task, or take over what fine-tuning made of the first one."""
    if _is_shared(first, setup, task):
        bookmark.pass_by()
        return _learned_before(setup, key, state, first, bookmark)
    key = jax.random.fold_in(key, task)
    params, opt_state, memory = state
    if setup.config.reset_optimizer:
        opt_state = setup.learner.init_optimizer(params)
    stage = stage_at(setup, task, params, opt_state, key, bookmark)
    recorded = setup.method.record(memory, stage)
    # What most methods learn from is on the devices already, as what they measure on.
    alone = tuple(setup.method.training_tasks(task)) == (task,)
    examples = stage.train if alone else setup.training(task)
    start = Start(task, record.seed, params, opt_state, memory, examples, recorded, key)
    chosen = ()
    if setup.config.search.enabled:
        trained, chosen = _searched(setup, start, report, bookmark)
    else:
        rates = Rates(setup.config.learning_rate, setup.method.strength)
        trained = train(setup, start, rates, report, bookmark)
    stage = stage._replace(params=trained.params, opt_state=trained.opt_state)
    return LearnedTask(stage, recorded, trained.losses, bookmark.elapsed(), chosen)


def _searched(
    setup: Setup, start: Start, report: Report, bookmark: Bookmark
) -> tuple[Trained, tuple[dict[str, float], ...]]:
    """The network that a search found, and what it chose; kept when the search is over."""

    def like() -> tuple[Any, Any]:
        opt_state = setup.method.begin_task(start.opt_state, start.memory, start.params)
        return start.params, opt_state

    kept = bookmark.found("training", like)
    if kept is not None:
        (params, opt_state), (chosen,) = kept.tree, kept.told["chosen"]
        rates = Rates(chosen["learning_rate"], chosen["strength"])
        return Trained(params, opt_state, rates, tuple(kept.told["losses"])), (chosen,)
    found = search(setup, start, report)
    trained, chosen = found.trained, (found.numbers(),)
    tree = (trained.params, trained.opt_state)
    bookmark.keep("training", tree, losses=trained.losses, chosen=chosen)
    return trained, chosen


def _is_shared(first: Path | None, setup: Setup, task: int) -> TypeGuard[Path]:
    """Whether `task` is the first one, which the run in `first` has learned for this method too."""
    return task == 0 and first is not None and setup.method.learns_first_plainly()


def _stored(first: Path) -> checkpoint.Stored:
    """What the run in `first` holds after the first task."""
    stored = devices.from_first(lambda: checkpoint.load(first / STATE_FILE))
    if stored is None:
        raise ValueError(f"{first} holds no first task that was learned: there is no {STATE_FILE}")
    return stored


def _learned_before(
    setup: Setup, key: jax.Array, state: State, first: Path, bookmark: Bookmark
) -> LearnedTask:
    """The first task as the run of fine-tuning in `first` has learned it."""
    stored = _stored(first)
    params, record = devices.replicated(setup.mesh, stored.params), stored.record
    stage = stage_at(setup, 0, params, state.opt_state, jax.random.fold_in(key, 0), bookmark)
    of_class = record.class_accuracy[0] if record.class_accuracy else ()
    measured = Measured(record.accuracy[0], of_class, record.overall[0])
    return LearnedTask(
        stage, Recorded(), record.loss[0], record.seconds[0]["training"], (), measured
    )


def stage_at(
    setup: Setup,
    task: int,
    params: Any,
    opt_state: Any,
    key: jax.Array,
    bookmark: Bookmark | None = None,
) -> Stage:
    """What a method is shown of a task."""
    return Stage(
        network=setup.network,
        task=task,
        name=setup.task_names[task],
        classes=setup.classes[task],
        earlier_classes=tuple(label for group in setup.classes[:task] for label in group),
        labels=setup.labels[task],
        params=params,
        opt_state=opt_state,
        train=setup.measured(task),
        test=setup.tested(task),
        # Apart from those of the epochs, which are numbered from 0.
        key=jax.random.fold_in(key, 2**31),
        bookmark=bookmark or Bookmark(),
        mesh=setup.mesh,
    )


def _consolidate(
    setup: Setup, learned: LearnedTask, memory: Any, record: SeedRecord
) -> tuple[State, SeedRecord]:
    """The state after a task, and the record with what the network can do now."""
    stage = learned.stage
    stage.bookmark.turn_to("importance")
    memory = setup.method.as_stored(setup.method.end_task(memory, stage))
    memory = jax.block_until_ready(memory)
    importance_seconds, consolidated = stage.bookmark.elapsed(), time.perf_counter()
    measured = learned.measured or evaluate(setup, setup.method.deployed(memory, stage.params))
    seconds = {
        "training": learned.seconds,
        "importance": importance_seconds,
        "evaluation": time.perf_counter() - consolidated,
    }
    of_class = (measured.per_class,) if setup.config.class_accuracy else ()
    return State(stage.params, stage.opt_state, memory), dataclasses.replace(
        record,
        accuracy=(*record.accuracy, measured.per_task),
        overall=(*record.overall, measured.overall),
        class_accuracy=(*record.class_accuracy, *of_class),
        loss=(*record.loss, learned.losses),
        seconds=(*record.seconds, seconds),
        memory=(*record.memory, bytes_held(setup, stage, memory, learned.recorded)),
        chosen=(*record.chosen, *learned.chosen),
        importance=histograms(setup.method.importance(memory)),
    )


def _timed(record: SeedRecord, **seconds: float) -> SeedRecord:
    """`record` with times added to its latest task."""
    *before, latest = record.seconds
    return dataclasses.replace(record, seconds=(*before, {**latest, **seconds}))
