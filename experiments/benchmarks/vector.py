"""Importance from every output beside that from ‖F‖²: `python -m experiments.benchmarks.vector`.

The paper (section 4.1) prefers ‖F‖² to the vector output because the latter takes a backward pass
for each of n outputs. What that costs is measured here: Ω of one batch with magnitude "l2" and
"abs" of `every_output`, over Ω of ‖F‖², by each engine, in one process and in turns.
"""

import dataclasses
import sys
from pathlib import Path
from typing import Any

import tyro

import mas_jax
from experiments.benchmarks import passes, record
from experiments.benchmarks.markdown import memory, spread, table, time
from experiments.benchmarks.models import SMALL, Network, num_parameters
from experiments.benchmarks.passes import Pass
from experiments.benchmarks.timing import measured_in_turns, ratio

KINDS: dict[str, dict[str, Any]] = {
    "squared": {},
    "l2": {"objective": mas_jax.every_output, "magnitude": "l2"},
    "l1": {"objective": mas_jax.every_output, "magnitude": "abs"},
}
"""Options of the estimator; the first one is what the others are compared with."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Compare the time of Ω from every output with that of Ω from ‖F‖²."""

    models: tuple[str, ...] = ("mlp", "cnn32")
    """Names of networks in `models.SMALL`."""
    outputs: tuple[int, ...] = (10, 100)
    """How many outputs to give each."""
    engines: tuple[str, ...] = ("fused", "vmap")
    """Whose passes to time."""
    batch_size: int = 32
    """Samples per batch."""
    repeats: int = 10
    """Rounds of timings of the fused engine; the median of their ratios is reported."""
    vmap_repeats: int = 3
    """Those of the vmap engine, which is slow."""
    timing_seconds: float = 0.1
    """How long a timing takes at least; what is faster runs several times in it."""
    out: Path = Path("runs/benchmarks/vector.json")
    """Where the measurements go."""
    read: Path | None = None
    """Print the table of such a file, and measure nothing."""


def main(options: Options) -> None:
    """Measure, write JSON, print the table."""
    if options.read is not None:
        print(tables(record.read(options.read)))
        return
    rows: list[dict[str, Any]] = []
    report = {**record.conditions(options), "rows": rows}
    for network in chosen(options):
        for engine in options.engines:
            print(f"{network.title}, {engine} …", file=sys.stderr)
            rows.append(measured(network, engine, options))
            record.write(report, options.out)  # after each, so that nothing measured is lost
    print(tables(report))


def chosen(options: Options) -> list[Network]:
    """Each of the networks with each number of outputs."""
    unknown = [name for name in options.models if name not in SMALL]
    if unknown:
        raise ValueError(f"no model {', '.join(unknown)}: there are {', '.join(SMALL)}")
    return [
        SMALL[name]._replace(
            title=f"{SMALL[name].title.removesuffix('-10')}, {outputs} outputs",
            module=SMALL[name].module.clone(outputs=outputs),
            batch_size=options.batch_size,
        )
        for name in options.models
        for outputs in options.outputs
    ]


def measured(network: Network, engine: str, options: Options) -> dict[str, Any]:
    """Seconds and bytes of each kind of Ω, by one engine."""
    apply_fn, params = network.init()
    batch = network.batch()
    compiled: dict[str, Pass] = {
        kind: passes.one_batch(passes.importance, apply_fn, params, batch, engine=engine, **given)
        for kind, given in KINDS.items()
    }
    repeats = options.repeats if engine == "fused" else options.vmap_repeats
    runners = {kind: each.wait for kind, each in compiled.items()}
    return {
        "title": network.title,
        "engine": engine,
        "batch_size": network.batch_size,
        "parameters": num_parameters(params),
        "seconds": measured_in_turns(runners, repeats, options.timing_seconds),
        "memory": {kind: sum(each.memory.values()) for kind, each in compiled.items()},
    }


def tables(report: dict[str, Any]) -> str:
    """The measurements in Markdown."""
    heading = ["network, batch", "engine", "‖F‖²", "ℓ2 / ‖F‖² time", "ℓ1 / ‖F‖² time", "ℓ2 memory"]
    options, versions, machine = report["options"], report["versions"], report["machine"]
    conditions = (
        f"Medians of {options['repeats']} rounds (of {options['vmap_repeats']} by vmap) and "
        f"quartiles; jax {versions['jax']}, {machine['cpu'] or machine['device']}."
    )
    return f"{table(heading, [_cells(row) for row in report['rows']])}\n\n{conditions}"


def _cells(row: dict[str, Any]) -> list[str]:
    """One network and engine."""
    seconds, held = row["seconds"], row["memory"]
    return [
        f"{row['title']}, {row['batch_size']}",
        row["engine"],
        f"{time(seconds['squared'])}, {memory(held['squared'])}",
        *[spread(ratio(seconds[kind], seconds["squared"])) for kind in ("l2", "l1")],
        memory(held["l2"]),
    ]


if __name__ == "__main__":
    main(tyro.cli(Options))
