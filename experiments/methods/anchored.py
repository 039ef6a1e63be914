"""What methods have in common that hold parameters where they were: an anchor under a penalty."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

import mas_jax
from experiments.examples import DeviceExamples, in_order
from experiments.loops import Loop, make_loop
from experiments.methods.base import Method, Stage
from experiments.networks import Batch, Network

Data: TypeAlias = Literal["train", "test", "both"]
"""Which of a task's examples importance is measured on; their labels are not needed for MAS."""

BATCH_SIZE = 200
"""Samples per step of the loop over a task's examples; changes speed only."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Anchored(Method):
    """A penalty (λ/2) Σ Ω (θ − θ*)² on what tasks share. Subclasses say what Ω and θ* are."""

    strength: float = 1.0
    """λ, how strongly parameters that matter are held."""

    def __post_init__(self) -> None:
        # The library's own check, at the boundary where the value is given.
        mas_jax.anchor_penalty(self.strength)

    def optimizer(
        self, base: optax.GradientTransformation, network: Network
    ) -> optax.GradientTransformation:
        return optax.chain(self.penalty(network), base)

    def penalty(self, network: Network) -> optax.GradientTransformation:
        """The penalty's gradient, with λ as a hyperparameter in the optimizer's state."""
        injected = optax.inject_hyperparams(mas_jax.anchor_penalty, static_args=("mask",))
        return injected(strength=self.strength, mask=network.anchored)

    def begin_task(self, opt_state: Any, memory: Any, params: Any) -> Any:
        del params
        # Before the first task the optimizer's own anchor, which pulls nothing, is the right one.
        return opt_state if memory is None else mas_jax.with_anchor(opt_state, self.anchor(memory))

    def anchor(self, memory: Any) -> mas_jax.Anchor:
        """The anchor in the memory; here it is the memory."""
        return memory

    def save_memory(self, memory: Any, folder: Path, stage: Stage) -> None:
        keep_anchor(folder / "anchors", stage, memory, objective=type(self).__name__)

    def load_memory(self, params: Any, folder: Path, task: int, name: str) -> Any:
        del task
        return mas_jax.AnchorStore(folder / "anchors").restore(name, like=params)

    def importance(self, memory: Any) -> Any:
        return None if memory is None else self.anchor(memory).importance


def keep_anchor(directory: Path, stage: Stage, anchor: mas_jax.Anchor, **metadata: Any) -> None:
    """Save a task's anchor, in the place of one that a stopped run left behind."""
    store = mas_jax.AnchorStore(directory)
    if stage.name in store.tasks():
        store.delete(stage.name)
    store.save(stage.name, anchor, num_samples=int(stage.train.size), **metadata)


class Measure(NamedTuple):
    """How importance is measured: an estimator, and what its batches are made of."""

    estimator: mas_jax.ImportanceEstimator
    batch_fn: Callable[[Batch, jax.Array, jax.Array], Any] = lambda batch, *_: batch
    """From inputs, labels and a key for each sample; MAS leaves labels and keys alone."""


MeasureFn: TypeAlias = Callable[[Network, Mesh | None], Measure]


def importance_over(
    measure_fn: MeasureFn,
    network: Network,
    mesh: Mesh | None,
    params: Any,
    parts: Sequence[DeviceExamples],
    counted: np.ndarray,
    key: jax.Array,
) -> Any:
    """Ω over the examples of all `parts` whose label's entry in `counted` (C,) is 1."""
    state = measure_fn(network, mesh).estimator.init(params)
    for number, part in enumerate(parts):
        rows, weights = in_order(part, BATCH_SIZE)
        weights = weights * jnp.asarray(counted)[part.labels[rows]]
        keys = jax.random.split(jax.random.fold_in(key, number), weights.shape)
        loop = _updating(measure_fn, network, mesh)
        state, _ = loop(state, rows, weights, (part.batch, part.labels), params, keys)
    return measure_fn(network, mesh).estimator.finalize(state)


importance_compiled = jax.jit(importance_over, static_argnums=(0, 1, 2))


@functools.cache
def _updating(measure_fn: MeasureFn, network: Network, mesh: Mesh | None) -> Loop:
    """The loop over batches."""
    estimator, batch_fn = measure_fn(network, mesh)

    def step(
        state: Any,
        taken: tuple[Batch, jax.Array],
        weights: jax.Array,
        number: jax.Array,
        params: Any,
        keys_SxB: jax.Array,
    ) -> tuple[Any, None]:
        batch = batch_fn(*taken, keys_SxB[number])
        return estimator.update(state, params, batch, weights), None

    return make_loop(step, stepwise=network.stepwise)


def task_importance(
    measure_fn: MeasureFn,
    stage: Stage,
    data: Data = "train",
    only: Sequence[int] = (),
) -> Any:
    """Ω after a task, over what `data` says, of the classes in `only` if the task has any."""
    parts = {"train": [stage.train], "test": [stage.test], "both": [stage.train, stage.test]}[data]
    counted = np.isin(stage.labels, only) if set(only) & set(stage.classes) else True
    counted = np.broadcast_to(np.float32(counted), len(stage.labels))
    over = importance_over if stage.network.stepwise else importance_compiled
    return over(measure_fn, stage.network, stage.mesh, stage.params, parts, counted, stage.key)
