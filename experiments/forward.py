"""What a network says of many examples, a chunk of them at a time."""

import functools
from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import Mesh

from experiments import devices
from experiments.examples import DeviceExamples, in_order
from experiments.loops import Loop, make_loop
from experiments.networks import Batch, Network

CHUNK = 256
"""Rows at a time: what the network holds of them must fit."""


def all_outputs(
    network: Network, mesh: Mesh | None, params: Any, examples: DeviceExamples
) -> jax.Array:
    """(N, C): what every head says of all examples; 0 in chunks that are all filling."""
    return _asked(network, mesh, type(network).all_outputs, params, examples)


def all_features(
    network: Network, mesh: Mesh | None, params: Any, examples: DeviceExamples
) -> jax.Array:
    """(N, H): what the trunk makes of all examples, likewise."""
    return _asked(network, mesh, type(network).features, params, examples)


Question = Callable[[Network, Any, Batch], jax.Array]


def _asked(
    network: Network, mesh: Mesh | None, question: Question, params: Any, examples: DeviceExamples
) -> jax.Array:
    """(N, …): the answers to a question."""
    ask = in_chunks if network.stepwise else _in_chunks_compiled
    return ask(network, mesh, question, params, examples)


def in_chunks(
    network: Network,
    mesh: Mesh | None,
    question: Question,
    params: Any,
    examples: DeviceExamples,
    chunk: int = CHUNK,
) -> jax.Array:
    """(N, …): `question` asked of all examples, `chunk` rows at a time."""
    length = len(examples.labels)
    rows, weights = in_order(examples, min(chunk, length))
    loop = _asking(network, mesh, question)
    _, answers = loop(None, rows, weights, examples.batch, params)
    return answers.reshape(-1, *answers.shape[2:])[:length]


_in_chunks_compiled = jax.jit(in_chunks, static_argnums=(0, 1, 2, 5))


@functools.cache
def _asking(network: Network, mesh: Mesh | None, question: Question) -> Loop:
    """The loop over chunks."""

    def step(
        carry: None, batch: Batch, weights: Any, number: Any, params: Any
    ) -> tuple[None, jax.Array]:
        del weights, number
        return carry, question(network, params, devices.divided(mesh, batch))

    options = {} if mesh is None else {"out_shardings": devices.whole_on(mesh)}
    return make_loop(step, stepwise=network.stepwise, **options)
