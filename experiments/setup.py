"""What all seeds of one method share: data, network, optimizer and compiled functions."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import optax
from jax.sharding import Mesh

from experiments.config import SequenceConfig
from experiments.data.types import Examples, Task
from experiments.examples import DeviceExamples, to_device
from experiments.methods import Method
from experiments.networks import Network, Scenario
from experiments.training import Learner, make_learner


class Setup(NamedTuple):
    """What all seeds of one method share. Data is put on the devices when it is asked for."""

    config: SequenceConfig
    method: Method
    network: Network
    task_names: tuple[str, ...]
    classes: tuple[tuple[int, ...], ...]  # of each task
    labels: tuple[tuple[int, ...], ...]  # for each task the class that each output stands for
    base: optax.GradientTransformation  # the optimizer alone
    learner: Learner
    training: Callable[[int], DeviceExamples]  # what is learned with a task
    measured: Callable[[int], DeviceExamples]  # the task's own training examples
    tested: Callable[[int], DeviceExamples]  # its examples for evaluation
    validated: Callable[[int], DeviceExamples]  # its validation examples
    evaluation: DeviceExamples  # those of all tasks
    trained_heads: tuple[np.ndarray, ...]  # per task (C,) bool: the outputs that learn
    data_bytes: tuple[int, ...]  # of each task's training examples
    mesh: Mesh | None  # of the devices that learn; None for one
    pretrained: Any = None  # the trunk's parameters to start from; None where drawn at random


def prepare(
    config: SequenceConfig, method: Method, tasks: Sequence[Task], mesh: Mesh | None = None
) -> Setup:
    """Put the tasks on the devices and build the functions that learn them.

    Raises:
      ValueError: the tasks and the scenario, or the tasks and the method, do not fit each other.
    """
    network = network_for(config, method, tasks)
    labels = output_labels(config.scenario, tasks)
    base = base_optimizer(config)
    learned_with = [method.training_tasks(i) for i in range(len(tasks))]
    own = [relabelled(task, labels[i]) for i, task in enumerate(tasks)]
    counts = [sum(len(own[j].train.labels) for j in part) for part in learned_with]
    tested = [getattr(task, config.evaluate_on) for task in own]
    evaluated = list(enumerate(tested))
    sizes = {
        name: max(len(getattr(t, name).labels) for t in own) for name in ("train", "validation")
    }

    def parts(name: str, task: int) -> DeviceExamples:
        return to_device([(task, getattr(own[task], name))], sizes[name], mesh)

    return Setup(
        config=config,
        method=method,
        network=network,
        task_names=tuple(task.name for task in tasks),
        classes=tuple(tuple(task.classes) for task in tasks),
        labels=tuple(map(tuple, labels)),
        base=base,
        learner=make_learner(
            network,
            base,
            method.optimizer(base, network),
            method.extra_loss,
            config.batch_size,
            config.steps_per_epoch,
            mesh,
        ),
        training=lambda task: to_device(
            [(j, own[j].train) for j in learned_with[task]], max(counts), mesh
        ),
        measured=lambda task: parts("train", task),
        validated=lambda task: parts("validation", task),
        tested=lambda task: to_device(
            [(task, tested[task])], max(len(part.labels) for part in tested), mesh
        ),
        evaluation=to_device(evaluated, sum(len(part.labels) for _, part in evaluated), mesh),
        trained_heads=tuple(
            network.trained(method.trained_heads(task)) for task in range(len(tasks))
        ),
        data_bytes=tuple(sum(array.nbytes for array in task.train) for task in own),
        mesh=mesh,
        pretrained=config.pretrained(),
    )


def network_for(config: SequenceConfig, method: Method, tasks: Sequence[Task]) -> Network:
    """The network that learns `tasks`.

    Raises:
      ValueError: tasks, scenario and method do not fit each other.
    """
    if len(tasks) < 2:
        raise ValueError(
            f"a sequence needs at least two tasks, got {len(tasks)}: with one there is nothing "
            "to forget"
        )
    for task in tasks:
        _check_heads(task)
    labels = output_labels(config.scenario, tasks)
    heads = head_outputs(config.scenario, tasks, labels)
    network = config.network(heads, tasks)
    method.check(tasks, network)
    return network


def base_optimizer(config: SequenceConfig) -> optax.GradientTransformation:
    """The optimizer alone; its learning rate is part of its state."""
    if config.optimizer == "adam":
        return optax.inject_hyperparams(optax.adam)(config.learning_rate)
    return optax.inject_hyperparams(optax.sgd)(config.learning_rate, momentum=config.momentum)


def output_labels(scenario: Scenario, tasks: Sequence[Task]) -> list[list[int]]:
    """For each task the labels that its outputs stand for, from output 0 on.

    Raises ValueError where no network has such outputs.
    """
    if scenario == "domain":
        sizes = {len(task.classes) for task in tasks}
        if len(sizes) > 1:
            raise ValueError(
                "--scenario domain has one head for all tasks, so all need the same number of "
                f"classes, got {', '.join(f'{len(t.classes)} ({t.name})' for t in tasks)}"
            )
        return [list(task.classes) for task in tasks]
    every = [label for task in tasks for label in task.classes]
    if len(set(every)) < len(every):
        raise ValueError(
            f"--scenario {scenario} needs classes that are in one task alone; where tasks share "
            "their classes, as permuted images do, take --scenario domain"
        )
    return [sorted(every)] * len(tasks)


def head_outputs(
    scenario: Scenario, tasks: Sequence[Task], labels: Sequence[Sequence[int]]
) -> tuple[tuple[bool, ...], ...]:
    """T × C bools: the outputs that answer for each task."""
    return tuple(
        tuple(scenario != "task" or label in task.classes for label in known)
        for task, known in zip(tasks, labels, strict=True)
    )


def _check_heads(task: Task) -> None:
    """Raise ValueError if an example is of a class that the task's head has no output for."""
    for part in ("train", "validation", "test"):
        missing = sorted(set(getattr(task, part).labels.tolist()) - set(task.classes))
        if missing:
            raise ValueError(
                f"task {task.name!r} has {part} examples of class {missing[0]}, for which there is "
                f"no output: its classes are {', '.join(map(str, task.classes))}"
            )


def relabelled(task: Task, known: Sequence[int]) -> Task:
    """`task` with labels replaced by their position in `known`: the number of their output."""
    order = np.argsort(known)

    def rename(examples: Examples) -> Examples:
        positions = order[np.searchsorted(known, examples.labels, sorter=order)]
        return examples._replace(labels=positions.astype(np.int32))

    return task._replace(
        train=rename(task.train), validation=rename(task.validation), test=rename(task.test)
    )


def learning_rate(config: SequenceConfig, first: float, epoch: int, epochs: int) -> float:
    """The learning rate of one epoch of a task that starts with `first`."""
    if config.schedule == "constant":
        return first
    return first * 0.5 * (1 + math.cos(math.pi * epoch / epochs))
