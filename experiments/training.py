"""Training and evaluation: one compiled scan per epoch over examples held on the device."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from experiments import devices
from experiments.examples import DeviceExamples, shuffled_batches
from experiments.networks import Batch, Network


class Rates(NamedTuple):
    """What may change from epoch to epoch and from task to task without compiling again."""

    learning_rate: jax.Array | float
    strength: jax.Array | float  # λ, the weight of what a method adds to the loss


class Recorded(NamedTuple):
    """What a method's extra loss holds a task against, made just before the task is learned."""

    targets: Any = None  # a pytree of (N, …) arrays, one row per training example
    constants: Any = None  # any pytree


class EpochInfo(NamedTuple):
    """What an epoch reports."""

    loss: jax.Array  # () mean over the examples, as seen while training
    accuracy: jax.Array  # () fraction, likewise


class Accuracy(NamedTuple):
    """Fractions of the examples that are classified right."""

    per_task: jax.Array  # (T,)
    per_class: jax.Array  # (C,), NaN where there is no example


class Learner(NamedTuple):
    """Compiled functions for one network and one optimizer."""

    init: Callable[[jax.Array, DeviceExamples], Any]
    init_optimizer: Callable[[Any], Any]
    train_epoch: Callable[..., tuple[Any, Any, EpochInfo]]
    warm_up_heads: Callable[..., Any]
    accuracy: Callable[[Any, DeviceExamples], Accuracy]


ExtraLoss = Callable[[Network, Any, Batch, Any, Any], jax.Array]
"""(network, params, batch, targets of the batch, constants) -> (B,) losses per sample."""


def make_learner(
    network: Network,
    base: optax.GradientTransformation,
    optimizer: optax.GradientTransformation,
    extra_loss: ExtraLoss,
    batch_size: int,
    steps_per_epoch: int | None = None,
    mesh: Mesh | None = None,
) -> Learner:
    """Build the training and evaluation functions, each compiled once per shape of its data.

    On a mesh each device computes what its share of a batch's rows adds to the gradient;
    parameters and the optimizer's state are the same on all.

    Args:
      network: its functions.
      base: the optimizer alone, with which heads are warmed up.
      optimizer: what trains: `base` within what the method makes of it.
      extra_loss: what the method adds to the cross-entropy, where it has recorded something.
      batch_size: examples per step.
      steps_per_epoch: as in `shuffled_batches`.
      mesh: of the devices; None for one.
    """
    batches = functools.partial(shuffled_batches, batch_size=batch_size, steps=steps_per_epoch)
    step = functools.partial(_step, network, optimizer, extra_loss, mesh)

    def train_epoch(
        params: Any,
        opt_state: Any,
        examples: DeviceExamples,
        recorded: Recorded,
        key: jax.Array,
        rates: Rates,
        trained: jax.Array,
    ) -> tuple[Any, Any, EpochInfo]:
        # With their dtype: a Python number's would be a weak one, and the second epoch compile.
        rates = jax.tree.map(lambda rate: jnp.asarray(rate, jnp.float32), rates)
        opt_state = with_rates(opt_state, rates)

        def scan_step(carry: Any, rows: jax.Array, weights: jax.Array) -> Any:
            return step(carry, rows, weights, examples, recorded, rates, trained)

        (params, opt_state), sums = _scan_batches(
            scan_step, (params, opt_state), batches(key, examples)
        )
        seen = sums[2].sum()
        return params, opt_state, EpochInfo(sums[0].sum() / seen, sums[1].sum() / seen)

    def warm_up_heads(
        params: Any, opt_state: Any, examples: DeviceExamples, key: jax.Array, rate: jax.Array
    ) -> tuple[Any, Any]:
        rates = Rates(jnp.asarray(rate, jnp.float32), 0.0)

        def scan_step(carry: Any, rows: jax.Array, weights: jax.Array) -> Any:
            heads, opt_state = carry

            def loss_fn(heads: Any) -> Any:
                return _losses(network, {**params, "heads": heads}, examples, rows, weights)

            grads, sums = jax.grad(loss_fn, has_aux=True)(heads)
            updates, opt_state = base.update(grads, opt_state, heads)
            return (optax.apply_updates(heads, updates), opt_state), sums

        carry = params["heads"], with_rates(opt_state, rates)
        (heads, opt_state), _ = _scan_batches(scan_step, carry, batches(key, examples))
        return {**params, "heads": heads}, opt_state

    if mesh is None:
        compiled, init_optimizer = jax.jit, optimizer.init
    else:
        compiled = functools.partial(jax.jit, out_shardings=devices.whole_on(mesh))
        init_optimizer = compiled(optimizer.init)
    return Learner(
        init=compiled(lambda key, examples: network.init(key, examples.batch)),
        init_optimizer=init_optimizer,
        train_epoch=compiled(train_epoch, donate_argnums=(0, 1)),
        warm_up_heads=compiled(warm_up_heads),
        accuracy=compiled(functools.partial(_accuracy, network, mesh)),
    )


def with_rates(opt_state: Any, rates: Rates) -> Any:
    """The optimizer's state with the learning rate and, where there is one, the strength."""
    held = optax.tree.get_all_with_path(opt_state, "strength")
    strength = {"strength": rates.strength} if held else {}
    return optax.tree.set(opt_state, learning_rate=rates.learning_rate, **strength)


def _scan_batches(step: Callable[..., Any], carry: Any, batches: Any) -> Any:
    """`step` over batches of rows; the last carry, and what each step reports."""

    def scan_step(carry: Any, xs: tuple[jax.Array, jax.Array]) -> Any:
        rows, weights = xs
        # A step of filling alone must not happen: momentum would move the parameters.
        nothing = (jnp.zeros(()),) * 3
        return jax.lax.cond(
            weights[0] > 0,
            lambda carry: step(carry, rows, weights),
            lambda carry: (carry, nothing),
            carry,
        )

    return jax.lax.scan(scan_step, carry, batches)


def _step(
    network: Network,
    optimizer: optax.GradientTransformation,
    extra_loss: ExtraLoss,
    mesh: Mesh | None,
    carry: Any,
    rows: jax.Array,
    weights: jax.Array,
    examples: DeviceExamples,
    recorded: Recorded,
    rates: Rates,
    trained: jax.Array,
) -> Any:
    """One step of training."""
    params, opt_state = carry

    def loss_fn(params: Any) -> Any:
        loss, sums = _losses(network, params, examples, rows, weights, mesh)
        if recorded.targets is not None:
            taken = jax.tree.map(lambda x: x[rows], (examples.batch, recorded.targets))
            batch, targets, shares = devices.divided(mesh, (*taken, weights / weights.sum()))
            extra = extra_loss(network, params, batch, targets, recorded.constants)
            loss += rates.strength * jnp.sum(shares * extra)
        return loss, sums

    grads, sums = jax.grad(loss_fn, has_aux=True)(params)
    updates: Any
    updates, opt_state = optimizer.update(grads, opt_state, params)
    # Heads of other tasks rest, which an optimizer's momentum from before would not let them.
    heads = jax.tree.map(
        lambda update: jnp.where(_last(trained, update), update, 0.0), updates["heads"]
    )
    params = optax.apply_updates(params, {**updates, "heads": heads})
    return (params, opt_state), sums


def _last(per_output: jax.Array, like: jax.Array) -> jax.Array:
    """(C,) as (…, C), of the rank of `like`."""
    return per_output.reshape(*[1] * (like.ndim - 1), -1)


def _losses(
    network: Network,
    params: Any,
    examples: DeviceExamples,
    rows: jax.Array,
    weights: jax.Array,
    mesh: Mesh | None = None,
) -> Any:
    """The mean cross-entropy of some rows, and sums over them: of losses, hits and weights."""
    taken = jax.tree.map(lambda x: x[rows], (examples.batch, examples.labels))
    batch, labels, weights = devices.divided(mesh, (*taken, weights))
    logits_BxC = network.logits(params, batch)
    losses = optax.softmax_cross_entropy_with_integer_labels(logits_BxC, labels)
    hits = (logits_BxC.argmax(-1) == labels).astype(jnp.float32)
    loss_sum, hit_sum, count = jnp.sum(weights * losses), jnp.sum(weights * hits), jnp.sum(weights)
    return loss_sum / count, (loss_sum, hit_sum, count)


def _accuracy(
    network: Network, mesh: Mesh | None, params: Any, examples: DeviceExamples
) -> Accuracy:
    """The accuracy on every task and on every class."""
    batch, labels = devices.divided(mesh, (examples.batch, examples.labels))
    logits_NxC = network.logits(params, batch)
    real = (jnp.arange(len(labels)) < examples.size).astype(jnp.float32)
    hits = real * (logits_NxC.argmax(-1) == labels).astype(jnp.float32)
    groups = (
        jax.nn.one_hot(batch.tasks, len(network.heads)),
        jax.nn.one_hot(labels, len(network.heads[0])),
    )
    return Accuracy(*((hits @ of_group) / (real @ of_group) for of_group in groups))
