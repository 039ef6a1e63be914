"""The long part: every file operation failed and survived, a thousand damages and more, kills.

`python -m tests.faults --out tests/faults/figures.json` takes about half an hour on two cores.
`--part`, `--operation` and `--number` run one part, or one case of it, again. Parts that are run
apart, one on each core say, come together in one file; each says of which commit it is.
"""

import argparse
import collections
import json
import pathlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from tests.faults import parts
from tests.faults.cases import Bench
from tests.faults.made import made
from tests.faults.parts import Only, Outcome

SHOWN = 20
"""How many failures of a part are kept in full."""


def main() -> None:
    """Run what was asked for; exit with status 1 where a case failed."""
    options = _options()
    about, figures = {"seed": options.seed, **made()}, {}
    only = Only(options.operation, options.number)
    for name, part in _parts(options.seed, only).items():
        if not options.part or name in options.part:
            figures[name] = {"commit": about["commit"], **_figures(name, part, options.seed)}
    if options.out is not None:
        every = {**_tried_before(options.out, about), **figures}
        about["seconds"] = sum(part["seconds"] for part in every.values())
        options.out.write_text(json.dumps({**about, "parts": every}, indent=1) + "\n")
    tried = sum(part["tried"] for part in figures.values())
    failed = sum(part["failed"] for part in figures.values())
    print(f"{tried} cases, {failed} failures, seed {options.seed}, commit {about['commit']}")
    sys.exit(bool(failed) or not tried)


def _tried_before(file: pathlib.Path, about: dict[str, Any]) -> dict[str, Any]:
    """The figures of other parts that `file` holds, if they are of the same seed."""
    if not file.exists():
        return {}
    held = json.loads(file.read_text())
    return held["parts"] if held["seed"] == about["seed"] else {}


def _options() -> argparse.Namespace:
    """What was typed."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--out", type=pathlib.Path, help="where the figures go, as JSON")
    parser.add_argument("--seed", type=int, default=parts.seed_given())
    parser.add_argument("--part", nargs="+", choices=list(_parts(0, Only())), default=[])
    parser.add_argument("--operation", nargs="+", help="what is done, of the part's cases")
    parser.add_argument("--number", type=int, help="the case's number within it")
    return parser.parse_args()


def _parts(seed: int, only: Only) -> dict[str, Callable[[], Iterator[Outcome]]]:
    """The parts by name."""

    def on_bench(stream: Callable[..., Iterator[Outcome]], *arguments: Any) -> Any:
        def run() -> Iterator[Outcome]:
            with Bench() as bench:
                yield from stream(bench, *arguments)

        return run

    modes = {
        mode.name.lower(): on_bench(parts.every_operation, mode, only)
        for mode in (*parts.ERRORS, *parts.KILLS)
    }
    return {
        **modes,
        "file size limit": on_bench(parts.full_disks, only),
        "clock kills": on_bench(parts.clock_kills, seed, only),
        "damage": lambda: parts.damages(seed, only),
        "damage of runs": lambda: parts.damages_of_runs(seed, only),
    }


def _figures(name: str, part: Callable[[], Iterator[Outcome]], seed: int) -> dict[str, Any]:
    """How many cases of a part were tried, and which failed."""
    begun, tried, failures = time.perf_counter(), 0, []
    endings = collections.Counter[str]()
    for outcome in part():
        tried += 1
        if outcome.ending and not outcome.failure:
            endings[outcome.ending] += 1
        if outcome.failure:
            failures.append(outcome._asdict())
            print(f"{outcome.case}: {outcome.failure}\n  {parts.again(name, outcome, seed)}")
    seconds = round(time.perf_counter() - begun)
    told = "".join(f", {ending} {number}" for ending, number in endings.items())
    print(f"{name}: {tried} cases, {len(failures)} failures{told}, {seconds} s", flush=True)
    return {
        "tried": tried,
        "failed": len(failures),
        **endings,
        "seconds": seconds,
        "failures": failures[:SHOWN],
    }


if __name__ == "__main__":
    main()
