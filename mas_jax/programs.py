"""A jaxpr written out: ordinary calls in place of their names, and numbers in place of variables.

A body that is called twice has the same variables both times; the values have a number each.
"""

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

from mas_jax.fused import jaxprs


class Step(NamedTuple):
    """One equation."""

    eqn: Any
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    name: str  # of the operation, or of the activation function that it is a part of
    body: "Program | None"  # inside a scan or a checkpoint

    def as_scan(self) -> jaxprs.Scan | None:
        """How the inputs of a scan divide; None for everything else."""
        body = jaxprs.call_body(self.eqn)
        if body is None or self.eqn.primitive.name != "scan":
            return None
        return jaxprs.scan_of(self.eqn, body.jaxpr)


class Program(NamedTuple):
    """Steps in order; all but `constants` and `inputs` is returned by one of them."""

    constants: dict[int, Any]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    steps: tuple[Step, ...]


def written_out(closed: Any) -> Program:
    """The program of a jaxpr, without steps that nothing needs."""
    numbers = itertools.count()
    constants: dict[int, Any] = {}
    steps: list[Step] = []

    def constant(value: Any) -> int:
        number = next(numbers)
        constants[number] = value
        return number

    def follow(closed: Any, inputs: Sequence[int], name: str | None) -> tuple[int, ...]:
        jaxpr = closed.jaxpr
        env = dict(zip(jaxpr.constvars, map(constant, closed.consts), strict=True))
        env |= dict(zip(jaxpr.invars, inputs, strict=True))

        def read(atom: Any) -> int:
            return constant(atom.val) if jaxprs.is_literal(atom) else env[atom]

        for eqn in jaxpr.eqns:
            operands = tuple(map(read, eqn.invars))
            elementwise, body = jaxprs.is_elementwise(eqn), jaxprs.call_body(eqn)
            known_as = name or (jaxprs.call_name(eqn) if elementwise else None)
            if body is not None and eqn.primitive.name in jaxprs.CALLS:
                returned = follow(body, operands, known_as)
            else:
                returned = tuple(next(numbers) for _ in eqn.outvars)
                inside = None if body is None or elementwise else written_out(body)
                known_as = known_as or jaxprs.call_name(eqn)
                steps.append(Step(eqn, operands, returned, known_as, inside))
            env |= dict(zip(eqn.outvars, returned, strict=True))
        return tuple(map(read, jaxpr.outvars))

    inputs = tuple(next(numbers) for _ in closed.jaxpr.invars)
    outputs = follow(closed, inputs, None)
    return Program(constants, inputs, outputs, _needed(steps, outputs))


def _needed(steps: list[Step], outputs: Sequence[int]) -> tuple[Step, ...]:
    """The steps that the outputs are computed by, or that have effects."""
    wanted, needed = set(outputs), []
    for step in reversed(steps):
        if step.eqn.effects or not wanted.isdisjoint(step.outputs):
            needed.append(step)
            wanted.update(step.inputs)
    return tuple(reversed(needed))
