"""Evaluate a single-sample jaxpr with sites in the place of its specialised kernels' uses."""

from collections.abc import Sequence
from typing import Any, TypeAlias

import jax

from mas_jax.fused import jaxprs, rules
from mas_jax.fused.sites import Weight, evaluate_site
from mas_jax.per_sample import ReduceFn, VectorMagnitude

Magnitude: TypeAlias = ReduceFn | VectorMagnitude
"""Of a scalar objective's gradient, or of those of a vector's entries."""


def evaluate(
    closed: Any, magnitude: Magnitude, inputs: Sequence[Any], token: Any
) -> tuple[list[Any], Any]:
    """(outputs, token) of a jaxpr some of whose inputs are `Weight`s, used as `plan` allows."""
    jaxpr = closed.jaxpr
    env = dict(zip(jaxpr.constvars, closed.consts, strict=True))
    env |= dict(zip(jaxpr.invars, inputs, strict=True))

    def read(atom: Any) -> Any:
        return atom.val if jaxprs.is_literal(atom) else env[atom]

    for eqn in jaxpr.eqns:
        values = [read(atom) for atom in eqn.invars]
        if any(isinstance(value, Weight) for value in values):
            outputs, token = _evaluate_with_weights(eqn, magnitude, values, token)
        else:
            outputs = jaxprs.bind(eqn, values)
        env |= dict(zip(eqn.outvars, outputs, strict=True))
    return [read(atom) for atom in jaxpr.outvars], token


def _evaluate_with_weights(
    eqn: Any, magnitude: Magnitude, values: list[Any], token: Any
) -> tuple[list[Any], Any]:
    """One equation that has specialised kernels among its inputs."""
    if jaxprs.keeps_every_entry(eqn):
        return [_moved(eqn, values[0])], token
    body = jaxprs.call_body(eqn)
    if body is None:
        return _site(eqn, magnitude, values, token)
    if eqn.primitive.name == "scan":
        return _scan(eqn, body, magnitude, values, token)
    if eqn.primitive.name in jaxprs.CHECKPOINTS:
        recomputed = jax.checkpoint(
            lambda values, token: evaluate(body, magnitude, values, token),
            prevent_cse=eqn.params["prevent_cse"],
            policy=eqn.params["policy"],
        )
        return recomputed(values, token)
    return evaluate(body, magnitude, values, token)


def _moved(eqn: Any, weight: Weight) -> Weight:
    """A reshape or the like, of the slot too: its transpose brings the sum back to the leaf."""
    (value,) = jaxprs.bind(eqn, [weight.value])
    if eqn.primitive.name in jaxprs.RESHAPING:
        (slot,) = jaxprs.bind(eqn, [weight.slot])
        return Weight(value, slot)
    return Weight(value, weight.slot)


def _site(eqn: Any, magnitude: Magnitude, values: list[Any], token: Any) -> tuple[list[Any], Any]:
    """The one use of a kernel."""
    kernel = next(i for i, value in enumerate(values) if isinstance(value, Weight))
    rule = rules.match(eqn, kernel)
    assert not isinstance(rule, str), rule
    y, token = evaluate_site(
        eqn, kernel, rule, magnitude, values[1 - kernel], values[kernel], token
    )
    return [y], token


def _scan(
    eqn: Any, body: Any, magnitude: Magnitude, values: list[Any], token: Any
) -> tuple[list[Any], Any]:
    """A scan over stacked layers: the slots are scanned over, the token is carried."""
    scan = jaxprs.scan_of(eqn, body.jaxpr)
    first_layered = scan.num_consts + scan.num_carry
    consts, carry, layered = (
        values[: scan.num_consts],
        values[scan.num_consts : first_layered],
        values[first_layered:],
    )

    def step(state: Any, layer: Any) -> Any:
        carry, token = state
        outputs, token = evaluate(body, magnitude, [*consts, *carry, *layer], token)
        return (outputs[: scan.num_carry], token), outputs[scan.num_carry :]

    (carry, token), stacked = jax.lax.scan(
        step,
        (carry, token),
        layered,
        length=eqn.params["length"],
        reverse=eqn.params["reverse"],
        unroll=eqn.params["unroll"],
    )
    return [*carry, *stacked], token
