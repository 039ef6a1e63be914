"""One seed: a network learns the tasks of a sequence, one after the other."""

import dataclasses
import functools
import math
import time
import types
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from jax.sharding import Mesh

from experiments import checkpoint, devices
from experiments.config import SequenceConfig
from experiments.data.types import Examples, Task
from experiments.methods import Learned, Method
from experiments.networks import MultiHeadMLP, outputs
from experiments.results import SeedRecord, histogram
from experiments.training import DeviceExamples, Learner, make_learner, to_device


class Epoch(NamedTuple):
    """What the progress display is told after each epoch."""

    seed: int
    task: int
    epoch: int
    loss: float
    accuracy: float


Report = Callable[[Epoch], None]

STATE_FILE = "state.msgpack"
"""What a seed's folder holds after each task, beside the method's memory."""


class Setup(NamedTuple):
    """What all seeds of one method share: data on the devices and compiled functions."""

    config: SequenceConfig
    method: Method
    task_names: tuple[str, ...]
    learner: Learner
    training: Callable[[int], DeviceExamples]  # a task's, put on the devices when it is learned
    evaluation: DeviceExamples
    apply_fn: Callable[..., jax.Array]
    mesh: Mesh | None  # of the devices that learn; None for one


def prepare(
    config: SequenceConfig, method: Method, tasks: Sequence[Task], mesh: Mesh | None = None
) -> Setup:
    """Put the tasks on the devices and build the functions that learn them."""
    labels = sorted({label for task in tasks for label in task.classes})
    heads = tuple(tuple(label in task.classes for label in labels) for task in tasks)
    model = MultiHeadMLP(config.hidden_sizes, heads)
    sgd = optax.inject_hyperparams(optax.sgd)(config.learning_rate, momentum=config.momentum)
    optimizer = optax.chain(method.transformation(), sgd)

    indexed = [(index, relabelled(task, labels)) for index, task in enumerate(tasks)]
    parts = [[indexed[j] for j in method.training_tasks(i)] for i in range(len(tasks))]
    training = [[(i, task.train) for i, task in part] for part in parts]
    evaluated = [(i, getattr(task, config.evaluate_on)) for i, task in indexed]
    length = max(map(_size, training))
    return Setup(
        config=config,
        method=method,
        task_names=tuple(task.name for task in tasks),
        learner=make_learner(model, optimizer, config.batch_size, mesh),
        training=lambda task: to_device(training[task], length, mesh),
        evaluation=to_device(evaluated, _size(evaluated), mesh),
        apply_fn=functools.partial(outputs, model),
        mesh=mesh,
    )


def _size(part: Sequence[tuple[int, Examples]]) -> int:
    """How many examples there are."""
    return sum(len(examples.labels) for _, examples in part)


def learn(
    setup: Setup,
    seed: int,
    folder: Path,
    report: Report,
    keep: Callable[[SeedRecord], None] = lambda _: None,
    made: Mapping[str, Any] = types.MappingProxyType({}),
) -> SeedRecord:
    """Learn the tasks that `folder` does not hold yet; the record of all of them.

    `keep` is given the record after each task learned here, `made` says how it was.

    What a task draws at random depends on the seed and the task's number alone, so that a run
    that goes on from a finished task ends like one that was never stopped, bit for bit.
    """
    key = jax.random.key(seed)
    restored = devices.from_first(lambda: _restore(setup, folder))
    if restored is None:
        params = setup.learner.init(
            jax.random.fold_in(key, len(setup.task_names)), setup.evaluation
        )
        memory = None
        record = SeedRecord(seed=seed, untrained=_evaluate(setup, params))
    else:
        record = restored.record
        params, memory = devices.replicated(setup.mesh, (restored.params, restored.memory))

    for task in range(len(record.accuracy), len(setup.task_names)):
        examples = setup.training(task)
        params, info = _train(setup, task, examples, key, params, memory, record, report)
        learned = Learned(setup.task_names[task], params, examples, setup.apply_fn, setup.mesh)
        memory, record = _consolidate(setup, learned, memory, record, info)
        record = dataclasses.replace(record, made=dict(made))
        record = _save(setup, folder, learned, memory, record)
        keep(record)
    return record


class Restored(NamedTuple):
    """What a folder holds after a finished task, on the host; after the last, the record alone."""

    params: Any
    memory: Any
    record: SeedRecord


def _restore(setup: Setup, folder: Path) -> Restored | None:
    """The state after the last task that `folder` holds, or None before the first."""
    folder.mkdir(parents=True, exist_ok=True)
    restored = checkpoint.load(folder / STATE_FILE)
    if restored is None:
        return None
    params, record = restored
    if len(record.accuracy) == len(setup.task_names):
        return Restored(None, None, record)
    latest = setup.task_names[len(record.accuracy) - 1]
    return Restored(params, setup.method.load_memory(params, folder, latest), record)


def _save(
    setup: Setup, folder: Path, learned: Learned, memory: Any, record: SeedRecord
) -> SeedRecord:
    """Keep the state after a task in `folder`; `record`, with the time that took."""
    start = time.perf_counter()
    devices.from_first(lambda: setup.method.save_memory(jax.device_get(memory), folder, learned))
    record = _timed(record, saving=time.perf_counter() - start)
    devices.from_first(
        lambda: checkpoint.save(folder / STATE_FILE, jax.device_get(learned.params), record)
    )
    return record


class Trained(NamedTuple):
    """What training on a task leaves for the record."""

    losses: tuple[float, ...]
    seconds: float


def _train(
    setup: Setup,
    task: int,
    examples: DeviceExamples,
    key: jax.Array,
    params: Any,
    memory: Any,
    record: SeedRecord,
    report: Report,
) -> tuple[Any, Trained]:
    """The parameters after all epochs of one task."""
    start = time.perf_counter()
    opt_state = setup.method.begin_task(setup.learner.init_optimizer(params), memory)
    losses = []
    for epoch in range(setup.config.epochs):
        epoch_key = jax.random.fold_in(jax.random.fold_in(key, task), epoch)
        params, opt_state, info = setup.learner.train_epoch(
            params, opt_state, examples, epoch_key, learning_rate(setup.config, epoch)
        )
        losses.append(float(info.loss))
        if not math.isfinite(losses[-1]):
            raise FloatingPointError(
                f"training diverged: loss {losses[-1]} in epoch {epoch + 1} of task "
                f"{setup.task_names[task]}, seed {record.seed}. Lower --learning-rate or the "
                "method's strength"
            )
        report(Epoch(record.seed, task, epoch, losses[-1], float(info.accuracy)))
    return params, Trained(tuple(losses), time.perf_counter() - start)


def _consolidate(
    setup: Setup, learned: Learned, memory: Any, record: SeedRecord, trained: Trained
) -> tuple[Any, SeedRecord]:
    """The memory after a task, and the record with what the network can do now."""
    start = time.perf_counter()
    memory = jax.block_until_ready(setup.method.end_task(memory, learned))
    consolidated = time.perf_counter()
    accuracy = _evaluate(setup, learned.params)
    seconds = {
        "training": trained.seconds,
        "importance": consolidated - start,
        "evaluation": time.perf_counter() - consolidated,
    }
    return memory, dataclasses.replace(
        record,
        accuracy=(*record.accuracy, accuracy),
        loss=(*record.loss, trained.losses),
        seconds=(*record.seconds, seconds),
        importance=_histograms(setup.method.importance(memory)),
    )


def learning_rate(config: SequenceConfig, epoch: int) -> float:
    """The learning rate of one epoch of a task."""
    if config.schedule == "constant":
        return config.learning_rate
    return config.learning_rate * 0.5 * (1 + math.cos(math.pi * epoch / config.epochs))


def relabelled(task: Task, known: Sequence[int]) -> Task:
    """`task` with labels replaced by their position in `known`: the number of their output."""

    def rename(examples: Examples) -> Examples:
        return examples._replace(labels=np.searchsorted(known, examples.labels).astype(np.int32))

    return task._replace(
        train=rename(task.train), validation=rename(task.validation), test=rename(task.test)
    )


def _evaluate(setup: Setup, params: Any) -> tuple[float, ...]:
    """The accuracy on every task."""
    accuracy = setup.learner.accuracy_per_task(params, setup.evaluation)
    return tuple(np.asarray(accuracy).tolist())


def _histograms(importance: Any) -> dict[str, dict[str, Any]]:
    """One histogram per anchored parameter, by its path."""
    leaves = jax.tree_util.tree_flatten_with_path(importance)[0]
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): histogram(leaf)
        for path, leaf in leaves
    }


def _timed(record: SeedRecord, **seconds: float) -> SeedRecord:
    """`record` with times added to its latest task."""
    *before, latest = record.seconds
    return dataclasses.replace(record, seconds=(*before, {**latest, **seconds}))
