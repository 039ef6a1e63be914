"""The order-balanced ("alpha") rule: every task's importance weighs the same in all."""

import dataclasses
from pathlib import Path
from typing import Any, Literal

from jax.sharding import Mesh

import mas_jax
from experiments.methods.anchored import Anchored, Measure, task_importance
from experiments.methods.base import Stage
from experiments.networks import Network


@dataclasses.dataclass(frozen=True, kw_only=True)
class AlphaMAS(Anchored):
    """MAS with the tasks' importances balanced.

    Loss on a new task: L(θ) + (λ/2) Σ_t α_t Σ_ij Ω_t,ij (θ_ij − θ*_t,ij)², where α_t Σ_ij Ω_t,ij is
    the same for all tasks t. In constant memory, by completing the square. Ω_t as for MAS.
    """

    total: Literal["importance", "tasks", "one"] = "importance"
    """How strong all tasks are together: Σ_t α_t ΣΩ_t = Σ_t ΣΩ_t, as strong as summing; or Σ α_t is
    the number of tasks; or 1."""

    def measure(self, network: Network, mesh: Mesh | None) -> Measure:
        """The estimator of Ω."""
        return Measure(
            mas_jax.importance_estimator(network.outputs, mask=network.anchored, mesh=mesh)
        )

    def end_task(self, memory: Any, stage: Stage) -> mas_jax.BalancedAnchor:
        omega = task_importance(self.measure, stage)
        return mas_jax.balance(memory, stage.params, omega, total=self.total)

    def anchor(self, memory: mas_jax.BalancedAnchor) -> mas_jax.Anchor:
        return memory.anchor

    def as_stored(self, memory: mas_jax.BalancedAnchor) -> mas_jax.BalancedAnchor:
        return memory._replace(anchor=super().as_stored(memory.anchor))

    def save_memory(self, memory: Any, folder: Path, stage: Stage) -> None:
        extra = {"balanced": memory.scalars()}
        self.keep(folder / "anchors", stage, memory.anchor, objective="AlphaMAS", extra=extra)

    def load_memory(
        self, params: Any, folder: Path, task: int, name: str
    ) -> mas_jax.BalancedAnchor:
        anchor = super().load_memory(params, folder, task, name)
        metadata = mas_jax.AnchorStore(folder / "anchors").metadata(name)
        return mas_jax.BalancedAnchor.from_scalars(anchor, metadata["extra"]["balanced"])


METHODS = {"alpha": AlphaMAS()}
