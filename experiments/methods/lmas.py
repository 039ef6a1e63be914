"""l-MAS, the local version of Memory Aware Synapses (Aljundi et al., ECCV 2018, section 4.3)."""

import dataclasses

from jax.sharding import Mesh

import mas_jax
from experiments.methods.anchored import Anchored, Data, Measure, task_importance
from experiments.methods.base import Stage
from experiments.networks import Network


@dataclasses.dataclass(frozen=True, kw_only=True)
class LocalMAS(Anchored):
    """l-MAS: each layer holds what its own outputs depend on, as Hebb's rule would.

    Loss as for MAS. Importance of a weight from input i to output j of a layer y = relu(xW), the
    layer's function alone: Ω_ij = (1/N) Σ_k |∂‖y(x_k)‖₂² / ∂θ_ij| = (1/N) Σ_k 2 x_ki y_kj.
    """

    data: Data = "train"
    """Which of the task's examples Ω is measured on."""

    def measure(self, network: Network, mesh: Mesh | None) -> Measure:
        """The estimator of Ω: layer by layer, gradients cut between layers."""
        layers = mas_jax.local_outputs(network.outputs)
        return Measure(mas_jax.importance_estimator(layers, mask=network.anchored, mesh=mesh))

    def end_task(self, memory: mas_jax.Anchor | None, stage: Stage) -> mas_jax.Anchor:
        omega = task_importance(self.measure, stage, self.data)
        return mas_jax.consolidate(memory, stage.params, omega)


METHODS = {"lmas": LocalMAS()}
