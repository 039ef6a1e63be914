"""L2: all parameters are held alike."""

import dataclasses

import mas_jax
from experiments.methods.anchored import Anchored
from experiments.methods.base import Stage


@dataclasses.dataclass(frozen=True, kw_only=True)
class L2(Anchored):
    """L2: every parameter is held where the latest task left it, important or not.

    Loss on a new task: L(θ) + (λ/2) Σ_ij (θ_ij − θ*_ij)².
    """

    def end_task(self, memory: mas_jax.Anchor | None, stage: Stage) -> mas_jax.Anchor:
        del memory
        ones = mas_jax.uniform_importance(stage.params, mask=stage.network.anchored)
        return mas_jax.consolidate(None, stage.params, ones)


METHODS = {"l2": L2()}
