"""What several tasks' penalties and SI's path integral are, in float64 loops."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

Array = np.ndarray


class Task(NamedTuple):
    """One task's parameters and importance, two vectors."""

    theta: Array
    omega: Array


def separate_penalty(theta: Array, tasks: Sequence[Task], weights: Sequence[float]) -> float:
    """½ Σ_t w_t Σ_i Ω_ti (θ_i − θ*_ti)²."""
    return 0.5 * math.fsum(
        weight * float(omega) * (float(now) - float(star)) ** 2
        for task, weight in zip(tasks, weights, strict=True)
        for now, star, omega in zip(theta, task.theta, task.omega, strict=True)
    )


def separate_gradient(theta: Array, tasks: Sequence[Task], weights: Sequence[float]) -> Array:
    """Σ_t w_t Ω_ti (θ_i − θ*_ti), for each i."""
    return np.array(
        [
            math.fsum(
                weight * float(task.omega[i]) * (float(theta[i]) - float(task.theta[i]))
                for task, weight in zip(tasks, weights, strict=True)
            )
            for i in range(len(theta))
        ]
    )


def gradient_size(theta: Array, tasks: Sequence[Task], weights: Sequence[float]) -> Array:
    """Σ_t w_t Ω_ti (|θ_i| + max_s |θ*_si|): what rounding errors are measured against."""
    return np.array(
        [
            math.fsum(weight * float(t.omega[i]) for t, weight in zip(tasks, weights, strict=True))
            * (abs(float(theta[i])) + max(abs(float(t.theta[i])) for t in tasks))
            for i in range(len(theta))
        ]
    )


def balanced_weights(tasks: Sequence[Task], total: str) -> list[float]:
    """α_t with α_t S_t the same for all t, normalised as `total` says."""
    sizes = [math.fsum(map(float, task.omega)) for task in tasks]
    shares = [1 / size for size in sizes]
    sums = {
        "one": 1 / math.fsum(shares),
        "tasks": len(tasks) / math.fsum(shares),
        # Σ_t α_t S_t = T c is to be Σ_t S_t.
        "importance": math.fsum(sizes) / len(tasks),
    }
    return [sums[total] * share for share in shares]


def sgd(rate: float, momentum: float = 0.0) -> Callable[[float], float]:
    """One parameter's steps: m ← g + μ m, Δθ = −η m."""
    trace = 0.0

    def step(gradient: float) -> float:
        nonlocal trace
        trace = gradient + momentum * trace
        return -rate * trace

    return step


def adam(rate: float, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8):
    """One parameter's steps: Δθ = −η m̂ / (√v̂ + ε) (Kingma and Ba 2015, Algorithm 1)."""
    m = v = 0.0
    count = 0

    def step(gradient: float) -> float:
        nonlocal m, v, count
        count += 1
        m = b1 * m + (1 - b1) * gradient
        v = b2 * v + (1 - b2) * gradient * gradient
        return -rate * (m / (1 - b1**count)) / (math.sqrt(v / (1 - b2**count)) + eps)

    return step


def path(
    gradient: Callable[[float], float],
    optimizer: Callable[[], Callable[[float], float]],
    theta: Sequence[float],
    steps: int,
) -> tuple[Array, Array]:
    """(ω, θ at the end) for parameters that each have a loss of their own."""
    omegas, ends = [], []
    for start in theta:
        step, now, omega = optimizer(), float(start), 0.0
        for _ in range(steps):
            g = gradient(now)
            moved = step(g)
            omega -= g * moved
            now += moved
        omegas.append(omega)
        ends.append(now)
    return np.array(omegas), np.array(ends)


def damped(omega: Array, end: Array, start: Sequence[float], damping: float) -> Array:
    """max(0, ω) / ((θ − θ_start)² + ξ)."""
    return np.array(
        [
            max(0.0, o) / ((float(e) - float(s)) ** 2 + damping)
            for o, e, s in zip(omega, end, start, strict=True)
        ]
    )
