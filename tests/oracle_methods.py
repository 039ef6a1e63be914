"""What the methods compute, again, in float64 NumPy: nothing here comes from ours or an autodiff.

The network has one hidden layer h = relu(x W + b) and outputs F = h V + c, of which some are seen.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Trunk = dict[str, Array]


class Net(NamedTuple):
    """The arrays of the network, float64."""

    kernel: Array  # (I, H)
    bias: Array  # (H,)
    heads_kernel: Array  # (H, C)
    heads_bias: Array  # (C,)


def net(params: Any) -> Net:
    """`params` of the experiments' network with one hidden layer."""
    layers = (params["trunk"]["hidden_0"], params["heads"])
    return Net(*(np.asarray(layer[n], np.float64) for layer in layers for n in ("kernel", "bias")))


def hidden(network: Net, x: Array) -> Array:
    """h of one sample or of many."""
    return np.maximum(np.asarray(x, np.float64) @ network.kernel + network.bias, 0.0)


def outputs(network: Net, x: Array) -> Array:
    """F of every head."""
    return hidden(network, x) @ network.heads_kernel + network.heads_bias


def softmax(logits: Sequence[float], temperature: float = 1.0) -> list[float]:
    """exp(z / T) / Σ exp(z / T)."""
    powers = [math.exp((z - max(logits)) / temperature) for z in logits]
    return [power / sum(powers) for power in powers]


def seen_softmax(logits: Array, seen: Sequence[int]) -> Array:
    """Probabilities of the outputs `seen`; 0 for the others."""
    result = np.zeros(len(logits))
    result[list(seen)] = softmax([float(logits[c]) for c in seen])
    return result


def distillation(
    now: Array, recorded: Array, groups: Sequence[Sequence[int]], temperature: float
) -> float:
    """Σ over groups of outputs of −Σ_c y'_c log ŷ'_c for one sample."""
    total = 0.0
    for group in groups:
        target = softmax([float(recorded[c]) for c in group], temperature)
        answer = softmax([float(now[c]) for c in group], temperature)
        total -= sum(t * math.log(a) for t, a in zip(target, answer, strict=True))
    return total


def code(encoder: Any, features: Array) -> Array:
    """1 / (1 + exp(−(F W + b)))."""
    weights = {name: np.asarray(leaf, np.float64) for name, leaf in encoder.items()}
    return 1 / (1 + np.exp(-(features @ weights["kernel"] + weights["bias"])))


# Importance of the trunk, sample by sample


def trunk_gradient(network: Net, x: Array, delta: Array) -> Trunk:
    """∂ (δ · F) / ∂ (W, b) for one sample."""
    slope = (hidden(network, x) > 0) * (network.heads_kernel @ delta)
    return {"kernel": np.outer(np.asarray(x, np.float64), slope), "bias": slope}


def _squared_norm(network: Net, x: Array, seen: Sequence[int], _: int) -> Trunk:
    """|∂ Σ_c F_c² / ∂θ|."""
    delta = np.zeros(len(network.heads_bias))
    delta[list(seen)] = 2 * outputs(network, x)[list(seen)]
    return {name: np.abs(grad) for name, grad in trunk_gradient(network, x, delta).items()}


def _vector(network: Net, x: Array, seen: Sequence[int], _: int) -> Trunk:
    """√Σ_c (∂F_c / ∂θ)²."""
    grads = [trunk_gradient(network, x, one_hot(c, network)) for c in seen]
    return {name: np.sqrt(total([grad[name] ** 2 for grad in grads])) for name in grads[0]}


def _vector_l1(network: Net, x: Array, seen: Sequence[int], _: int) -> Trunk:
    """Σ_c |∂F_c / ∂θ|."""
    grads = [trunk_gradient(network, x, one_hot(c, network)) for c in seen]
    return {name: total([np.abs(grad[name]) for grad in grads]) for name in grads[0]}


def _exact_fisher(network: Net, x: Array, seen: Sequence[int], _: int) -> Trunk:
    """Σ_y p_y (∂ log p_y / ∂θ)²."""
    p = seen_softmax(outputs(network, x), seen)
    grads = [trunk_gradient(network, x, one_hot(c, network) - p) for c in seen]
    return {
        name: total([p[c] * grad[name] ** 2 for c, grad in zip(seen, grads, strict=True)])
        for name in ("kernel", "bias")
    }


def _empirical_fisher(network: Net, x: Array, seen: Sequence[int], label: int) -> Trunk:
    """(∂ log p_label / ∂θ)²."""
    p = seen_softmax(outputs(network, x), seen)
    grad = trunk_gradient(network, x, one_hot(label, network) - p)
    return {name: leaf**2 for name, leaf in grad.items()}


def _local(network: Net, x: Array, _: Sequence[int], __: int) -> Trunk:
    """2 x_i y_j in absolute value, y = h ≥ 0; for a bias x is 1."""
    y = hidden(network, x)
    return {"kernel": np.abs(np.outer(np.asarray(x, np.float64), 2 * y)), "bias": 2 * y}


PER_SAMPLE: dict[str, Callable[[Net, Array, Sequence[int], int], Trunk]] = {
    "squared_norm": _squared_norm,
    "vector": _vector,
    "vector_l1": _vector_l1,
    "exact": _exact_fisher,
    "empirical": _empirical_fisher,
    "local": _local,
}


def total(arrays: Sequence[Array]) -> Array:
    """Their sum."""
    return np.sum(np.stack(arrays), axis=0)


def one_hot(index: int, network: Net) -> Array:
    """(C,) with a 1."""
    return np.eye(len(network.heads_bias))[index]


def importance(kind: str, network: Net, inputs: Array, labels: Array, seen: Sequence[int]) -> Trunk:
    """The mean over samples."""
    terms = [
        PER_SAMPLE[kind](network, x, seen, int(y)) for x, y in zip(inputs, labels, strict=True)
    ]
    return {name: total([term[name] for term in terms]) / len(terms) for name in terms[0]}


def weighted_mean(thetas: Sequence[Array], weights: Sequence[Array]) -> Array:
    """Σ_t w_t θ_t / Σ_t w_t, entry by entry, the latest θ where no w is above 0."""
    result = np.array(thetas[-1], np.float64)
    for index in np.ndindex(result.shape):
        total = math.fsum(float(w[index]) for w in weights)
        if total > 0:
            pairs = zip(thetas, weights, strict=True)
            terms = (float(w[index]) * float(t[index]) for t, w in pairs)
            result[index] = math.fsum(terms) / total
    return result


# Training with the whole set of examples at each step


def cross_entropy_gradient(
    network: Net, logits: Array, labels: Array, seen: Sequence[int]
) -> Array:
    """(N, C): p − y of each sample."""
    pairs = zip(logits, labels, strict=True)
    return np.stack([seen_softmax(z, seen) - one_hot(int(y), network) for z, y in pairs])


def loss_gradient(network: Net, inputs: Array, labels: Array, seen: Sequence[int]) -> Net:
    """Of the mean cross-entropy over the outputs `seen`."""
    x, h = np.asarray(inputs, np.float64), hidden(network, inputs)
    delta = cross_entropy_gradient(network, outputs(network, inputs), labels, seen) / len(labels)
    slope = (h > 0) * (delta @ network.heads_kernel.T)
    return Net(x.T @ slope, slope.sum(0), h.T @ delta, delta.sum(0))


def synaptic_intelligence(
    network: Net,
    tasks: Sequence[tuple[Array, Array, Sequence[int]]],
    *,
    steps: int,
    rate: float,
    momentum: float,
    strength: float,
    damping: float,
) -> tuple[list[Net], list[Trunk]]:
    """The network and Ω of the trunk after each task: SGD on loss + (λ/2) Σ Ω (θ − θ*)²."""
    omega, star = [np.zeros_like(leaf) for leaf in network[:2]], network[:2]
    ends, omegas = [], []
    for inputs, labels, seen in tasks:
        start, trace = network, [np.zeros_like(leaf) for leaf in network]
        path = [np.zeros_like(leaf) for leaf in network[:2]]
        for _ in range(steps):
            grads = loss_gradient(network, inputs, labels, seen)
            held = [strength * o * (t - s) for o, t, s in zip(omega, network, star, strict=False)]
            full = [g + h for g, h in zip(grads, [*held, 0.0, 0.0], strict=True)]
            trace = [g + momentum * m for g, m in zip(full, trace, strict=True)]
            moved = [-rate * m for m in trace]
            path = [p - g * d for p, g, d in zip(path, grads, moved, strict=False)]
            network = Net(*(t + d for t, d in zip(network, moved, strict=True)))
        omega = [
            o + np.maximum(p, 0) / ((now - then) ** 2 + damping)
            for o, p, now, then in zip(omega, path, network, start, strict=False)
        ]
        star = network[:2]
        ends.append(network)
        omegas.append({"kernel": omega[0], "bias": omega[1]})
    return ends, omegas


def autoencoder(
    network: Net,
    layers: dict[str, Array],
    inputs: Array,
    labels: Array,
    seen: Sequence[int],
    *,
    reconstruction: float,
    batches: Sequence[Array],
) -> dict[str, Array]:
    """EBLL's layers W, b, D, c after a step of Adam on each batch of rows.

    The loss is a ‖r − F‖² + the cross-entropy of r's head.
    """
    all_features, all_labels = hidden(network, inputs), labels
    first, second = ({name: np.zeros_like(leaf) for name, leaf in layers.items()} for _ in range(2))
    for count, rows in enumerate(batches, start=1):
        features, labels = all_features[rows], all_labels[rows]
        s = 1 / (1 + np.exp(-(features @ layers["W"] + layers["b"])))
        rebuilt = s @ layers["D"] + layers["c"]
        logits = rebuilt @ network.heads_kernel + network.heads_bias
        delta = cross_entropy_gradient(network, logits, labels, seen)
        d_rebuilt = 2 * reconstruction * (rebuilt - features) + delta @ network.heads_kernel.T
        d_rebuilt /= len(labels)
        slope = (d_rebuilt @ layers["D"].T) * s * (1 - s)
        grads = {
            "W": features.T @ slope, "b": slope.sum(0),
            "D": s.T @ d_rebuilt, "c": d_rebuilt.sum(0),
        }  # fmt: skip
        for name, grad in grads.items():
            first[name] = 0.9 * first[name] + 0.1 * grad
            second[name] = 0.999 * second[name] + 0.001 * grad**2
            m, v = first[name] / (1 - 0.9**count), second[name] / (1 - 0.999**count)
            layers = {**layers, name: layers[name] - 1e-3 * m / (np.sqrt(v) + 1e-8)}
    return layers
