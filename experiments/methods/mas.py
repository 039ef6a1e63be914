"""Memory Aware Synapses (Aljundi et al., ECCV 2018), with exact per-sample importance."""

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal

from jax.sharding import Mesh

import mas_jax
from experiments.data.types import Task
from experiments.methods.anchored import Anchored, Data, Measure, task_importance
from experiments.methods.base import Stage
from experiments.networks import Network


@dataclasses.dataclass(frozen=True, kw_only=True)
class MAS(Anchored):
    """Memory Aware Synapses: what the outputs depend on is held.

    Loss on a new task (Eq. 3): L(θ) + (λ/2) Σ_ij Ω_ij (θ_ij − θ*_ij)².
    Importance (Eq. 2): Ω_ij = (1/N) Σ_k |∂‖F(x_k; θ)‖₂² / ∂θ_ij|, from inputs alone; for a
    vector of outputs (section 4.1) (1/N) Σ_k ‖∂F(x_k; θ) / ∂θ_ij‖₂, n backward passes; the authors'
    code has ‖·‖₁ there.
    Over tasks Ω is summed, and θ* is where the latest one ended.
    """

    strength: float = 1.0
    """λ. The authors' λ is half of it."""
    output: Literal["squared_norm", "vector", "vector_l1"] = "squared_norm"
    """What of the outputs is differentiated: ‖F‖², or each of them, joined by an ℓ2 or ℓ1 norm."""
    data: Data = "train"
    """Which of the task's examples Ω is measured on."""
    only: tuple[int, ...] = ()
    """Classes that Ω is measured on, in tasks that have any of them; all, if empty."""
    rule: Literal["sum", "max"] = "sum"
    """How importance adds up over tasks."""

    def check(self, tasks: Sequence[Task], network: Network) -> None:
        super().check(tasks, network)
        known = {label for task in tasks for label in task.classes}
        unknown = sorted(set(self.only) - known)
        if unknown:
            raise ValueError(
                f"importance would be measured on no example of class {unknown[0]}: no task has "
                f"it. There are: {', '.join(map(str, sorted(known)))}"
            )

    def measure(self, network: Network, mesh: Mesh | None) -> Measure:
        """The estimator of Ω."""
        options: dict[str, Any] = {}
        if self.output != "squared_norm":
            magnitude = "l2" if self.output == "vector" else "abs"
            options = {"objective": mas_jax.every_output, "magnitude": magnitude}
        return Measure(
            mas_jax.importance_estimator(
                network.outputs, mask=network.anchored, mesh=mesh, **options
            )
        )

    def end_task(self, memory: mas_jax.Anchor | None, stage: Stage) -> mas_jax.Anchor:
        omega = task_importance(self.measure, stage, self.data, self.only)
        return mas_jax.consolidate(memory, stage.params, omega, rule=self.rule)


METHODS = {
    "mas": MAS(),
    "mas_vector": MAS(output="vector"),
    "mas_test": MAS(data="test"),
    "mas_both": MAS(data="both"),
}
