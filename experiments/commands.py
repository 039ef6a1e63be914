"""What can be typed: one dataclass per command, its fields the options."""

import dataclasses
import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, TypeVar, Union

import tyro

from experiments import tuning
from experiments.bookmark import SECONDS
from experiments.config import SequenceConfig
from experiments.picture_config import PictureConfig
from experiments.registry import EXPERIMENTS, GROUPS

ConfigT = TypeVar("ConfigT", bound=SequenceConfig)

Settings = Annotated[ConfigT, tyro.conf.arg(name="")]
DevicesChoice = Annotated[
    Literal["one", "all"],
    tyro.conf.arg(
        help="One device, or all: each batch is divided among all that JAX finds here and, where "
        "a TPU pod, Slurm, Kubernetes or JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and "
        "JAX_PROCESS_ID say that this is one of several processes, in all of these.",
    ),
]
CheckpointSeconds = Annotated[
    float,
    tyro.conf.arg(
        help="How often, in seconds, it is kept how far a task has come, so that a run that is "
        "killed goes on from there; 0 is after every epoch and every part of importance. A run "
        "that SIGTERM or Ctrl-C stops keeps it in any case, and ends with status 75.",
    ),
]


@dataclasses.dataclass(frozen=True)
class Run(Generic[ConfigT]):
    """Run one method of an experiment."""

    config: Settings[ConfigT]
    method: str = "mas"
    """Which of the experiment's methods."""
    out: Path | None = None
    """Folder for results and states; runs/NAME if not given. A stopped run goes on from there."""
    devices: DevicesChoice = "one"
    checkpoint_seconds: CheckpointSeconds = SECONDS


@dataclasses.dataclass(frozen=True)
class Compare(Generic[ConfigT]):
    """Run all methods of an experiment, or of several that the paper shows together, and print the
    tables."""

    config: Settings[ConfigT]
    only: tuple[str, ...] = ()
    """Just these methods."""
    share_first_task: bool = False
    """Whether fine-tuning learns the first task for all methods that would learn it likewise, which
    are all but SI: on long tasks that saves hours."""
    out: Path | None = None
    """Folder for results and states; runs/NAME if not given. A stopped run goes on from there."""
    devices: DevicesChoice = "one"
    checkpoint_seconds: CheckpointSeconds = SECONDS


@dataclasses.dataclass(frozen=True)
class Tune(Generic[ConfigT]):
    """Choose strength and learning rate on held-out training examples, test data untouched."""

    config: Settings[ConfigT]
    method: str = "mas"
    """Which of the experiment's methods."""
    strengths: tuple[float, ...] = (0.1, 0.2, 0.5, 1.0)
    """The penalty strengths tried."""
    learning_rates: tuple[float, ...] = ()
    """The learning rates tried, each with each strength; none stands for --learning-rate."""
    out: Path | None = None
    """Folder for results and states; runs/NAME-tuning if not given."""
    devices: DevicesChoice = "one"
    checkpoint_seconds: CheckpointSeconds = SECONDS


@dataclasses.dataclass(frozen=True)
class ListExperiments:
    """Show the experiments there are."""


@dataclasses.dataclass(frozen=True)
class Report:
    """Write one self-contained page, and its pictures, from the results below a folder."""

    directory: tyro.conf.Positional[Path]
    """The folder that a run was given as --out."""
    out: Path | None = None
    """Where the page goes; DIR/report if not given."""


@dataclasses.dataclass(frozen=True)
class Table:
    """Print the results below a folder as tables in Markdown, one for each experiment."""

    directory: tyro.conf.Positional[Path]
    """The folder that a run was given as --out."""


@dataclasses.dataclass(frozen=True)
class Doctor:
    """Say what is in the folder of a run or a store, what is damaged and what to do.

    Reads every byte and changes nothing. Ends with status 0 if all is well, 1 if not."""

    directory: tyro.conf.Positional[Path]
    """The folder that a run was given as --out, one in it, or that of an AnchorStore."""


def every_command() -> Any:
    """The union of commands that tyro turns into subcommands."""
    configs = {name: entry.config for name, entry in EXPERIMENTS.items()}
    singly = [_choice(name, Compare(config)) for name, config in configs.items()]
    together = [_choice(name, _compare_group(group.config)) for name, group in GROUPS.items()]
    runs = [_choice(name, Run(config)) for name, config in configs.items()]
    tuned = [_choice(name, Tune(tuning.held_out(config))) for name, config in configs.items()]
    return Union[  # noqa: UP007 (built at run time)
        Annotated[ListExperiments, tyro.conf.subcommand("list")],
        _of_each_experiment(Run, runs),
        _of_each_experiment(Compare, [*singly, *together]),
        _of_each_experiment(Tune, tuned),
        Annotated[Report, tyro.conf.subcommand("report")],
        Annotated[Table, tyro.conf.subcommand("table")],
        Annotated[Doctor, tyro.conf.subcommand("doctor")],
    ]


def _compare_group(config: SequenceConfig) -> Compare[Any]:
    """The comparison of a group; on photographs a first task learned once saves hours."""
    return Compare(config, share_first_task=isinstance(config, PictureConfig))


def _choice(name: str, default: Any) -> Any:
    """The subcommand `name`, whose options start from those of the command `default`."""
    command: Any = type(default)
    config = default.config
    options = tyro.conf.subcommand(name, default=default, description=first_line(config))
    return Annotated[command[type(config)], options]


def _of_each_experiment(command: Any, choices: Sequence[Any]) -> Any:
    """The subcommand of `command`, a dataclass whose field is one of `choices`."""
    kind = dataclasses.make_dataclass(command.__name__, [("experiment", Union[tuple(choices)])])  # noqa: UP007
    name = command.__name__.lower()
    return Annotated[kind, tyro.conf.subcommand(name, description=command.__doc__)]


def first_line(config: SequenceConfig) -> str:
    """What an experiment is, in one line."""
    return (inspect.getdoc(config) or "").splitlines()[0]
