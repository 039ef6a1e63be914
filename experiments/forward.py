"""What a network says of many examples, a chunk of them at a time."""

import functools
from typing import Any

import jax
from jax.sharding import Mesh

from experiments import devices
from experiments.examples import DeviceExamples, in_chunks
from experiments.networks import Network


@functools.partial(jax.jit, static_argnums=(0, 1))
def all_outputs(
    network: Network, mesh: Mesh | None, params: Any, examples: DeviceExamples
) -> jax.Array:
    """(N, C): what every head says of all examples."""
    return in_chunks(
        lambda batch: network.all_outputs(params, devices.divided(mesh, batch)), examples
    )


@functools.partial(jax.jit, static_argnums=(0, 1))
def all_features(
    network: Network, mesh: Mesh | None, params: Any, examples: DeviceExamples
) -> jax.Array:
    """(N, H): what the trunk makes of all examples."""
    return in_chunks(lambda batch: network.features(params, devices.divided(mesh, batch)), examples)
