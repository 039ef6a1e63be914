"""Incremental Moment Matching (Lee et al., NeurIPS 2017): tasks' networks merged into one."""

import dataclasses
from pathlib import Path
from typing import Any, Literal

import jax
import optax

import mas_jax
from experiments.methods.base import Stage
from experiments.methods.ewc import EWC


@dataclasses.dataclass(frozen=True, kw_only=True)
class IMM(EWC):
    """Incremental Moment Matching: one network per task, merged when all are learned.

    Each task starts from the one before, with L2-transfer: L(θ) + (λ/2) Σ_i (θ_i − θ*_i)². The
    merged trunk, which answers, and from which nothing is learned on, is for equal weights α_t:
    mean: θ = Σ_t α_t θ_t;   mode: θ_i = Σ_t α_t F_t,i θ_t,i / Σ_t α_t F_t,i,
    F_t as for EWC. Heads of single tasks are not merged.
    """

    merge: Literal["mean", "mode"] = "mean"
    """By plain or by Fisher-weighted means."""

    def end_task(self, memory: Any, stage: Stage) -> Any:
        ones = mas_jax.uniform_importance(stage.params, mask=stage.network.anchored)
        weights = ones
        if self.merge == "mode":
            weights = super().end_task(None, stage).importance
        before = None if memory is None else memory["merged"]
        return {
            "latest": mas_jax.consolidate(None, stage.params, ones),
            # The minimum of Σ_t Σ_i w_t,i (θ_i − θ_t,i)² is the weighted mean.
            "merged": mas_jax.consolidate(before, stage.params, weights, center="all"),
        }

    def anchor(self, memory: Any) -> mas_jax.Anchor:
        return memory["latest"]

    def as_stored(self, memory: Any) -> Any:
        rounded = super().as_stored
        return {kind: rounded(anchor) for kind, anchor in memory.items()}

    def deployed(self, memory: Any, params: Any) -> Any:
        def merged(mean: Any, own: Any) -> Any:
            return own if isinstance(mean, optax.MaskedNode) else mean

        return jax.tree.map(
            merged,
            memory["merged"].params,
            params,
            is_leaf=lambda node: isinstance(node, optax.MaskedNode),
        )

    def save_memory(self, memory: Any, folder: Path, stage: Stage) -> None:
        for kind, anchor in memory.items():
            self.keep(folder / kind, stage, anchor, objective=f"imm_{kind}")

    @property
    def stores(self) -> tuple[str, ...]:
        return ("latest", "merged")

    def load_memory(self, params: Any, folder: Path, task: int, name: str) -> Any:
        del task
        return {
            kind: mas_jax.AnchorStore(folder / kind).restore(name, like=params)
            for kind in self.stores
        }

    def importance(self, memory: Any) -> Any:
        return memory["merged"].importance if memory and self.merge == "mode" else None


METHODS = {"imm_mean": IMM(merge="mean"), "imm_mode": IMM(merge="mode")}
