"""How many gradients of a vector objective's entries are had at a time."""

import math
from typing import Any, NamedTuple

import jax.numpy as jnp

from mas_jax.fused import jaxprs


class Passes(NamedTuple):
    """What one backward pass is of: so many samples, and so many entries of their vectors."""

    samples: int
    outputs: int


def fitting_passes(num_outputs: int, pairs: int, microbatch_size: int | None) -> Passes:
    """Divide the (sample, output) pairs that fit: all outputs of some samples, or some of one."""
    samples = microbatch_size or max(1, pairs // num_outputs)
    return Passes(samples, num_outputs if samples > 1 else min(num_outputs, pairs))


def activation_bytes(jaxpr: Any, varying: set[Any]) -> int:
    """What the cotangents of one sample take, of all that is computed from `varying` inputs.

    More than is held at any time: a backward pass needs few of them at once.
    """
    varying, total = set(varying), 0
    for eqn in jaxpr.eqns:
        is_varying = [not jaxprs.is_literal(atom) and atom in varying for atom in eqn.invars]
        if not any(is_varying):
            continue
        varying.update(eqn.outvars)
        body = jaxprs.call_body(eqn)
        if body is None or eqn.primitive.name == "scan":
            total += sum(map(_bytes, eqn.outvars))
        if body is not None:
            inputs = zip(body.jaxpr.invars, is_varying, strict=True)
            total += activation_bytes(body.jaxpr, {var for var, varies in inputs if varies})
    return total


def _bytes(var: Any) -> int:
    """The size of an array, if it has a cotangent."""
    if not jnp.issubdtype(var.aval.dtype, jnp.inexact):
        return 0
    return math.prod(var.aval.shape) * var.aval.dtype.itemsize
