"""How time and memory of importance grow: `python -m experiments.benchmarks.scaling`.

For an MLP and a CNN, as the batch, the width and the depth grow, one at a time. What is compared
is told in `comparison`; of vmap with the whole batch at once only the memory is taken, which
needs no run. That of the fused engine is to be that of a plain backward pass at every batch: what
grows there are activations.
"""

import dataclasses
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple

import flax.linen as nn
import tyro

from experiments.benchmarks import record
from experiments.benchmarks.comparison import Measuring, measured
from experiments.benchmarks.curves import draw, middle, points_table, ranges
from experiments.benchmarks.models import CNN, MLP, Network
from experiments.report.pictures import render


class Family(NamedTuple):
    """Networks of one kind, by width and depth."""

    title: str
    make: Callable[[tuple[int, ...]], nn.Module]  # from the widths of all layers
    sample_shape: tuple[int, ...]


FAMILIES = {
    "mlp": Family("MLP", MLP, (784,)),
    "cnn": Family("CNN, 32×32", CNN, (32, 32, 3)),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options(Measuring):
    """Plot time and memory of the engines and of a plain backward pass as sizes grow."""

    families: tuple[Literal["mlp", "cnn"], ...] = ("mlp", "cnn")
    """Kinds of networks."""
    repeats: int = 5
    """Rounds of timings; medians are shown."""
    vmap_repeats: int = 1
    """Rounds of those with the vmap engine, which is slow."""
    batch_sizes: tuple[int, ...] = (16, 32, 64, 128, 256, 512, 1024)
    """Samples per batch, at the middle width and depth."""
    mlp_widths: tuple[int, ...] = (128, 256, 512, 1024, 2048)
    """Units per layer, at the middle batch and depth."""
    cnn_widths: tuple[int, ...] = (8, 16, 32, 64, 128)
    """Channels per layer, likewise."""
    depths: tuple[int, ...] = (1, 2, 3, 4, 5)
    """Hidden layers, at the middle batch and width."""
    out: Path = Path("runs/benchmarks/scaling.json")
    """Where the measurements go; the picture goes beside it, as a PNG file."""
    read: Path | None = None
    """Print and draw such a file, into `out`'s folder, and measure nothing."""


class Point(NamedTuple):
    """One size of one family."""

    family: str
    batch_size: int
    width: int
    depth: int

    def network(self) -> Network:
        """The network of this size, with its batch."""
        title, make, sample_shape = FAMILIES[self.family]
        module = make((self.width,) * self.depth)
        return Network(title, module, sample_shape, self.batch_size)


def main(options: Options) -> None:
    """Measure, write JSON, print the table and draw the picture."""
    report = record.read(options.read) if options.read else _measured(options)
    print(points_table(report))
    picture = options.out.with_suffix(".png")
    picture.parent.mkdir(parents=True, exist_ok=True)
    picture.write_bytes(render(draw(report), picture.name).content)


def points(options: dict[str, Any]) -> list[Point]:
    """Every size to be measured, each once: the curves of a family cross in the middle."""
    every = [
        Point(family, **{**middle(options, family), axis: value})
        for family in options["families"]
        for axis, values in ranges(options, family).items()
        for value in values
    ]
    return list(dict.fromkeys(every))


def _measured(options: Options) -> dict[str, Any]:
    """The report, written after every point, so that nothing measured is lost."""
    report = {**record.conditions(options), "points": []}
    for point in points(report["options"]):
        print(*point, file=sys.stderr)
        turns = [("plain", "fused"), ("fused", "vmap")]
        measurements = measured(point.network(), turns, options, memory_only={"whole"})
        report["points"].append({**point._asdict(), **measurements})
        record.write(report, options.out)
    return report


if __name__ == "__main__":
    main(tyro.cli(Options))
