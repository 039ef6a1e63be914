"""Programs put together at random: the fused engine gives what the vmap engine gives.

A program is a row of steps, and a step is an operation with one leaf, inside something of JAX: a
nested jit, a checkpoint, a scan, a branch, a rule of differentiation of its own. Leaves are drawn
too, so that they come back. What each one falls under is known from the steps alone.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import networks
from tests.networks import (
    CONVOLUTION,
    DENSE,
    DEPTHWISE,
    EMBEDDING,
    FALLS_BACK,
    POSITIONS,
    UNUSED,
)

BATCH = {
    "x": networks.batch_of(3, 4, 4),
    "tokens": networks.tokens_of(3, 4, vocabulary=4),
}
WEIGHTS = np.array([1.0, 0.5, 2.0])


def convolve(x, kernel):
    groups = x.shape[-1] // kernel.shape[1]
    return jax.lax.conv_general_dilated(
        x, kernel, (1,), "SAME", dimension_numbers=("NHC", "HIO", "NHC"), feature_group_count=groups
    )


def kernel_on_the_left(w, x, _):
    y = jax.lax.dot_general(w, x, (((0,), (2,)), ((), ())))
    return jnp.moveaxis(y, 0, 2)


def halves_of_a_scan(w, x, _):
    """Two layers of two inputs each."""
    layers = w.reshape(2, 4, 2)
    halves = jax.lax.scan(lambda x, w: (jnp.sin(x), x @ w), x, layers)[1]
    return jnp.concatenate(list(halves), axis=-1)


# (leaf (4, 4), x (1, 4, 4), tokens (1, 4)) -> (1, 4, 4), and the rule for the leaf.
OPERATIONS = {
    "dense": (lambda w, x, _: x @ w, POSITIONS),
    "transposed": (lambda w, x, _: x @ w.T, POSITIONS),
    "kernel on the left": (kernel_on_the_left, POSITIONS),
    "one position": (lambda w, x, _: x + (x.mean(axis=1) @ w)[:, None], DENSE),
    "heads": (
        lambda w, x, _: jnp.einsum("btd,dhe->bthe", x, w.reshape(4, 2, 2)).reshape(x.shape),
        POSITIONS,
    ),
    "block diagonal": (
        lambda w, x, _: jnp.einsum(
            "btni,nij->btnj", x.reshape(1, 4, 4, 1), w.reshape(4, 1, 4)
        ).mean(axis=2),
        POSITIONS,
    ),
    "convolution": (lambda w, x, _: convolve(x, w.reshape(2, 2, 4)), CONVOLUTION),
    "depthwise convolution": (lambda w, x, _: convolve(x, w.reshape(4, 1, 4)), DEPTHWISE),
    "embedding": (lambda w, x, tokens: x * w[tokens], EMBEDDING),
    "layers of a scan": (halves_of_a_scan, POSITIONS),
    "bias": (lambda w, x, _: x + w[None], FALLS_BACK),
    "twice": (lambda w, x, _: jnp.tanh(x @ w) @ w, FALLS_BACK),
    "times a number": (lambda w, x, _: x @ (2.0 * w), FALLS_BACK),
    "row and column": (lambda w, x, _: x * w[0][None, None] + w[:, 1][None, None], FALLS_BACK),
}


def in_custom_vjp(function):
    """With a gradient twice as large as the true one."""
    wrapped = jax.custom_vjp(function)

    def backward(kept, dy):
        w, x, tokens = kept
        pullback = jax.vjp(lambda w, x: function(w, x, tokens), w, x)[1]
        dw, dx = pullback(2.0 * dy)
        return dw, dx, None

    wrapped.defvjp(lambda *arguments: (function(*arguments), arguments), backward)
    return wrapped


def in_custom_jvp(function):
    """With a derivative half as large as the true one."""
    wrapped = jax.custom_jvp(function)

    @wrapped.defjvp
    def _(primals, tangents):
        w, x, tokens = primals
        dw, dx, _ = tangents
        primal, tangent = jax.jvp(lambda w, x: function(w, x, tokens), (w, x), (dw, dx))
        return primal, 0.5 * tangent

    return wrapped


def behind_a_custom_jvp(function):
    """relu has a rule of differentiation of its own, and no leaf."""
    return lambda w, x, tokens: function(w, x + jax.nn.relu(x), tokens)


def beside_a_while_loop(function):
    def wrapped(w, x, tokens):
        large = jnp.abs(jax.lax.stop_gradient(x[0, 0, 0])) + 0.1
        size = jax.lax.while_loop(lambda size: size < 1, lambda size: 2 * size, large)
        return function(w, x / size, tokens)

    return wrapped


def in_a_branch(function):
    return lambda w, x, tokens: jax.lax.cond(
        x.sum() > 0, function, lambda *arguments: jnp.sin(arguments[1]), w, x, tokens
    )


def in_a_scan(function):
    """Once, scanned over by its only layer."""
    return lambda w, x, tokens: jax.lax.scan(
        lambda x, w: (function(w, x, tokens), None), x, w[None]
    )[0]


def in_every_step_of_a_scan(function):
    return lambda w, x, tokens: jax.lax.scan(
        lambda x, _: (jnp.tanh(function(w, x, tokens)), None), x, length=2
    )[0]


def under_vmap(function):
    return jax.vmap(
        lambda w, x, tokens: function(w, x[None], tokens[None])[0], in_axes=(None, 0, 0)
    )


# What a step is put into, and whether the leaf keeps its rule there.
SURROUNDINGS = {
    "nothing": (lambda function: function, True),
    "checkpoint in two jits": (
        lambda function: jax.jit(jax.jit(jax.checkpoint(function))),
        True,
    ),
    "checkpoint with a policy": (
        lambda function: jax.checkpoint(function, policy=jax.checkpoint_policies.dots_saveable),
        True,
    ),
    "scan": (in_a_scan, True),
    "vmap": (under_vmap, True),
    "custom_jvp before": (behind_a_custom_jvp, True),
    "while beside": (beside_a_while_loop, True),
    "every step of a scan": (in_every_step_of_a_scan, False),
    "branch": (in_a_branch, False),
    "custom_jvp": (in_custom_jvp, False),
    "custom_vjp": (in_custom_vjp, False),
}


def program(steps):
    """The network of a row of steps (operation, surroundings, number of the leaf)."""
    rules = {}
    for operation, surroundings, leaf in steps:
        keeps_rule = SURROUNDINGS[surroundings][1] and leaf not in rules
        rules[leaf] = OPERATIONS[operation][1] if keeps_rule else FALLS_BACK
    leaves = max(rules) + 1
    params = [networks.batch_of(4, 4, seed=10 + leaf) for leaf in range(leaves)]

    def apply_fn(params, batch):
        x = batch["x"]
        for operation, surroundings, leaf in steps:
            function = SURROUNDINGS[surroundings][0](OPERATIONS[operation][0])
            x = jnp.tanh(function(params[leaf], x, batch["tokens"])) + 0.5 * x
        return x

    expected = {rf"\[{leaf}\]": rules.get(leaf, UNUSED) for leaf in range(leaves)}
    return networks.Network(apply_fn, params, BATCH, expected)


@pytest.mark.parametrize("surroundings", SURROUNDINGS)
def test_every_operation_in(surroundings):
    steps = [(operation, surroundings, leaf) for leaf, operation in enumerate(OPERATIONS)]
    networks.assert_engines_agree(program(steps), WEIGHTS, ("abs",))


@given(
    st.lists(
        st.tuples(
            st.sampled_from(list(OPERATIONS)),
            st.sampled_from(list(SURROUNDINGS)),
            st.integers(0, 3),
        ),
        min_size=2,
        max_size=5,
    )
)
@settings(max_examples=25)
def test_any_program(steps):
    networks.assert_engines_agree(program(steps), WEIGHTS, ("abs",))
