"""How the numbers were made: commands, seeds, settings, versions, machine, wall times."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from experiments.report.markup import (
    Markup,
    column_header,
    element,
    group_header,
    join,
    row_header,
    table,
)
from experiments.report.sections import Float64Array, Method, Section
from experiments.report.tables import NOTHING, name_of


def commands(section: Section) -> Markup:
    """The command lines, each once, with the methods that it ran."""
    return join(
        [
            element("p", map(name_of, methods), class_="whose"),
            element("pre", element("code", command), tabindex=0),
        ]
        for command, methods in _alike(section, lambda method: method.result.command)
    )


def seeds_list(section: Section) -> Markup:
    """The seeds, finished and not, with the methods that used them."""
    return element(
        "ul",
        [
            element("li", map(name_of, methods), element("span", text))
            for text, methods in _alike(section, _seeds)
        ],
        class_="plain",
    )


def settings_table(section: Section) -> Markup:
    """The settings that determine the numbers."""
    settings = [_flat(method.result.config) for method in section.made]
    return _comparison("Settings", section, settings)


def environment_table(section: Section) -> Markup:
    """Versions of Python and the packages, and the machine."""
    environments = [
        _environment(method.result.versions, method.result.machine) for method in section.made
    ]
    return _comparison("Versions and machine", section, environments)


def values_table(caption: str, versions: Mapping[str, Any], machine: Mapping[str, Any]) -> Markup:
    """Versions and machine of what was made in one go."""
    rows = [
        _comparison_row(name, [_text(value)], 1)
        for name, value in _environment(versions, machine).items()
    ]
    return table(caption, [[column_header("Name"), column_header("Value")]], rows, class_="words")


def times_table(section: Section) -> Markup:
    """Wall times by phase: of one seed on average, and of all seeds together."""
    done = [method for method in section.made if method.finished]
    times = {method.label: _times(method) for method in done}
    phases = list(dict.fromkeys(phase for of_method in times.values() for phase in of_method))
    groups = ("One seed, mean", "All seeds, total")
    head = [
        [
            column_header("Method", rowspan=2),
            *(group_header(group, colspan=len(phases) + 1) for group in groups),
        ],
        [column_header(name) for _ in groups for name in (*phases, "all phases")],
    ]
    rows = [
        element(
            "tr",
            row_header(name_of(method)),
            [
                element("td", f"{seconds:.2f}")
                for seconds in _means_and_totals(method, times[method.label], phases)
            ],
        )
        for method in done
    ]
    return table("Wall times, seconds", head, rows)


def _environment(versions: Mapping[str, Any], machine: Mapping[str, Any]) -> dict[str, Any]:
    """The machine's properties, then the versions."""
    return {**{f"machine: {key}": value for key, value in machine.items()}, **versions}


def _alike(section: Section, text_fn: Callable[[Method], str]) -> list[tuple[str, list[Method]]]:
    """Each text once, with the methods it belongs to."""
    methods: dict[str, list[Method]] = {}
    for method in section.made:
        methods.setdefault(text_fn(method), []).append(method)
    return list(methods.items())


def _seeds(method: Method) -> str:
    """A method's seeds in words, and what its data lacked."""
    seeds = dict.fromkeys(str(record.seed) for record in method.result.seeds)
    finished = ", ".join(seeds) or "none finished"
    unfinished = ", ".join(map(str, method.unfinished))
    left_out = [
        f"; left out {count} {'picture' if count == 1 else 'pictures'} of {task} that could not be "
        "read"
        for task, count in zip(method.result.tasks, method.result.skipped, strict=False)
        if count
    ]
    ending = f"; unfinished: {unfinished}" if unfinished else ""
    return f"seeds: {finished}{ending}{''.join(left_out)}"


def _times(method: Method) -> dict[str, Float64Array]:
    """Seconds by phase, of each finished seed."""
    records = method.result.seeds
    phases = dict.fromkeys(phase for record in records for row in record.seconds for phase in row)
    return {
        phase: np.array([sum(row.get(phase, 0.0) for row in r.seconds) for r in records])
        for phase in phases
    }


def _means_and_totals(
    method: Method, times: Mapping[str, Float64Array], phases: list[str]
) -> list[float]:
    """The numbers of one row: means over seeds by phase and of all, then totals likewise."""
    nothing = np.zeros(len(method.result.seeds))
    by_phase = [times.get(phase, nothing) for phase in phases]
    columns = [*by_phase, sum(by_phase, nothing)]
    return [float(c.mean()) for c in columns] + [float(c.sum()) for c in columns]


def _comparison(caption: str, section: Section, columns: list[dict[str, Any]]) -> Markup:
    """Name and value; a column per method if any value is not the same for all."""
    names = list(dict.fromkeys(name for column in columns for name in column))
    values = {name: [_text(column.get(name, NOTHING)) for column in columns] for name in names}
    if section.crowded:
        return _common_and_own(caption, section, values)
    if all(len(set(of_name)) == 1 for of_name in values.values()):
        head = [column_header("Name"), column_header("Value")]
    else:
        head = [column_header("Name"), *(column_header(name_of(m)) for m in section.made)]
    rows = [_comparison_row(name, values[name], len(head) - 1) for name in names]
    return table(caption, [head], rows, class_="words")


def _common_and_own(caption: str, section: Section, values: dict[str, list[str]]) -> Markup:
    """What is the same for all as one table, and what is not as another with a row per method."""
    common = {name: texts[0] for name, texts in values.items() if len(set(texts)) == 1}
    # The method's name heads its row.
    own = {n: texts for n, texts in values.items() if n not in common and n != "method.name"}
    rows = [_comparison_row(name, [text], 1) for name, text in common.items()]
    head = [column_header("Name"), column_header("Value")]
    tables = [table(f"{caption}, the same for all", [head], rows, class_="words")] if rows else []
    if own:
        rows = [
            element("tr", row_header(name_of(method)), element("td", _own(own, position)))
            for position, method in enumerate(section.made)
        ]
        head = [column_header("Method"), column_header("Its own")]
        tables.append(table(f"{caption} that differ", [head], rows, class_="words"))
    return join(tables)


def _own(values: dict[str, list[str]], position: int) -> str:
    """A method's settings that others do not share, in words."""
    pairs = [(name, texts[position]) for name, texts in values.items()]
    return ", ".join(f"{name} = {text}" for name, text in pairs if text != NOTHING) or NOTHING


def _comparison_row(name: str, values: list[str], width: int) -> Markup:
    """One cell for all where the values are the same."""
    if len(set(values)) == 1:
        return element("tr", row_header(name), element("td", values[0], colspan=width))
    cells = [element("td", value) for value in values]
    return element("tr", row_header(name), cells, class_="differs")


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings under dotted names."""
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping) and value:
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _text(value: Any) -> str:
    """A setting's value as one reads it.

    >>> [_text(x) for x in (0.2, None, [256, 256], [[1, 2], [3, 4]])]
    ['0.2', 'none', '256, 256', '(1, 2), (3, 4)']
    """
    if isinstance(value, list | tuple):
        parts = [f"({_text(v)})" if isinstance(v, list | tuple) else _text(v) for v in value]
        return ", ".join(parts) if parts else "none"
    return "none" if value is None else str(value)
