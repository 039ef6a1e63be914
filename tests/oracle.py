"""What the library computes, again: float64 NumPy, sample by sample, entry by entry, in loops.

Nothing here is fast and nothing comes from the library or from an autodiff: the backward pass of
the network is written out by hand. A network is {"layer0": {"kernel": (I, O), "bias": (O,)}, …},
dense layers with tanh between them; trees are dicts of arrays, nested or flat.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Network = dict[str, dict[str, Array]]


def forward(params: Network, x: Array) -> list[Array]:
    """The activations for one sample: the input, then each layer's output."""
    activations = [np.asarray(x, np.float64)]
    for index in range(len(params)):
        kernel, bias = params[f"layer{index}"]["kernel"], params[f"layer{index}"]["bias"]
        output = np.zeros(len(bias))
        for j in range(len(bias)):
            output[j] = bias[j]
            for i in range(len(activations[-1])):
                output[j] += activations[-1][i] * kernel[i, j]
            if index < len(params) - 1:
                output[j] = math.tanh(output[j])
        activations.append(output)
    return activations


def objective_value(name: str, outputs: Array) -> float:
    """The objective of one sample's outputs."""
    total = 0.0
    for value in np.asarray(outputs, np.float64).ravel():
        total += abs(value) if name == "l1" else value * value
    return math.sqrt(total) if name == "l2" else total


def objective_gradient(name: str, outputs: Array) -> Array:
    """d objective / d outputs for one sample, 0 where the norms have none."""
    norm = objective_value("l2", outputs)
    gradient = np.zeros(len(outputs))
    for j, value in enumerate(outputs):
        if name == "squared_l2":
            gradient[j] = 2 * value
        elif name == "l2":
            gradient[j] = value / norm if norm > 0 else 0.0
        else:
            gradient[j] = (value > 0) * 1.0 - (value < 0) * 1.0
    return gradient


def sample_gradient(params: Network, x: Array, objective: str = "squared_l2") -> Network:
    """∂ objective / ∂θ for one sample, by back-propagation."""
    activations = forward(params, x)
    delta = objective_gradient(objective, activations[-1])
    grads: Network = {}
    for index in reversed(range(len(params))):
        kernel, inputs = params[f"layer{index}"]["kernel"], activations[index]
        kernel_grad, below = np.zeros_like(kernel), np.zeros(len(inputs))
        for i in range(len(inputs)):
            for j in range(len(delta)):
                kernel_grad[i, j] = inputs[i] * delta[j]
                below[i] += kernel[i, j] * delta[j]
        grads[f"layer{index}"] = {"kernel": kernel_grad, "bias": delta.copy()}
        # tanh' = 1 − tanh²; the activation below is a tanh, but for the input itself.
        delta = np.array([below[i] * (1 - inputs[i] ** 2) for i in range(len(inputs))])
    return grads


def reduce(magnitude: str, gradient: Array) -> Array:
    """|g| or g², entry by entry."""
    return entrywise(abs if magnitude == "abs" else lambda g: g * g, gradient)


def entrywise(fn: Callable[..., float], *arrays: Any) -> Array:
    """`fn` of the entries at each index."""
    result = np.zeros(np.shape(arrays[0]))
    for index in np.ndindex(result.shape):
        result[index] = fn(*(float(np.asarray(array)[index]) for array in arrays))
    return result


def map_network(fn: Callable[..., Array], *networks: Network) -> Network:
    """`fn` of the arrays at each place of networks alike."""
    return {
        layer: {name: fn(*(net[layer][name] for net in networks)) for name in networks[0][layer]}
        for layer in networks[0]
    }


def importance(
    params: Network,
    samples: Sequence[Array],
    weights: Sequence[float] | None = None,
    objective: str = "squared_l2",
    magnitude: str = "abs",
) -> Network:
    """Ω = Σ_k w_k red(g_k) / Σ_k w_k: the reduction before the sum."""
    weights = [1.0] * len(samples) if weights is None else weights
    total = map_network(np.zeros_like, params)
    for x, weight in zip(samples, weights, strict=True):
        reduced = map_network(
            lambda grad: reduce(magnitude, grad), sample_gradient(params, x, objective)
        )
        total = map_network(lambda t, r, w=weight: t + w * r, total, reduced)
    return map_network(lambda t: t / sum(weights), total)


def batch_importance(
    params: Network,
    batches: Sequence[Sequence[Array]],
    objective: str = "squared_l2",
    magnitude: str = "abs",
) -> Network:
    """Each batch counted as its number of samples, all with the batch's mean gradient."""
    total, count = map_network(np.zeros_like, params), 0
    for batch in batches:
        signed = map_network(np.zeros_like, params)
        for x in batch:
            signed = map_network(np.add, signed, sample_gradient(params, x, objective))
        size = len(batch)
        total = map_network(lambda t, s, n=size: t + n * reduce(magnitude, s / n), total, signed)
        count += size
    return map_network(lambda t: t / count, total)


def penalty(params: Network, star: Network, omega: Network, strength: float) -> float:
    """(λ/2) Σ Ω (θ − θ*)²."""
    total = 0.0
    for layer in star:
        for name in star[layer]:
            for index in np.ndindex(star[layer][name].shape):
                moved = params[layer][name][index] - star[layer][name][index]
                total += omega[layer][name][index] * moved * moved
    return 0.5 * strength * total


def penalty_gradient(params: Network, star: Network, omega: Network, strength: float) -> Network:
    """λ Ω (θ − θ*)."""
    return map_network(
        lambda theta, anchor, om: entrywise(
            lambda t, a, o: strength * o * (t - a), theta, anchor, om
        ),
        params, star, omega,
    )  # fmt: skip


def proximal_step(
    updated: Network, star: Network, omega: Network, strength: float, rate: float
) -> Network:
    """(θ⁺ + ηλΩθ*) / (1 + ηλΩ)."""
    return map_network(
        lambda theta, anchor, om: entrywise(
            lambda t, a, o: (t + rate * strength * o * a) / (1 + rate * strength * o),
            theta, anchor, om,
        ),
        updated, star, omega,
    )  # fmt: skip


def consolidate(rule: str, before: Array, new: Array, number: float | None = None) -> Array:
    """Ω over all tasks; `number` is num_tasks or decay."""
    rules: dict[str, Callable[[float, float], float]] = {
        "sum": lambda old, om: old + om,
        "mean": lambda old, om: (old * (number or 0) + om) / ((number or 0) + 1),
        "decay": lambda old, om: (number or 0) * old + om,
        "max": max,
    }
    return entrywise(rules[rule], before, new)


def average_accuracy(accuracy: Sequence[Sequence[float]]) -> float:
    """The mean of the last row."""
    return math.fsum(accuracy[-1]) / len(accuracy)


def forgetting_per_task(accuracy: Sequence[Sequence[float]]) -> list[float]:
    """Per task but the last: the best it ever was before the end, less what is left."""
    last = len(accuracy) - 1
    losses = []
    for task in range(last):
        best = -math.inf
        for row in range(task, last):
            best = max(best, accuracy[row][task])
        losses.append(best - accuracy[last][task])
    return losses


def backward_transfer(accuracy: Sequence[Sequence[float]]) -> float:
    """The mean change of a task's accuracy since it was learned."""
    last = len(accuracy) - 1
    return math.fsum(accuracy[last][task] - accuracy[task][task] for task in range(last)) / last


def forward_transfer(accuracy: Sequence[Sequence[float]], untrained: Sequence[float]) -> float:
    """The mean head start of a task over an untrained network."""
    last = len(accuracy) - 1
    return math.fsum(accuracy[t - 1][t] - untrained[t] for t in range(1, last + 1)) / last


def intransigence(accuracy: Sequence[Sequence[float]], reference: Sequence[float]) -> float:
    """The mean shortfall of a task, just learned, from its reference."""
    tasks = len(accuracy)
    return math.fsum(reference[task] - accuracy[task][task] for task in range(tasks)) / tasks


def average_precision(scores: Sequence[float], relevant: Sequence[bool]) -> float:
    """The mean over relevant items of the precision at their rank, ties ranked before them."""
    precisions = []
    for item, good in enumerate(relevant):
        if good:
            rank = hits = 0
            for other in range(len(scores)):
                if scores[other] >= scores[item]:
                    rank += 1
                    hits += bool(relevant[other])
            precisions.append(hits / rank)
    return math.fsum(precisions) / len(precisions)
