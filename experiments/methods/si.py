"""Synaptic Intelligence (Zenke et al., ICML 2017)."""

import dataclasses
from typing import Any

import optax

import mas_jax
from experiments.methods.anchored import Anchored
from experiments.methods.base import Stage
from experiments.networks import Network


@dataclasses.dataclass(frozen=True, kw_only=True)
class SI(Anchored):
    """Synaptic Intelligence: what brought the loss down along the way is held.

    Loss on a new task (Eq. 4): L(θ) + c Σ_k Ω_k (θ*_k − θ_k)²; λ here is 2c.
    Importance (Eq. 5): Ω_k = Σ_tasks max(0, ω_k) / ((Δ_k)² + ξ), where Δ_k is how far the parameter
    went during the task and ω_k = −∫ (∂L/∂θ_k) dθ_k, over steps with the unregularised loss L.
    """

    damping: float = 0.1
    """ξ, keeps Ω finite where a parameter has hardly moved."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.damping < float("inf"):
            raise ValueError(f"damping must be above 0, and finite, got {self.damping}")

    def optimizer(
        self, base: optax.GradientTransformation, network: Network
    ) -> optax.GradientTransformation:
        inner = optax.chain(self.penalty(network), base)
        return mas_jax.path_integral(inner, mask=network.anchored)

    def learns_first_plainly(self) -> bool:
        return False  # the path of the first task is measured, too

    def begin_task(self, opt_state: Any, memory: Any, params: Any) -> Any:
        opt_state = mas_jax.restart_path(opt_state, params)
        return super().begin_task(opt_state, memory, params)

    def held(self, opt_state: Any) -> Any:
        return opt_state._replace(inner=None)

    def end_task(self, memory: mas_jax.Anchor | None, stage: Stage) -> mas_jax.Anchor:
        omega = mas_jax.path_importance(stage.opt_state, stage.params, damping=self.damping)
        return mas_jax.consolidate(memory, stage.params, omega)


METHODS = {"si": SI()}
