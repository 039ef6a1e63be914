"""Where the layers of a network begin and end, found in the jaxpr of one sample.

The rule is told in `local.local_outputs`. A value of the jaxpr is computed from constants, from
parameters alone, or from the sample, too (its `Kind`). Layers begin where the last two meet.
"""

import heapq
import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple, TypeAlias

import jax.numpy as jnp

from mas_jax.fused import jaxprs
from mas_jax.programs import Program, Step

Kind: TypeAlias = frozenset[int] | None
"""The numbers of the parameters that a value is computed from, none for a constant; or None: the
sample, too."""


class Layer(NamedTuple):
    """One layer: what it returns, and how that came about."""

    values: tuple[int, ...]  # its output, by their numbers in the program: mostly one
    leaves: tuple[int, ...]  # the parameters in it, in the order of their use
    size: int  # entries of its output
    operation: str  # the last that computed anything


class Body(NamedTuple):
    """The inside of a scan or a checkpoint that has layers in it."""

    layered: "Layered"
    entering: dict[int, Layer]  # by input: parameters that a scan carries on as activations
    length: int  # times that it is run


class Layered(NamedTuple):
    """A program, and its layers by the number of the step that returns their output."""

    program: Program
    ends: dict[int, Layer]
    bodies: dict[int, Body]

    def all_layers(self) -> list[Layer]:
        """Every layer, in the order in which evaluation comes to them."""
        found: list[Layer] = []
        for number in range(len(self.program.steps)):
            if number in self.bodies:
                body = self.bodies[number]
                found += body.entering.values()
                found += [
                    layer._replace(size=layer.size * body.length)
                    for layer in body.layered.all_layers()
                ]
            elif number in self.ends:
                found.append(self.ends[number])
        return found


def find_layers(program: Program, inputs: Sequence[Kind]) -> Layered:
    """The layers of a program whose inputs are of these kinds."""
    graph = _graph(program, _kinds(program, inputs))
    ends: dict[int, Layer] = {}
    bodies: dict[int, Body] = {}
    members: set[int] = set()
    for start, step in enumerate(program.steps):
        given = graph.kinds_of(step)
        if start in members or not _meet(given):
            continue
        if step.body is not None:
            bodies[start] = _find_inside(step, step.body, given)
            continue
        chain = _up_to_output(graph, _chain(graph, start, members))
        if _has_gradient(program.steps[chain[-1]]):
            members.update(chain)
            ends[chain[-1]] = _layer(graph, chain)
    return Layered(program, ends, bodies)


def _meet(kinds: Iterable[Kind]) -> bool:
    """Whether parameters meet the sample."""
    kinds = list(kinds)
    return None in kinds and any(kinds)


def _find_inside(step: Step, body: Program, given: list[Kind]) -> Body:
    """The layers inside a scan or a checkpoint."""
    entered = _entered(step, body, given)
    entering = {
        operand: Layer(
            (step.inputs[operand],), tuple(sorted(kind)), step.eqn.invars[operand].aval.size, "scan"
        )
        for operand, kind in enumerate(given)
        if kind and entered[operand] is None
    }
    length = step.eqn.params.get("length", 1)
    return Body(find_layers(body, entered), entering, length)


# Kinds.


def _kinds(program: Program, inputs: Sequence[Kind]) -> dict[int, Kind]:
    """The kind of every value."""
    kinds: dict[int, Kind] = {value: frozenset() for value in program.constants}
    kinds.update(zip(program.inputs, inputs, strict=True))
    for step in program.steps:
        given = [kinds[value] for value in step.inputs]
        if step.body is None:
            returned = [_joined(given)] * len(step.outputs)
        else:
            inside = _kinds(step.body, _entered(step, step.body, given))
            returned = [inside[value] for value in step.body.outputs]
        kinds.update(zip(step.outputs, returned, strict=True))
    return kinds


def _joined(kinds: Iterable[Kind]) -> Kind:
    """The kind of what is computed from values of these kinds."""
    leaves: frozenset[int] = frozenset()
    for kind in kinds:
        if kind is None:
            return None
        leaves |= kind
    return leaves


def _entered(step: Step, body: Program, given: list[Kind]) -> list[Kind]:
    """The kinds of a body's inputs: of what a scan carries, over all its steps."""
    scan = step.as_scan()
    if scan is None:
        return given
    end = scan.num_consts + scan.num_carry
    while True:
        inside = _kinds(body, given)
        carried = [
            _joined([before, inside[value]])
            for before, value in zip(given[scan.num_consts : end], body.outputs, strict=False)
        ]
        joined = [*given[: scan.num_consts], *carried, *given[end:]]
        if joined == given:
            return given
        given = joined


# Chains.


class _Graph(NamedTuple):
    """A program with what is to be known of its values."""

    steps: tuple[Step, ...]
    kinds: dict[int, Kind]
    makers: dict[int, int]  # value -> the step that returns it
    users: dict[int, list[int]]  # value -> the steps that take it
    returned: frozenset[int]  # what the program returns

    def kinds_of(self, step: Step) -> list[Kind]:
        """The kinds of what a step takes."""
        return [self.kinds[value] for value in step.inputs]

    def users_of(self, step: Step) -> list[int]:
        """The steps that take what a step returns."""
        return [user for value in step.outputs for user in self.users.get(value, [])]


def _graph(program: Program, kinds: dict[int, Kind]) -> _Graph:
    """The graph of a program."""
    makers, users = {}, {}
    for number, step in enumerate(program.steps):
        makers.update(dict.fromkeys(step.outputs, number))
        for value in step.inputs:
            users.setdefault(value, []).append(number)
    return _Graph(program.steps, kinds, makers, users, frozenset(program.outputs))


def _chain(graph: _Graph, start: int, members: set[int]) -> list[int]:
    """The steps that go on from `start` elementwise, in order; `members` are other layers'."""
    chain, inside = [start], set(graph.steps[start].outputs)
    queue = graph.users_of(graph.steps[start])
    heapq.heapify(queue)
    while queue:
        number = heapq.heappop(queue)
        step = graph.steps[number]
        known = number == chain[-1] or number in members
        if known or not _goes_on(graph, start, members, step, inside):
            continue
        chain.append(number)
        inside.update(step.outputs)
        for user in graph.users_of(step):
            heapq.heappush(queue, user)
    return chain


def _goes_on(graph: _Graph, start: int, members: set[int], step: Step, inside: set[int]) -> bool:
    """Whether a step that takes values of a chain (`inside`) belongs to it."""
    if not jaxprs.is_elementwise(step.eqn):
        return False
    operands = list(zip(step.inputs, step.eqn.invars, strict=True))
    sizes = {atom.aval.size for value, atom in operands if value in inside}
    # Entries that are repeated make another array of it.
    if sizes != {var.aval.size for var in step.eqn.outvars}:
        return False
    others = [value for value, _ in operands if value not in inside and graph.kinds[value] is None]
    return not others or _normalises(graph, start, members, step, others)


def _normalises(
    graph: _Graph, start: int, members: set[int], step: Step, others: list[int]
) -> bool:
    """Whether a scale, divided by a deviation, now meets what the deviation was taken of.

    Layer normalisation computes x̂ γ = (x − μ) (γ / σ): γ meets the sample in γ / σ already.
    """
    first = graph.steps[start]
    if not jaxprs.is_elementwise(first.eqn) or step.eqn.primitive.name not in ("mul", "div"):
        return False
    varying = [value for value in first.inputs if graph.kinds[value] is None]
    there, here = (_sources(graph, start, members, values) for values in (varying, others))
    return there is not None and here is not None and here <= there


def _sources(
    graph: _Graph, start: int, members: set[int], values: Sequence[int]
) -> set[int] | None:
    """The layers' outputs and inputs that `values` come from; None if layers from `start` on do."""
    found: set[int] = set()
    seen: set[int] = set()
    stack = list(values)
    while stack:
        value = stack.pop()
        if value in seen:
            continue
        seen.add(value)
        number = graph.makers.get(value)
        if number is None or number in members:
            found.add(value)
            continue
        step = graph.steps[number]
        if not _meet(graph.kinds_of(step)):
            stack += [value for value in step.inputs if graph.kinds[value] is None]
        elif number < start:
            found.add(value)
        else:
            return None
    return found


def _up_to_output(graph: _Graph, chain: list[int]) -> list[int]:
    """The chain, cut after the last step whose output all passes through that leaves it."""
    positions = {number: position for position, number in enumerate(chain)}
    end, reach = 0, 0.0
    for position, number in enumerate(chain):
        step = graph.steps[number]
        if reach <= position:
            # What passes through a truth value has no gradient any more.
            if not _has_gradient(step):
                break
            end = position
        leaves = not graph.returned.isdisjoint(step.outputs)
        reached = [positions.get(user, math.inf) for user in graph.users_of(step)]
        reach = max([reach, *reached, math.inf if leaves else 0.0])
    return chain[: end + 1]


def _has_gradient(step: Step) -> bool:
    """Whether a step returns numbers that can have a gradient."""
    return any(jnp.issubdtype(var.aval.dtype, jnp.inexact) for var in step.eqn.outvars)


def _layer(graph: _Graph, chain: list[int]) -> Layer:
    """What is to be known of the layer that is this chain."""
    steps = [graph.steps[number] for number in chain]
    leaves = [
        leaf for step in steps for kind in graph.kinds_of(step) for leaf in sorted(kind or ())
    ]
    outputs = [
        (value, var.aval.size)
        for value, var in zip(steps[-1].outputs, steps[-1].eqn.outvars, strict=True)
        if jnp.issubdtype(var.aval.dtype, jnp.inexact)
    ]
    computing = [step for step in steps if not jaxprs.is_pure_move(step.eqn)]
    return Layer(
        tuple(value for value, _ in outputs),
        tuple(dict.fromkeys(leaves)),
        sum(size for _, size in outputs),
        (computing or steps)[-1].name,
    )
