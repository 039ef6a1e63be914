"""What l-MAS costs beside global MAS: `python -m experiments.benchmarks.local`.

The paper calls the local version cheaper. Three passes over one batch take turns in one process:

- plain: one ordinary batched backward pass, the gradient of the batch's mean ‖F‖²;
- global: Ω of MAS, by the fused engine;
- local: Ω of l-MAS, by the same engine: gradients are cut between layers, so that the backward
  pass never computes what a layer's input would get.

Memory is what XLA plans for a pass beside its arguments: temporary at the peak, and the result.
"""

import dataclasses
import sys
from pathlib import Path
from typing import Any

import jax
import tyro

import mas_jax
from experiments.benchmarks import passes, record
from experiments.benchmarks.comparison import memory_ratio, num_bytes, seconds, time_ratio
from experiments.benchmarks.markdown import memory, number, spread, table, time
from experiments.benchmarks.models import LARGE, SMALL, Network, num_parameters
from experiments.benchmarks.passes import Pass
from experiments.benchmarks.timing import measured_in_turns

PASSES = ("plain", "global", "local")
RATIOS = (("local", "global"), ("local", "plain"), ("global", "plain"))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Compare time and memory of l-MAS, of MAS and of one plain backward pass, in one process."""

    models: tuple[str, ...] = ()
    """Names; if not given all the small ones on a CPU, all the large ones elsewhere."""
    batch_size: int | None = None
    """Samples per batch, for all models; if not given each has its own."""
    repeats: int = 20
    """Rounds of timings; ratios are taken round by round, and their median is reported."""
    timing_seconds: float = 0.1
    """How long a timing takes at least; what is faster runs several times in it."""
    out: Path = Path("runs/benchmarks/local.json")
    """Where the measurements go."""
    read: Path | None = None
    """Print the table of such a file, and measure nothing."""


def main(options: Options) -> None:
    """Measure, write JSON, print the table."""
    if options.read is not None:
        print(tables(record.read(options.read)))
        return
    networks: dict[str, Any] = {}
    report = {**record.conditions(options), "networks": networks}
    for name, network in chosen(options).items():
        print(f"{network.title}, batch {network.batch_size} …", file=sys.stderr)
        networks[name] = measured(network, options)
        record.write(report, options.out)  # after each, so that nothing measured is lost
    print(tables(report))


def chosen(options: Options) -> dict[str, Network]:
    """The networks that the options name, with the batch that they ask for."""
    every = SMALL | LARGE
    names = options.models or tuple(SMALL if jax.default_backend() == "cpu" else LARGE)
    unknown = [name for name in names if name not in every]
    if unknown:
        raise ValueError(f"no model {', '.join(unknown)}: there are {', '.join(every)}")
    sizes = {name: options.batch_size or every[name].batch_size for name in names}
    return {name: every[name]._replace(batch_size=size) for name, size in sizes.items()}


def measured(network: Network, options: Options) -> dict[str, Any]:
    """Measure one network: as JSON has it, in the shape that `comparison` reads."""
    apply_fn, params = network.init()
    compiled = compiled_passes(apply_fn, params, network.batch())
    runners = {name: each.wait for name, each in compiled.items()}
    return {
        "title": network.title,
        "batch_size": network.batch_size,
        "parameters": num_parameters(params),
        "memory": {name: each.memory for name, each in compiled.items()},
        "turns": [measured_in_turns(runners, options.repeats, options.timing_seconds)],
    }


def compiled_passes(apply_fn: Any, params: Any, batch: jax.Array) -> dict[str, Pass]:
    """The passes of PASSES."""
    local_fn = mas_jax.local_outputs(apply_fn)
    return {
        "plain": passes.one_batch(passes.gradient, apply_fn, params, batch),
        "global": passes.one_batch(passes.importance, apply_fn, params, batch, engine="fused"),
        "local": passes.one_batch(passes.importance, local_fn, params, batch, engine="fused"),
    }


def tables(report: dict[str, Any]) -> str:
    """The table in Markdown, and the conditions."""
    heading = [
        "model, batch",
        *(f"{ours} / {theirs} time" for ours, theirs in RATIOS),
        "local / global memory",
        *PASSES,
    ]
    rows = [_row(network) for network in report["networks"].values()]
    versions, machine = report["versions"], report["machine"]
    device = machine["device"]
    if machine["platform"] == "cpu":
        device = f"{machine['cpu']}, {machine['cores']} cores"
    return (
        f"{table(heading, rows)}\n\nMedians of {report['options']['repeats']} rounds and "
        f"quartiles; jax {versions['jax']}, jaxlib {versions['jaxlib']}, Python "
        f"{versions['python']}; {device}."
    )


def _row(network: dict[str, Any]) -> list[str]:
    """A network's cells."""
    return [
        f"{network['title']}, {network['batch_size']}",
        *[spread(time_ratio(network, ours, theirs)) for ours, theirs in RATIOS],
        number(memory_ratio(network, "local", "global")),
        *[f"{time(seconds(network, name))}, {memory(num_bytes(network, name))}" for name in PASSES],
    ]


if __name__ == "__main__":
    main(tyro.cli(Options))
