"""One use of a kernel, with a backward pass that returns Σ_k w_k red(g_k) instead of g.

Two pieces of JAX make it: `custom_vjp` gives the operation another gradient, and `custom_vmap`
hands that gradient the whole batch, so that it sums over samples where `vmap` would stack them.

Beside the kernel goes a *slot*: zeros in float32 (or wider), shaped like the kernel. The sum
comes out as the slot's gradient, so that a kernel in bfloat16 does not round it.

The *token* is a number per sample that passes through every site unchanged. What it carries is
its cotangent: the sample's weight, known only after the forward pass (it is 0 where the outputs
are not finite), and brought to each site by the backward pass itself.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap
from jax.custom_derivatives import SymbolicZero

from mas_jax.fused import jaxprs
from mas_jax.fused.rules import Rule
from mas_jax.per_sample import ReduceFn


class Weight(NamedTuple):
    """A specialised kernel on its way to its site: the value, and the slot beside it."""

    value: Any
    slot: Any


def evaluate_site(
    eqn: Any, kernel: int, rule: Rule, reduce_fn: ReduceFn, x: Any, weight: Weight, token: Any
) -> tuple[Any, Any]:
    """(y, token) of one equation whose input number `kernel` is `weight`, the other one x."""

    def operation(x: Any, value: Any) -> Any:
        return jaxprs.bind(eqn, (value, x) if kernel == 0 else (x, value))[0]

    @jax.custom_vjp
    def site(x: Any, value: Any, _slot: Any, token: Any) -> Any:
        return operation(x, value), token

    def forward(x: Any, value: Any, _slot: Any, token: Any) -> Any:
        return (operation(x.value, value.value), token.value), (x.value, value.value)

    def backward(residuals: Any, cotangents: Any) -> Any:
        x, value = residuals
        dy, weight = cotangents
        # Nothing depends on y. Zeros in its place would make NaN of an infinite activation.
        if isinstance(dy, SymbolicZero):
            return None, None, None, weight
        dx = None
        if jnp.issubdtype(x.dtype, jnp.inexact):
            (dx,) = jax.vjp(lambda x: operation(x, value), x)[1](dy)
        sums = _sum_over_samples(rule, reduce_fn, slot.dtype, x, dy, weight)
        return dx, None, sums, weight

    site.defvjp(forward, backward, symbolic_zeros=True)
    value, slot = weight
    x = jnp.asarray(x, eqn.invars[1 - kernel].aval.dtype)  # it may be a number in the jaxpr
    return site(x, value, slot, token)


def _sum_over_samples(
    rule: Rule, reduce_fn: ReduceFn, dtype: Any, x: Any, dy: Any, weight: Any
) -> Any:
    """w red(g) of one sample; under `vmap`, which it is always called under, Σ_k w_k red(g_k)."""

    @custom_vmap
    def sum_over_samples(x: Any, dy: Any, weight: Any) -> Any:
        return rule.sum_over_samples(reduce_fn, dtype, x[None], dy[None], weight[None])

    @sum_over_samples.def_vmap
    def _(size: int, batched: Any, *args: Any) -> tuple[Any, bool]:
        # What does not depend on the sample is the same for all of them.
        args_B = [
            arg if is_batched else jnp.broadcast_to(arg, (size, *arg.shape))
            for arg, is_batched in zip(args, batched, strict=True)
        ]
        return rule.sum_over_samples(reduce_fn, dtype, *args_B), False

    return sum_over_samples(x, dy, weight)
