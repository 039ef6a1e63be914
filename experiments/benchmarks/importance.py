"""Exact importance beside one plain backward pass: `python -m experiments.benchmarks.importance`.

What is compared, and why that is fair, is told in `comparison` and `passes`.
"""

import dataclasses
import sys
from pathlib import Path
from typing import Any

import jax
import tyro

from experiments.benchmarks import record
from experiments.benchmarks.comparison import (
    Measuring,
    Turn,
    measured,
    memory_ratio,
    num_bytes,
    seconds,
    time_ratio,
)
from experiments.benchmarks.markdown import memory, number, spread, table, time
from experiments.benchmarks.models import LARGE, SMALL, Network, num_parameters

LIMITS = {
    "mlp": {"time": 1.15, "memory": 1.15, "vmap_time": 100},
    "cnn32": {"time": 1.10, "memory": 1.15, "vmap_time": 2.5},
    "cnn96": {"time": 1.10, "memory": 1.15, "vmap_time": 5},
    "vit": {"time": 1.15, "memory": 1.15, "vmap_time": 1.8},
    "squeezenet": {"time": 1.20, "memory": 1.20, "vmap_time": 2},
}
"""On two CPU cores: fused / plain at most, vmap / fused at least."""

PASSES = {
    "plain": "plain",
    "fused": "fused",
    "whole": "vmap(grad)",
    "vmap": "vmap engine",
    "sum": "sum of gradients",
    "update": "update",
}
"""What the second table calls them."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options(Measuring):
    """Compare time and memory of the engines and of one plain backward pass, in one process."""

    models: tuple[str, ...] = ()
    """Names; if not given all the small ones on a CPU, all the large ones elsewhere."""
    batch_size: int | None = None
    """Samples per batch, for all models; if not given each has its own."""
    whole_bytes: int = 2**32
    """vmap with the whole batch is left out where its gradients would take more than this."""
    out: Path = Path("runs/benchmarks/importance.json")
    """Where the measurements go."""
    read: Path | None = None
    """Print the tables of such a file, and measure nothing."""


def main(options: Options) -> None:
    """Measure, write JSON, print the tables."""
    if options.read is not None:
        print(tables(record.read(options.read)))
        return
    networks: dict[str, Any] = {}
    report = {**record.conditions(options), "networks": networks}
    for name, network in chosen(options).items():
        print(f"{network.title}, batch {network.batch_size} …", file=sys.stderr)
        networks[name] = {
            "limits": limits(name, network),
            **measured(network, turns(network, options), options),
        }
        record.write(report, options.out)  # after each, so that nothing measured is lost
    print(tables(report))


def chosen(options: Options) -> dict[str, Network]:
    """The networks that the options name, with the batch that they ask for."""
    every = SMALL | LARGE
    names = options.models or tuple(SMALL if jax.default_backend() == "cpu" else LARGE)
    unknown = [name for name in names if name not in every]
    if unknown:
        raise ValueError(f"no model {', '.join(unknown)}: there are {', '.join(every)}")
    networks = {name: every[name] for name in names}
    if options.batch_size is None:
        return networks
    return {
        name: network._replace(batch_size=options.batch_size) for name, network in networks.items()
    }


def limits(name: str, network: Network) -> dict[str, float]:
    """A network's limits; none where it is not as they are meant for."""
    as_meant = jax.default_backend() == "cpu" and network == SMALL.get(name)
    return LIMITS[name] if as_meant else {}


def turns(network: Network, options: Options) -> list[Turn]:
    """What is measured in turns with what."""
    _, params = jax.eval_shape(network.init)
    fits = 4 * num_parameters(params) * network.batch_size <= options.whole_bytes
    vmap = ("fused", "vmap", "whole") if fits else ("fused", "vmap")
    return [("plain", "fused"), ("sum", "update"), vmap]


def tables(report: dict[str, Any]) -> str:
    """The measurements in Markdown: ratios and their limits, then what they are the ratios of."""
    networks = report["networks"].values()
    ratios = table(
        [
            "model, batch",
            "fused / plain time",
            "fused / plain memory",
            "vmap(grad) / fused time",
            "vmap engine / fused time",
        ],
        [[_name(network), *_ratios(network)] for network in networks],
    )
    rest = table(
        ["model, batch", "parameters", *PASSES.values(), "update / sum time", "fused − vmap"],
        [[_name(network), *_details(network)] for network in networks],
    )
    return f"{ratios}\n\n{rest}\n\n{_conditions(report)}"


def _name(network: dict[str, Any]) -> str:
    return f"{network['title']}, {network['batch_size']}"


def _ratios(network: dict[str, Any]) -> list[str]:
    """The cells of the first table: ratio, its quartiles, and whether the limit is held."""
    limits = network["limits"]
    fused, vmap = time_ratio(network, "fused", "plain"), limits.get("vmap_time")
    held = memory_ratio(network, "fused", "plain")
    return [
        spread(fused) + _at_most(fused.median, limits.get("time")),
        number(held) + _at_most(held, limits.get("memory")),
        *[_vmap_ratio(network, name, vmap) for name in ("whole", "vmap")],
    ]


def _vmap_ratio(network: dict[str, Any], name: str, limit: float | None) -> str:
    """How many times slower than the fused engine one kind of vmap is, if it was measured."""
    if name not in network["memory"]:
        return "–"
    slower = time_ratio(network, name, "fused")
    return spread(slower) + _at_least(slower.median, limit)


def _details(network: dict[str, Any]) -> list[str]:
    """The cells of the second table."""
    return [
        f"{network['parameters']:,}",
        *[_cost(network, name) for name in PASSES],
        spread(time_ratio(network, "update", "sum")),
        f"{network['largest_difference']:.0e}",
    ]


def _cost(network: dict[str, Any], name: str) -> str:
    """Time and memory of a pass, if it was measured."""
    if name not in network["memory"]:
        return "–"
    return f"{time(seconds(network, name))}, {memory(num_bytes(network, name))}"


def _at_most(value: float, limit: float | None) -> str:
    """The limit after the sign that is true."""
    return "" if limit is None else f" {'≤' if value <= limit else '>'} {limit:g}"


def _at_least(value: float, limit: float | None) -> str:
    """The limit after the sign that is true."""
    return "" if limit is None else f" {'≥' if value >= limit else '<'} {limit:g}"


def _conditions(report: dict[str, Any]) -> str:
    """What the numbers were measured with, and how."""
    versions, machine, options = report["versions"], report["machine"], report["options"]
    cpu = f"{machine['cpu']}, {machine['cores']} cores"
    device = cpu if machine["platform"] == "cpu" else machine["device"]
    return (
        f"Medians of {options['repeats']} rounds (of {options['vmap_repeats']} with vmap) and "
        f"quartiles; jax {versions['jax']}, jaxlib {versions['jaxlib']}, Python "
        f"{versions['python']}; {device}."
    )


if __name__ == "__main__":
    main(tyro.cli(Options))
