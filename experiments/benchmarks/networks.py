"""The multi-layer perceptron that the benchmarks run."""

import jax
import jax.numpy as jnp


def init(sizes: tuple[int, ...]) -> list[dict[str, jax.Array]]:
    """Parameters of an MLP, He-initialised."""
    keys = jax.random.split(jax.random.key(0), len(sizes) - 1)
    return [
        {
            "kernel": jax.random.normal(key, (before, after)) * jnp.sqrt(2.0 / before),
            "bias": jnp.zeros(after),
        }
        for key, before, after in zip(keys, sizes[:-1], sizes[1:], strict=True)
    ]


def network(params: list[dict[str, jax.Array]], inputs: jax.Array) -> jax.Array:
    """The MLP's outputs."""
    *hidden, last = params
    for layer in hidden:
        inputs = jax.nn.relu(inputs @ layer["kernel"] + layer["bias"][None])
    return inputs @ last["kernel"] + last["bias"][None]
