"""Memory Aware Synapses (Aljundi et al., ECCV 2018), with exact per-sample importance."""

import dataclasses
import functools
from pathlib import Path
from typing import Any, Literal

import jax
import optax
from jax.sharding import Mesh

import mas_jax
from experiments.methods.base import Learned, Method
from experiments.networks import TRUNK_ONLY
from experiments.training import batches

BATCH_SIZE = 200
"""Samples per step of the scan over a task's examples; changes speed only."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class MAS(Method):
    """Memory Aware Synapses: penalty (λ/2) Σ Ω (θ − θ*)², Ω = mean |∂‖F(x)‖² / ∂θ| (Eqs. 2, 3)."""

    strength: float = 1.0
    """λ, how strongly parameters that matter are held. The authors' λ is half of it."""
    rule: Literal["sum", "max"] = "sum"
    """How importance adds up over tasks; the paper sums."""

    def __post_init__(self) -> None:
        # The library's own check, at the boundary where the value is given.
        mas_jax.anchor_penalty(self.strength)

    def transformation(self) -> optax.GradientTransformation:
        return mas_jax.anchor_penalty(self.strength, mask=TRUNK_ONLY)

    def begin_task(self, opt_state: Any, memory: mas_jax.Anchor | None) -> Any:
        # Before the first task the optimizer's own anchor, which pulls nothing, is the right one.
        return opt_state if memory is None else mas_jax.with_anchor(opt_state, memory)

    def end_task(self, memory: mas_jax.Anchor | None, learned: Learned) -> mas_jax.Anchor:
        omega = task_importance(learned.apply_fn, learned.mesh, learned.params, learned.examples)
        return mas_jax.consolidate(memory, learned.params, omega, rule=self.rule)

    def save_memory(self, memory: mas_jax.Anchor, folder: Path, learned: Learned) -> None:
        store = mas_jax.AnchorStore(folder / "anchors")
        if learned.name in store.tasks():  # left by a run that was stopped just after this line
            store.delete(learned.name)
        size = int(learned.examples.size)
        store.save(learned.name, memory, objective="squared_l2_norm", num_samples=size)

    def load_memory(self, params: Any, folder: Path, task: str) -> mas_jax.Anchor:
        return mas_jax.AnchorStore(folder / "anchors").restore(task, like=params)

    def importance(self, memory: mas_jax.Anchor | None) -> Any:
        return None if memory is None else memory.importance


@functools.partial(jax.jit, static_argnums=(0, 1))
def task_importance(apply_fn: Any, mesh: Mesh | None, params: Any, examples: Any) -> Any:
    """Ω of Eq. 2 over one task's inputs; the labels are not looked at."""
    estimator = mas_jax.importance_estimator(apply_fn, mask=TRUNK_ONLY, mesh=mesh)

    def step(state: Any, xs: Any) -> tuple[Any, None]:
        batch, weights = xs
        return estimator.update(state, params, batch, weights), None

    state, _ = jax.lax.scan(step, estimator.init(params), batches(examples, BATCH_SIZE))
    return estimator.finalize(state)
