"""Memory Aware Synapses for JAX: measure which parameters matter, and keep them where they are.

omega = mas_jax.estimate_importance(apply_fn, params, unlabelled_batches)
anchor = mas_jax.consolidate(anchor, params, omega)
opt_state = mas_jax.with_anchor(opt_state, anchor)  # tx has mas_jax.anchor_penalty in it
"""

from mas_jax import metrics
from mas_jax.accumulation import ImportanceState
from mas_jax.adapters import from_linen, from_nnx
from mas_jax.anchor import Anchor, consolidate
from mas_jax.balanced import BalancedAnchor, balance
from mas_jax.condition import StoreCondition
from mas_jax.errors import (
    CheckpointCorruptError,
    CoupledSamplesError,
    EngineError,
    EngineWarning,
    FallbackError,
    MasJaxError,
    NonFiniteError,
    OlderAnchorWarning,
    StoreFormatError,
    StoreLockedError,
    StoreNotWritableError,
    TaskExistsError,
    TaskNotFoundError,
    TreeMismatchError,
)
from mas_jax.estimate import estimate_importance
from mas_jax.explain import Explanation, LeafExplanation, explain
from mas_jax.fisher import estimate_fisher, fisher_estimator
from mas_jax.host_arrays import as_stored
from mas_jax.importance import ImportanceEstimator, importance_estimator
from mas_jax.independence import check_independence
from mas_jax.local import local_outputs
from mas_jax.objectives import every_output, l1_norm, l2_norm, squared_l2_norm
from mas_jax.path_integral import PathState, path_importance, path_integral, restart_path
from mas_jax.penalty import AnchorState, anchor_penalty, anchor_proximal, penalty, with_anchor
from mas_jax.store import AnchorStore
from mas_jax.uniform import uniform_importance

__all__ = [
    "Anchor",
    "AnchorState",
    "AnchorStore",
    "BalancedAnchor",
    "CheckpointCorruptError",
    "CoupledSamplesError",
    "EngineError",
    "EngineWarning",
    "Explanation",
    "FallbackError",
    "ImportanceEstimator",
    "ImportanceState",
    "LeafExplanation",
    "MasJaxError",
    "NonFiniteError",
    "OlderAnchorWarning",
    "PathState",
    "StoreCondition",
    "StoreFormatError",
    "StoreLockedError",
    "StoreNotWritableError",
    "TaskExistsError",
    "TaskNotFoundError",
    "TreeMismatchError",
    "anchor_penalty",
    "anchor_proximal",
    "as_stored",
    "balance",
    "check_independence",
    "consolidate",
    "estimate_fisher",
    "estimate_importance",
    "every_output",
    "explain",
    "fisher_estimator",
    "from_linen",
    "from_nnx",
    "importance_estimator",
    "l1_norm",
    "l2_norm",
    "local_outputs",
    "metrics",
    "path_importance",
    "path_integral",
    "penalty",
    "restart_path",
    "squared_l2_norm",
    "uniform_importance",
    "with_anchor",
]
