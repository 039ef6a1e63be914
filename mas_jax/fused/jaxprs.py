"""All that the library knows of JAX's intermediate form, which changes between versions.

Of an equation it reads the primitive's name, the inputs and outputs, the parameters named here,
and the jaxprs inside calls, checkpoints and scans. Whatever is not listed here is unknown, and
what is unknown makes a leaf fall back, or a layer end: it is never an error.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend import core

from mas_jax.errors import EngineError

CALLS = {"jit", "pjit", "closed_call", "core_call"}
CHECKPOINTS = {"checkpoint", "remat", "remat2"}

POOLS = {"reduce_window_max", "reduce_window_min", "reduce_window_sum"}

RESHAPING = {"reshape", "squeeze", "expand_dims", "transpose", "rev", "broadcast_in_dim"}
"""What moves the entries of an array around and keeps each exactly once (a broadcast: where
`keeps_every_entry`)."""
PASSING = {"convert_element_type", "copy", "copy_p", "sharding_constraint", "layout_constraint"}
"""What returns an array of the same shape with the same entries, but for their rounding."""
# fmt: off
ELEMENTWISE = {
    "abs", "acos", "acosh", "add", "add_any", "and", "asin", "asinh", "atan", "atan2", "atanh",
    "cbrt", "ceil", "clamp", "conj", "cos", "cosh", "digamma", "div", "eq", "erf", "erf_inv",
    "erfc", "exp", "exp2", "expm1", "floor", "ge", "gt", "integer_pow", "is_finite", "le",
    "lgamma", "log", "log1p", "logistic", "lt", "max", "min", "mul", "ne", "neg", "nextafter",
    "not", "or", "pow", "reduce_precision", "rem", "round", "rsqrt", "select_n", "sign", "sin",
    "sinh", "sqrt", "square", "sub", "tan", "tanh", "xor",
}
# fmt: on
"""What computes each entry of its output from the entries at that place of its inputs."""
CUSTOM_RULES = {"custom_jvp_call", "custom_vjp_call"}
"""Calls of functions that have a rule of differentiation of their own."""


class Scan(NamedTuple):
    """How a scan's inputs divide: closed over, carried, and one slice per step."""

    num_consts: int
    num_carry: int


def single_sample_jaxpr(
    fn: Callable[..., Any],
    leaves: list[Any],
    sample: Any,
    derivative_fn: Callable[[core.ClosedJaxpr], Callable[..., Any]] | None = None,
) -> tuple[core.ClosedJaxpr, Any]:
    """The jaxpr of `fn`, its inputs flattened in order, and the structure of what it returns.

    Raises EngineError if a rule of differentiation in it closes over what was computed
    from the inputs: only in the trace that is over then would that have had a value. To find
    out, `derivative_fn` of the jaxpr is traced, by default the gradient of its first output.
    """
    traces: list[Any] = []

    def noted(*args: Any) -> Any:
        traces.extend(getattr(leaf, "_trace", None) for leaf in jax.tree.leaves(args))
        return fn(*args)

    closed, shapes = jax.make_jaxpr(noted, return_shape=True)(leaves, sample)
    if _has_custom_rules(closed.jaxpr):
        derivative = (derivative_fn or _derivative)(closed)
        differentiated = jax.make_jaxpr(derivative)(leaves, *jax.tree.leaves(sample))
        of_closures = [getattr(const, "_trace", None) for const in differentiated.consts]
        if any(trace is not None and trace in traces for trace in of_closures):
            raise EngineError(
                "the fused engine can't run this network: the rule of a custom_jvp or custom_vjp "
                "closes over numbers computed from the sample; pass them to it as arguments"
            )
    return closed, jax.tree.structure(shapes)


def _has_custom_rules(jaxpr: Any) -> bool:
    """Whether there is a custom_jvp or custom_vjp, however deep."""
    if any(eqn.primitive.name.startswith("custom_") for eqn in jaxpr.eqns):
        return True
    return any(map(_has_custom_rules, core.subjaxprs(jaxpr)))


def _derivative(closed: core.ClosedJaxpr) -> Callable[..., Any]:
    """The gradient of the first output, summed, with respect to the first inputs, the leaves."""
    return jax.grad(lambda leaves, *sample: core.jaxpr_as_fun(closed)(*leaves, *sample)[0].sum())


def is_literal(atom: Any) -> bool:
    """Whether an input of an equation is a number written into the jaxpr."""
    return isinstance(atom, core.Literal)


def call_body(eqn: Any) -> core.ClosedJaxpr | None:
    """The jaxpr inside an ordinary call, a checkpoint or a scan; None for everything else."""
    if eqn.primitive.name not in CALLS | CHECKPOINTS | {"scan"}:
        return None
    body = eqn.params.get("jaxpr", eqn.params.get("call_jaxpr"))
    if isinstance(body, core.Jaxpr):
        return core.ClosedJaxpr(body, ())
    return body if isinstance(body, core.ClosedJaxpr) else None


def scan_of(eqn: Any, body: Any) -> Scan:
    """How a scan's inputs divide, read off its body, which sees one slice of what has slices."""
    # The parameters that say so are named differently in jax 0.10 and 0.12.
    num_sliced, num_stacked = (
        sum(outer.aval.ndim != inner.aval.ndim for outer, inner in zip(*ends, strict=True))
        for ends in [(eqn.invars, body.invars), (eqn.outvars, body.outvars)]
    )
    num_carry = len(eqn.outvars) - num_stacked
    return Scan(len(eqn.invars) - num_carry - num_sliced, num_carry)


def keeps_every_entry(eqn: Any) -> bool:
    """Whether the output holds each entry of the input once, moved or cast to another float."""
    if eqn.primitive.name not in RESHAPING | PASSING:
        return False
    before, after = eqn.invars[0].aval, eqn.outvars[0].aval
    floats = all(jnp.issubdtype(aval.dtype, jnp.floating) for aval in (before, after))
    return before.size == after.size and floats


def is_elementwise(eqn: Any) -> bool:
    """Whether each entry of the outputs comes from one entry of each input, maybe moved.

    Axes of one entry may be repeated. A call is elementwise if all is that is inside it.
    """
    name = eqn.primitive.name
    if name in CALLS | CHECKPOINTS | CUSTOM_RULES:
        bodies = list(core.jaxprs_in_params(eqn.params))
        return bool(bodies) and all(_all_elementwise(body) for body in bodies)
    if name in RESHAPING:
        return eqn.invars[0].aval.size == eqn.outvars[0].aval.size
    return name in ELEMENTWISE | PASSING


def _all_elementwise(jaxpr: Any) -> bool:
    """Whether all equations are, but for those that compute constants."""
    constants: set[Any] = set()
    for eqn in jaxpr.eqns:
        if all(is_literal(atom) or atom in constants for atom in eqn.invars):
            constants.update(eqn.outvars)
        elif not is_elementwise(eqn):
            return False
    return True


def is_pure_move(eqn: Any) -> bool:
    """Whether nothing is computed but rounding and the order of entries."""
    return eqn.primitive.name in RESHAPING | PASSING


def call_name(eqn: Any) -> str:
    """What a call or an operation is known as: relu, max."""
    if eqn.primitive.name in CHECKPOINTS | CUSTOM_RULES:
        bodies = [body for body in core.jaxprs_in_params(eqn.params) if body.eqns]
        return call_name(bodies[0].eqns[-1]) if bodies else eqn.primitive.name
    return str(eqn.params.get("name") or eqn.primitive.name)


def bind(eqn: Any, inputs: Sequence[Any]) -> list[Any]:
    """Evaluate one equation, whatever it is."""
    if eqn.primitive.name in POOLS:
        return [_bind_pool(eqn, *inputs)]
    # As jax.core.eval_jaxpr does it: under the settings that the equation was traced under.
    with eqn.ctx.manager:
        outputs = eqn.primitive.bind(*inputs, **eqn.primitive.get_bind_params(eqn.params))
    return list(outputs) if eqn.primitive.multiple_results else [outputs]


def _bind_pool(eqn: Any, x: Any) -> Any:
    """Evaluate a pooling without its axes of one entry, the sample's batch axis above all.

    XLA's gradient of a maximum holds an array of indices per axis on a CPU, whatever the axis'
    length: `vmap` makes the batch one axis more, and this takes it away again.
    """
    window = eqn.params["window_dimensions"]
    single = [
        axis
        for axis, (size, length) in enumerate(zip(x.shape, window, strict=True))
        if size == length == 1 and eqn.params["padding"][axis] == (0, 0)
    ]
    params = {
        name: tuple(value for axis, value in enumerate(values) if axis not in single)
        for name, values in eqn.params.items()
    }
    return jnp.expand_dims(eqn.primitive.bind(jnp.squeeze(x, single), **params), single)
