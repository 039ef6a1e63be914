"""Importance from every output, and the Fisher information, again: float64 loops, by hand.

For the networks of `oracle`: dense layers with tanh between them.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from tests import oracle
from tests.oracle import Array, Network


def pulled_back(params: Network, x: Array, delta: Array) -> Network:
    """Σ_o delta_o ∂F_o(x)/∂θ, by back-propagation."""
    activations = oracle.forward(params, x)
    grads: Network = {}
    for index in reversed(range(len(params))):
        kernel, inputs = params[f"layer{index}"]["kernel"], activations[index]
        kernel_grad, below = np.zeros_like(kernel), np.zeros(len(inputs))
        for i in range(len(inputs)):
            for j in range(len(delta)):
                kernel_grad[i, j] = inputs[i] * delta[j]
                below[i] += kernel[i, j] * delta[j]
        grads[f"layer{index}"] = {"kernel": kernel_grad, "bias": np.array(delta, np.float64)}
        delta = np.array([below[i] * (1 - inputs[i] ** 2) for i in range(len(inputs))])
    return grads


def one_hot(length: int, index: int) -> Array:
    """1 at `index`."""
    return np.array([1.0 if i == index else 0.0 for i in range(length)])


def magnitude(name: str, grads: Sequence[float]) -> float:
    """Of one parameter: Σ|g_o|, Σ g_o² or √Σ g_o²."""
    total = math.fsum(abs(g) if name == "abs" else g * g for g in grads)
    return math.sqrt(total) if name == "l2" else total


def importance(
    params: Network, samples: Sequence[Array] | Array, weights: Sequence[float] | Array, name: str
) -> Network:
    """Ω = Σ_k w_k |(∂F_1/∂θ, …, ∂F_O/∂θ)| / Σ_k w_k."""
    total = oracle.map_network(np.zeros_like, params)
    for x, weight in zip(samples, weights, strict=True):
        length = len(oracle.forward(params, x)[-1])
        grads = [pulled_back(params, x, one_hot(length, o)) for o in range(length)]
        of_sample = oracle.map_network(
            lambda *leaves: oracle.entrywise(lambda *gs: magnitude(name, gs), *leaves), *grads
        )
        total = oracle.map_network(lambda t, m, w=weight: t + w * m, total, of_sample)
    return oracle.map_network(lambda t: t / sum(weights), total)


def probabilities(logits: Array) -> Array:
    """softmax, class by class."""
    largest = max(logits)
    exponentials = [math.exp(logit - largest) for logit in logits]
    return np.array([e / math.fsum(exponentials) for e in exponentials])


def fisher(params: Network, samples: Sequence[Array] | Array, labels: Any = None) -> Network:
    """(1/N) Σ_k Σ_y p(y|x_k) (∂ log p(y|x_k)/∂θ)², or of the given labels alone."""
    total = oracle.map_network(np.zeros_like, params)
    for k, x in enumerate(samples):
        p = probabilities(oracle.forward(params, x)[-1])
        for y in range(len(p)) if labels is None else [labels[k]]:
            # ∂ log p_y / ∂ logit_c = [c = y] − p_c
            grads = pulled_back(params, x, one_hot(len(p), y) - p)
            weight = p[y] if labels is None else 1.0
            total = oracle.map_network(lambda t, g, w=weight: t + w * g * g, total, grads)
    return oracle.map_network(lambda t: t / len(samples), total)
