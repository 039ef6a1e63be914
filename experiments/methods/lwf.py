"""Learning without Forgetting (Li and Hoiem, ECCV 2016)."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import jax

from experiments.forward import all_outputs
from experiments.methods.base import Method, Stage
from experiments.methods.distillation import distillation, old_heads
from experiments.networks import Network, Seen
from experiments.training import Recorded


@dataclasses.dataclass(frozen=True, kw_only=True)
class LwF(Method):
    """Learning without Forgetting: old heads go on answering as they did, on the new examples.

    Loss on a new task (Eqs. 2 to 4): L(θ) + λ Σ_old heads −(1/N) Σ_k Σ_c y'_kc log ŷ'_kc, with y'
    and ŷ' the probabilities of that head, recorded before and now, softened: y' ∝ exp(logit / T).
    y' is recorded once, from the middle of a picture and without dropout, whatever view of it is
    trained on. No earlier example is kept, and nothing but the network from task to task. The paper
    warms up the new head first, an option of the experiments for all methods
    (--head-warmup-epochs).
    """

    strength: float = 1.0
    """λ, the weight of old heads; 1 in the paper."""
    temperature: float = 2.0
    """T, how soft the outputs are compared; 2 in the paper."""

    def __post_init__(self) -> None:
        if not 0 <= self.strength < math.inf or not 0 < self.temperature < math.inf:
            raise ValueError(
                "strength must be at least 0 and temperature above 0, both finite, got "
                f"{self.strength} and {self.temperature}"
            )

    def trained_heads(self, task: int) -> Sequence[int]:
        return range(task + 1)

    def record(self, memory: Any, stage: Stage) -> Recorded:
        del memory
        if stage.task == 0:
            return Recorded()
        outputs = all_outputs(stage.network, stage.mesh, stage.params, stage.train)
        return Recorded(outputs, old_heads(stage))

    def extra_loss(
        self, network: Network, seen: Seen, targets: jax.Array, constants: Any
    ) -> jax.Array:
        del network
        return distillation(seen.outputs, targets, constants, self.temperature)


METHODS = {"lwf": LwF()}
