"""Elastic Weight Consolidation (Kirkpatrick et al., PNAS 2017), separate or online."""

import dataclasses
from typing import Any, Literal

from jax.sharding import Mesh

import mas_jax
from experiments.methods.anchored import Anchored, Measure, task_importance
from experiments.methods.base import Stage
from experiments.networks import Network


@dataclasses.dataclass(frozen=True, kw_only=True)
class EWC(Anchored):
    """Elastic Weight Consolidation: what the likelihood depends on is held.

    Loss on a new task (Eq. 3, for each earlier task t): L(θ) + (λ/2) Σ_t Σ_i F_t,i (θ_i − θ*_t,i)².
    Importance, the diagonal of Fisher's information:
    F_i = (1/N) Σ_k E_y (∂ log p(y|x_k; θ) / ∂θ_i)², y ~ p(·|x_k; θ).
    Every task's penalty is kept, folded into one by completing the square.
    """

    labels: Literal["sampled", "exact", "empirical"] = "sampled"
    """Where y is from: one draw for each sample, all classes by their probability, or the data."""

    def measure(self, network: Network, mesh: Mesh | None) -> Measure:
        """The estimator of F."""
        estimator = network.fisher_estimator(self.labels, mask=network.anchored, mesh=mesh)
        match self.labels:
            case "exact":
                return Measure(estimator)
            case "sampled":
                return Measure(estimator, lambda batch, _, keys: (batch, keys))
            case "empirical":
                return Measure(estimator, lambda batch, labels, _: (batch, labels))

    def end_task(self, memory: mas_jax.Anchor | None, stage: Stage) -> mas_jax.Anchor:
        fisher = task_importance(self.measure, stage)
        return self.joined(memory, stage.params, fisher)

    def joined(self, memory: mas_jax.Anchor | None, params: Any, fisher: Any) -> mas_jax.Anchor:
        """The anchor of all tasks so far."""
        return mas_jax.consolidate(memory, params, fisher, center="all")


@dataclasses.dataclass(frozen=True, kw_only=True)
class OnlineEWC(EWC):
    """Online EWC (Schwarz et al., ICML 2018, Eq. 9): one penalty, around the latest task.

    Loss on a new task: L(θ) + (λ/2) Σ_i F*_i (θ_i − θ*_i)², with F* = γ F*_before + F after a task.
    """

    decay: float = 1.0
    """γ, how much of the Fisher information before is kept from task to task."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.decay <= 1:
            raise ValueError(f"decay must be a factor between 0 and 1, got {self.decay}")

    def joined(self, memory: mas_jax.Anchor | None, params: Any, fisher: Any) -> mas_jax.Anchor:
        return mas_jax.consolidate(memory, params, fisher, rule="decay", decay=self.decay)


METHODS = {"ewc": EWC(), "ewc_online": OnlineEWC()}
