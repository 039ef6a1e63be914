"""Encoder Based Lifelong Learning (Rannen Triki et al., ICCV 2017)."""

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from experiments.data.types import Task
from experiments.examples import DeviceExamples, shuffled_batches
from experiments.forward import all_features, all_outputs
from experiments.methods.base import Stage
from experiments.methods.distillation import old_heads
from experiments.methods.lwf import LwF
from experiments.networks import Network, Seen
from experiments.training import Recorded

BATCH_SIZE = 128
"""Of the autoencoders' training."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class EBLL(LwF):
    """LwF that also holds the codes of features that mattered to earlier tasks.

    After each task t an under-complete autoencoder r = W_dec σ(W_enc F + b) + c learns the trunk's
    features F of its examples: min E[ a ‖r(F) − F‖² + ℓ(T_t(r(F)), y) ], with its head T_t.
    Loss on a new task: LwF's + λ Σ_t (α/2) (1/N) Σ_k ‖σ_t(F(x_k)) − σ_t(F*(x_k))‖², with
    the code of each earlier task's encoder, now and before. Encoders are kept, one for each task.
    """

    code_size: int = 100
    """Units of the code; fewer than features."""
    code_strength: float = 1e-2
    """α, the weight of the codes beside the old heads."""
    reconstruction: float = 1e-2
    """a, the weight of the features' reconstruction beside the task's own loss."""
    autoencoder_steps: int = 200
    """Steps of training for each task's autoencoder, 128 examples each."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("code_size", "autoencoder_steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("code_strength", "reconstruction"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(
                    f"{name} must be at least 0, and finite, got {getattr(self, name)}"
                )

    def check(self, tasks: Sequence[Task], network: Network) -> None:
        super().check(tasks, network)
        num_features = network.num_features(tasks[0].train.inputs)
        if self.code_size >= num_features:
            raise ValueError(
                f"code_size must be below the number of features, which is {num_features}, got "
                f"{self.code_size}: an autoencoder that can copy them learns nothing"
            )

    def record(self, memory: Any, stage: Stage) -> Recorded:
        if stage.task == 0:
            return Recorded()
        outputs = all_outputs(stage.network, stage.mesh, stage.params, stage.train)
        codes = _codes(all_features(stage.network, stage.mesh, stage.params, stage.train), memory)
        return Recorded((outputs, codes), (old_heads(stage), memory))

    def extra_loss(self, network: Network, seen: Seen, targets: Any, constants: Any) -> jax.Array:
        (outputs, codes), (groups, encoders) = targets, constants
        loss = super().extra_loss(network, seen, outputs, groups)
        now = {task: _encode(encoder, seen.features) for task, encoder in encoders.items()}
        moved = [jnp.sum((now[task] - codes[task]) ** 2, axis=-1) for task in encoders]
        return loss + 0.5 * self.code_strength * sum(moved)

    def end_task(self, memory: Any, stage: Stage) -> dict[str, Any]:
        features = all_features(stage.network, stage.mesh, stage.params, stage.train)
        encoder = _train_autoencoder(
            self, stage.network, stage.params["heads"], features, stage.train, stage.key
        )
        return {**(memory or {}), f"task_{stage.task}": encoder}


def _encode(encoder: Any, features: jax.Array) -> jax.Array:
    """σ(W F + b): the code of features (…, H)."""
    return jax.nn.sigmoid(features @ encoder["kernel"] + encoder["bias"][None])


@jax.jit
def _codes(features: jax.Array, encoders: Any) -> Any:
    """The codes (N, code) of every earlier task's encoder, before the new task is learned."""
    return {task: _encode(encoder, features) for task, encoder in encoders.items()}


@functools.partial(jax.jit, static_argnums=(0, 1))
def _train_autoencoder(
    method: EBLL,
    network: Network,
    heads: Any,
    features_NxH: jax.Array,
    examples: DeviceExamples,
    key: jax.Array,
) -> Any:
    """The encoder of an autoencoder that keeps of the features what the task's head needs."""
    num_features = features_NxH.shape[1]
    glorot = jax.nn.initializers.glorot_uniform()
    for_encoder, for_decoder, for_batches = jax.random.split(key, 3)
    layers = {
        "encoder": {
            "kernel": glorot(for_encoder, (num_features, method.code_size)),
            "bias": jnp.zeros(method.code_size),
        },
        "decoder": {
            "kernel": glorot(for_decoder, (method.code_size, num_features)),
            "bias": jnp.zeros(num_features),
        },
    }
    optimizer = optax.adam(1e-3)

    def loss_fn(layers: Any, rows: jax.Array) -> jax.Array:
        features, tasks, labels = (
            x[rows] for x in (features_NxH, examples.batch.tasks, examples.labels)
        )
        code = _encode(layers["encoder"], features)
        rebuilt = code @ layers["decoder"]["kernel"] + layers["decoder"]["bias"][None]
        error = jnp.sum((rebuilt - features) ** 2, axis=-1)
        logits = network.masked(network.classify({"heads": heads}, rebuilt), tasks)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        return jnp.mean(method.reconstruction * error + losses)

    def step(carry: Any, rows: jax.Array) -> tuple[Any, None]:
        layers, opt_state = carry
        grads = jax.grad(loss_fn)(layers, rows)
        updates, opt_state = optimizer.update(grads, opt_state, layers)
        return (optax.apply_updates(layers, updates), opt_state), None

    rows, _ = shuffled_batches(for_batches, examples, BATCH_SIZE, method.autoencoder_steps)
    (layers, _), _ = jax.lax.scan(step, (layers, optimizer.init(layers)), rows)
    return layers["encoder"]


METHODS = {"ebll": EBLL()}
