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
from mas_jax.per_sample import ReduceFn, VectorMagnitude


class Weight(NamedTuple):
    """A specialised kernel on its way to its site: the value, and the slot beside it."""

    value: Any
    slot: Any


def evaluate_site(
    eqn: Any,
    kernel: int,
    rule: Rule,
    magnitude: ReduceFn | VectorMagnitude,
    x: Any,
    weight: Weight,
    token: Any,
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
        if isinstance(magnitude, VectorMagnitude):
            sums = _sum_over_outputs(rule, magnitude, slot.dtype, x, dy, weight)
        else:
            sums = _sum_over_samples(rule, magnitude, slot.dtype, x, dy, weight)
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
        args_B = _repeated(size, batched, args)
        return rule.sum_over_samples(reduce_fn, dtype, *args_B), False

    return sum_over_samples(x, dy, weight)


def _sum_over_outputs(
    rule: Rule, magnitude: VectorMagnitude, dtype: Any, x: Any, dy: Any, weight: Any
) -> Any:
    """Under the `vmap` over outputs, and then that over samples: Σ_k w_k |(g_k1, …, g_kO)|.

    The weight tells the two apart: each sample has its own, and all outputs of one the same.
    Where both or neither would be seen, the sum keeps a batch axis, which the engine refuses.
    """

    @custom_vmap
    def sum_over_outputs(x: Any, dy: Any, weight: Any) -> Any:
        return rule.sum_over_outputs(magnitude, dtype, x[None], dy[None, None], weight[None])

    @sum_over_outputs.def_vmap
    def _(size: int, batched: Any, x: Any, dy: Any, weight: Any) -> tuple[Any, bool]:
        if batched[2]:  # dy was the same for all outputs, as only 0 is
            x_B, dy_B, weights_B = _repeated(size, batched, (x, dy, weight))
            return rule.sum_over_outputs(magnitude, dtype, x_B, dy_B[:, None], weights_B), False
        (dy_O,) = _repeated(size, batched[1:2], (dy,))
        assert not batched[0], "activations do not depend on which output is differentiated"
        return _of_outputs(rule, magnitude, dtype, x, dy_O, weight), False

    return sum_over_outputs(x, dy, weight)


def _of_outputs(
    rule: Rule, magnitude: VectorMagnitude, dtype: Any, x: Any, dy_O: Any, weight: Any
) -> Any:
    """The same, of cotangents for all outputs of one sample; waits for `vmap` over samples."""

    @custom_vmap
    def sum_over_samples(x: Any, dy_O: Any, weight: Any) -> Any:
        return rule.sum_over_outputs(magnitude, dtype, x[None], dy_O[None], weight[None])

    @sum_over_samples.def_vmap
    def _(size: int, batched: Any, *args: Any) -> tuple[Any, bool]:
        return rule.sum_over_outputs(magnitude, dtype, *_repeated(size, batched, args)), False

    return sum_over_samples(x, dy_O, weight)


def _repeated(size: int, batched: Any, args: Any) -> list[Any]:
    """What does not depend on the sample is the same for all of them."""
    return [
        arg if is_batched else jnp.broadcast_to(arg, (size, *arg.shape))
        for arg, is_batched in zip(args, batched, strict=True)
    ]
