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
from experiments import devices
from experiments.examples import DeviceExamples, in_order
from experiments.loops import make_loop
from experiments.methods.base import Method, Stage
from experiments.networks import Batch, Network

Data: TypeAlias = Literal["train", "test", "both"]
"""Which of a task's examples importance is measured on; their labels are not needed for MAS."""

Code: TypeAlias = Literal["exact", "bfloat16", "log8"]
"""How Ω is stored."""

BATCH_SIZE = 200
"""Samples per step of the loop over a task's examples; changes speed only."""
BATCHES_PER_CHUNK = 50
"""Steps at most from one boundary to the next, at which a run can be stopped; one, where each is a
call from the host."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Anchored(Method):
    """A penalty (λ/2) Σ Ω (θ − θ*)² on what tasks share. Subclasses say what Ω and θ* are."""

    strength: float = 1.0
    """λ, how strongly parameters that matter are held."""
    importance_as: Code = "exact"
    """How the run's store keeps Ω: exact, 4 bytes a parameter; bfloat16, 2; log8, 1.03. The next
    task is learned with Ω as the store gives it back, whether or not the run was stopped."""

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

    def as_stored(self, memory: Any) -> Any:
        return mas_jax.as_stored(memory, self.importance_as)

    def save_memory(self, memory: Any, folder: Path, stage: Stage) -> None:
        self.keep(folder / "anchors", stage, memory, objective=type(self).__name__)

    def keep(self, directory: Path, stage: Stage, anchor: mas_jax.Anchor, **metadata: Any) -> None:
        """Save a task's anchor, in the place of one that a stopped run left behind."""
        store = mas_jax.AnchorStore(directory)
        if stage.name in store.tasks():
            store.delete(stage.name)
        metadata |= {"num_samples": int(stage.train.size), "importance_as": self.importance_as}
        store.save(stage.name, anchor, **metadata)

    @property
    def stores(self) -> tuple[str, ...]:
        return ("anchors",)

    def load_memory(self, params: Any, folder: Path, task: int, name: str) -> Any:
        del task
        return mas_jax.AnchorStore(folder / "anchors").restore(name, like=params)

    def importance(self, memory: Any) -> Any:
        return None if memory is None else self.anchor(memory).importance


class Measure(NamedTuple):
    """How importance is measured: an estimator, and what its batches are made of."""

    estimator: mas_jax.ImportanceEstimator
    batch_fn: Callable[[Batch, jax.Array, jax.Array], Any] = lambda batch, *_: batch
    """From inputs, labels and a key for each sample; MAS leaves labels and keys alone."""


MeasureFn: TypeAlias = Callable[[Network, Mesh | None], Measure]


class Stream(NamedTuple):
    """A part's batches, in chunks that are alike, so that one program measures all."""

    rows: jax.Array  # (K, S, B)
    weights: jax.Array  # (K, S, B), 0 for filling
    keys: jax.Array  # (K, S, B)


class Measuring(NamedTuple):
    """Functions of one way to measure, compiled as `experiments.loops` says."""

    init: Callable[[Any], Any]  # from parameters
    add: Callable[..., Any]  # (state, number of a chunk, Stream, examples, parameters) -> state
    finalize: Callable[[Any], Any]


def importance_over(
    measure_fn: MeasureFn, stage: Stage, parts: Sequence[DeviceExamples], counted: np.ndarray
) -> Any:
    """Ω over the examples of all `parts` whose label's entry in `counted` (C,) is 1."""
    network, bookmark = stage.network, stage.bookmark
    measuring = measuring_with(measure_fn, network, stage.mesh)
    chunk = 1 if network.stepwise else BATCHES_PER_CHUNK
    state, done = measuring.init(stage.params), 0
    kept = bookmark.found("importance", lambda: state)
    if kept is not None and kept.told["rows"] == chunk * BATCH_SIZE:
        state, done = kept.tree, kept.told["chunks"]
    before = 0
    for number, part in enumerate(parts):
        key = jax.random.fold_in(stage.key, number)
        stream = stream_of(part, counted, key, BATCH_SIZE, chunk)
        for index in range(max(0, done - before), len(stream.rows)):
            state = measuring.add(state, index, stream, part, stage.params)
            # Wait: the host would otherwise be chunks ahead of what a stop could keep.
            told = {"chunks": before + index + 1, "rows": chunk * BATCH_SIZE}
            bookmark.keep("importance", jax.block_until_ready(state), **told)
        before += len(stream.rows)
    return measuring.finalize(state)


@functools.partial(jax.jit, static_argnums=(3, 4))
def stream_of(
    part: DeviceExamples, counted: jax.Array, key: jax.Array, batch_size: int, chunk: int
) -> Stream:
    """The batches of a part, at most `chunk` of them in a chunk."""
    rows, weights = in_order(part, batch_size)
    weights = weights * counted[part.labels[rows]]
    keys = jax.random.split(key, weights.shape)
    num_chunks = -(-len(rows) // chunk)
    size = -(-len(rows) // num_chunks)
    # Batches that are filling alone are skipped by the loop.
    filling = [(0, num_chunks * size - len(rows)), (0, 0)]
    rows, weights = jnp.pad(rows, filling), jnp.pad(weights, filling)
    keys = keys[jnp.arange(num_chunks * size) % len(keys)]
    shape = (num_chunks, size, batch_size)
    return Stream(rows.reshape(shape), weights.reshape(shape), keys.reshape(shape))


@functools.cache
def measuring_with(measure_fn: MeasureFn, network: Network, mesh: Mesh | None) -> Measuring:
    """The functions for one network."""
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

    loop = make_loop(step, stepwise=network.stepwise)

    def add(state: Any, index: Any, stream: Stream, part: DeviceExamples, params: Any) -> Any:
        rows, weights, keys = _chunk(stream, index)
        return loop(state, rows, weights, (part.batch, part.labels), params, keys)[0]

    if network.stepwise:
        return Measuring(estimator.init, add, estimator.finalize)
    options: dict[str, Any] = {}
    if mesh is not None:
        options = {"out_shardings": devices.whole_on(mesh)}
    return Measuring(
        jax.jit(estimator.init, **options),
        jax.jit(add, donate_argnums=0, **options),
        estimator.finalize,
    )


@jax.jit
def _chunk(stream: Stream, index: int) -> Stream:
    """One chunk of a stream."""
    return jax.tree.map(lambda leaf: leaf[index], stream)


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
    return importance_over(measure_fn, stage, parts, counted)
