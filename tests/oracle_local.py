"""l-MAS again, in float64 NumPy, sample by sample, entry by entry, in loops; nothing of ours.

Each function is one layer of a network: from its input to (its output y after the activation,
the gradient of ‖y‖² with respect to each of its parameters), with the input held constant.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Layer = tuple[Array, dict[str, Array]]

_GELU = math.sqrt(2 / math.pi)


def _sigmoid(z: float) -> float:
    return 1 / (1 + math.exp(-z))


def _gelu(z: float) -> tuple[float, float]:
    """Its approximation by tanh, which is jax.nn.gelu's default."""
    t = math.tanh(_GELU * (z + 0.044715 * z**3))
    return 0.5 * z * (1 + t), 0.5 * (1 + t) + 0.5 * z * (1 - t**2) * _GELU * (1 + 0.134145 * z**2)


ACTIVATIONS: dict[str, Callable[[float], tuple[float, float]]] = {
    "linear": lambda z: (z, 1.0),
    "relu": lambda z: (max(z, 0.0), 1.0 if z > 0 else 0.0),
    "tanh": lambda z: (math.tanh(z), 1 - math.tanh(z) ** 2),
    "sigmoid": lambda z: (_sigmoid(z), _sigmoid(z) * (1 - _sigmoid(z))),
    "silu": lambda z: (z * _sigmoid(z), _sigmoid(z) * (1 + z * (1 - _sigmoid(z)))),
    "gelu": _gelu,
    "softplus": lambda z: (math.log1p(math.exp(z)), _sigmoid(z)),
}
"""(f(z), f'(z))."""


def dense(x: Array, kernel: Array, bias: Array | None = None, activation: str = "linear") -> Layer:
    """y_j = f(Σ_i x_i W_ij + b_j): ∂‖y‖²/∂W_ij = 2 y_j f'(z_j) x_i. Summed over positions of x."""
    bias = np.zeros(kernel.shape[1]) if bias is None else bias
    positions = np.asarray(x, np.float64).reshape(-1, kernel.shape[0])
    outputs = np.zeros((len(positions), kernel.shape[1]))
    grads = {"kernel": np.zeros(kernel.shape), "bias": np.zeros(bias.shape)}
    for p in range(len(positions)):
        for j in range(kernel.shape[1]):
            z = bias[j] + sum(positions[p, i] * kernel[i, j] for i in range(kernel.shape[0]))
            outputs[p, j], slope = ACTIVATIONS[activation](z)
            delta = 2 * outputs[p, j] * slope
            grads["bias"][j] += delta
            for i in range(kernel.shape[0]):
                grads["kernel"][i, j] += positions[p, i] * delta
    return outputs.reshape(*np.shape(x)[:-1], kernel.shape[1]), grads


def convolution(x: Array, kernel: Array, bias: Array, activation: str = "linear") -> Layer:
    """x (H, W, C), kernel (h, w, C, O), no padding; a weight's gradients add up over positions."""
    x = np.asarray(x, np.float64)
    height, width, channels, columns = kernel.shape
    outputs = np.zeros((x.shape[0] - height + 1, x.shape[1] - width + 1, columns))
    grads = {"kernel": np.zeros(kernel.shape), "bias": np.zeros(bias.shape)}
    taps = list(np.ndindex(height, width, channels))
    for row, column, j in np.ndindex(outputs.shape):
        z = bias[j] + sum(x[row + a, column + b, c] * kernel[a, b, c, j] for a, b, c in taps)
        outputs[row, column, j], slope = ACTIVATIONS[activation](z)
        delta = 2 * outputs[row, column, j] * slope
        grads["bias"][j] += delta
        for a, b, c in taps:
            grads["kernel"][a, b, c, j] += x[row + a, column + b, c] * delta
    return outputs, grads


def layer_norm(x: Array, scale: Array, bias: Array, epsilon: float = 1e-6) -> Layer:
    """y = x̂ γ + β, x̂ with mean 0 and variance 1: ∂‖y‖²/∂γ_j = 2 y_j x̂_j. Summed over positions."""
    positions = np.asarray(x, np.float64).reshape(-1, len(scale))
    outputs = np.zeros(positions.shape)
    grads = {"scale": np.zeros(scale.shape), "bias": np.zeros(bias.shape)}
    for p in range(len(positions)):
        mean = sum(positions[p]) / len(scale)
        variance = sum((entry - mean) ** 2 for entry in positions[p]) / len(scale)
        for j in range(len(scale)):
            normalised = (positions[p, j] - mean) / math.sqrt(variance + epsilon)
            outputs[p, j] = normalised * scale[j] + bias[j]
            grads["scale"][j] += 2 * outputs[p, j] * normalised
            grads["bias"][j] += 2 * outputs[p, j]
    return outputs.reshape(np.shape(x)), grads


def dense_batch_norm(
    x: Array, kernel: Array, norm: dict[str, Array], activation: str, epsilon: float = 1e-5
) -> Layer:
    """y = f((xW − mean) γ / √(var + ε) + β), with the statistics held."""
    outputs = np.zeros(kernel.shape[1])
    grads = {"kernel": np.zeros(kernel.shape)}
    grads |= {name: np.zeros(kernel.shape[1]) for name in ("scale", "bias")}
    for j in range(kernel.shape[1]):
        deviation = math.sqrt(norm["var"][j] + epsilon)
        product = sum(x[i] * kernel[i, j] for i in range(len(x)))
        normalised = (product - norm["mean"][j]) / deviation
        outputs[j], slope = ACTIVATIONS[activation](normalised * norm["scale"][j] + norm["bias"][j])
        delta = 2 * outputs[j] * slope
        grads["scale"][j] = delta * normalised
        grads["bias"][j] = delta
        for i in range(len(x)):
            grads["kernel"][i, j] = delta * norm["scale"][j] / deviation * x[i]
    return outputs, grads


def embedding(tokens: Any, table: Array, positions: Array) -> Layer:
    """y_t = table[token_t] + positions[t]: ∂‖y‖²/∂table[v] = Σ over t with token v of 2 y_t."""
    outputs = np.zeros((len(tokens), table.shape[1]))
    grads = {"table": np.zeros(table.shape), "positions": np.zeros(positions.shape)}
    for t, token in enumerate(tokens):
        for d in range(table.shape[1]):
            outputs[t, d] = table[token, d] + positions[t, d]
            grads["table"][token, d] += 2 * outputs[t, d]
            grads["positions"][t, d] += 2 * outputs[t, d]
    return outputs, grads


def max_pool(x: Array) -> Array:
    """2 × 2 windows of (H, W, C) side by side; what is left at the edges is dropped."""
    outputs = np.zeros((x.shape[0] // 2, x.shape[1] // 2, x.shape[2]))
    for row, column, c in np.ndindex(outputs.shape):
        outputs[row, column, c] = max(
            x[2 * row + a, 2 * column + b, c] for a in range(2) for b in range(2)
        )
    return outputs


def attention(query: Array, key: Array, value: Array) -> Array:
    """(T, heads, D) each: Σ_s softmax_s(query_t · key_s) value_s."""
    outputs = np.zeros(value.shape)
    for head, t in np.ndindex(query.shape[1], query.shape[0]):
        logits = [float(query[t, head] @ key[s, head]) for s in range(len(key))]
        powers = [math.exp(logit) for logit in logits]
        for s in range(len(key)):
            outputs[t, head] += powers[s] / sum(powers) * value[s, head]
    return outputs


def mean_magnitude(
    gradients_fn: Callable[[Any], dict[str, Array]], samples: Sequence[Any]
) -> dict[str, Array]:
    """(1/N) Σ_k |g_k| of what `gradients_fn` returns for each sample."""
    totals: dict[str, Array] = {}
    for x in samples:
        for name, grad in gradients_fn(x).items():
            totals[name] = totals.get(name, np.zeros(grad.shape)) + np.abs(grad)
    return {name: total / len(samples) for name, total in totals.items()}
