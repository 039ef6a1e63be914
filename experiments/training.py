"""Training and evaluation over examples held on the device, in loops of batches."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from experiments import devices
from experiments.examples import DeviceExamples, shuffled_batches
from experiments.forward import all_features, all_outputs
from experiments.loops import make_loop
from experiments.networks import Accuracy, Batch, Network, Seen


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


class Learner(NamedTuple):
    """Functions for one network and one optimizer, compiled as `experiments.loops` says."""

    init: Callable[[jax.Array, DeviceExamples], Any]
    init_optimizer: Callable[[Any], Any]
    train_epoch: Callable[..., tuple[Any, Any, EpochInfo]]
    features: Callable[[Any, DeviceExamples], jax.Array]
    warm_up_heads: Callable[..., tuple[Any, Any]]
    accuracy: Callable[[Any, DeviceExamples], Accuracy]


ExtraLoss = Callable[[Network, Seen, Any, Any], jax.Array]
"""(network, what it makes of the batch, targets of the batch, constants) -> (B,) losses."""


def make_learner(
    network: Network,
    base: optax.GradientTransformation,
    optimizer: optax.GradientTransformation,
    extra_loss: ExtraLoss,
    batch_size: int,
    steps_per_epoch: int | None = None,
    mesh: Mesh | None = None,
) -> Learner:
    """Build the training and evaluation functions: programs, or calls of one where `stepwise`.

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
    options = {} if mesh is None else {"out_shardings": devices.whole_on(mesh)}
    compiled = functools.partial(jax.jit, **options)
    step = functools.partial(_step, network, optimizer, extra_loss, mesh)
    loop = make_loop(step, stepwise=network.stepwise, **options)

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
        # Copies: the state is given away at each step, and the rates go to all of them.
        opt_state = with_rates(opt_state, jax.tree.map(jnp.copy, rates))
        for_order, for_steps = key, jax.random.fold_in(key, 1)
        (params, opt_state), sums = loop(
            (params, opt_state),
            *batches(for_order, examples),
            (examples.batch, examples.labels, recorded.targets),
            for_steps,
            recorded.constants,
            rates,
            trained,
        )
        seen = sums[2].sum()
        return params, opt_state, EpochInfo(sums[0].sum() / seen, sums[1].sum() / seen)

    def warm_up_heads(
        heads: Any,
        opt_state: Any,
        features: jax.Array,
        examples: DeviceExamples,
        key: jax.Array,
        rate: jax.Array,
    ) -> tuple[Any, Any]:
        rates = Rates(jnp.asarray(rate, jnp.float32), 0.0)

        def head_step(carry: Any, taken: Any, weights: jax.Array, _: jax.Array) -> Any:
            heads, opt_state = carry
            tasks, labels, inputs = taken

            def loss_fn(heads: Any) -> Any:
                outputs = network.classify({"heads": heads}, inputs)
                return _mean_loss(network, outputs, tasks, labels, weights)

            grads, sums = jax.grad(loss_fn, has_aux=True)(heads)
            updates, opt_state = base.update(grads, opt_state, heads)
            return (optax.apply_updates(heads, updates), opt_state), sums

        carry = heads, with_rates(opt_state, rates)
        known = examples.batch.tasks, examples.labels, features
        return make_loop(head_step, stepwise=False)(carry, *batches(key, examples), known)[0]

    # What calls compiled steps from the host is itself Python.
    unless_stepwise = (lambda fn, **_: fn) if network.stepwise else compiled
    return Learner(
        init=compiled(lambda key, examples: network.init(key, examples.batch)),
        init_optimizer=optimizer.init if mesh is None else compiled(optimizer.init),
        train_epoch=unless_stepwise(train_epoch, donate_argnums=(0, 1)),
        features=unless_stepwise(functools.partial(all_features, network, mesh)),
        warm_up_heads=compiled(warm_up_heads),
        accuracy=unless_stepwise(functools.partial(_accuracy, network, mesh)),
    )


def with_rates(opt_state: Any, rates: Rates) -> Any:
    """The optimizer's state with the learning rate and, where there is one, the strength."""
    held = optax.tree.get_all_with_path(opt_state, "strength")
    strength = {"strength": rates.strength} if held else {}
    return optax.tree.set(opt_state, learning_rate=rates.learning_rate, **strength)


def _step(
    network: Network,
    optimizer: optax.GradientTransformation,
    extra_loss: ExtraLoss,
    mesh: Mesh | None,
    carry: Any,
    taken: tuple[Batch, jax.Array, Any],
    weights: jax.Array,
    number: jax.Array,
    key: jax.Array,
    constants: Any,
    rates: Rates,
    trained: jax.Array,
) -> Any:
    """One step of training, on (batch, labels, targets)."""
    params, opt_state = carry
    key = jax.random.fold_in(key, number)
    batch, labels, targets, weights = devices.divided(mesh, (*taken, weights))

    def loss_fn(params: Any) -> Any:
        seen = network.seen(params, batch, key)
        loss, sums = _mean_loss(network, seen.outputs, batch.tasks, labels, weights)
        if targets is not None:
            extra = extra_loss(network, seen, targets, constants)
            loss += rates.strength * jnp.sum(weights * extra) / weights.sum()
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


def _mean_loss(
    network: Network,
    outputs: jax.Array,
    tasks: jax.Array,
    labels: jax.Array,
    weights: jax.Array,
) -> Any:
    """The mean loss, and sums over the rows: of losses, hits and weights."""
    losses, hits = network.losses(outputs, tasks, labels)
    loss_sum, hit_sum, count = jnp.sum(weights * losses), jnp.sum(weights * hits), jnp.sum(weights)
    return loss_sum / count, (loss_sum, hit_sum, count)


def _accuracy(
    network: Network, mesh: Mesh | None, params: Any, examples: DeviceExamples
) -> Accuracy:
    """The accuracy on every task, on every class and on all; NaN where an output is not finite."""
    return _measured(network, all_outputs(network, mesh, params, examples), examples)


@functools.partial(jax.jit, static_argnums=0)
def _measured(network: Network, outputs: jax.Array, examples: DeviceExamples) -> Accuracy:
    """The accuracy of outputs (N, C)."""
    real = (jnp.arange(len(examples.labels)) < examples.size).astype(jnp.float32)
    measured = network.accuracy(outputs, examples.batch.tasks, examples.labels, real)
    # What is not a number would be ranked, or called class 0.
    broken = ((real[:, None] > 0) & ~jnp.isfinite(outputs)).any()
    return jax.tree.map(lambda values: jnp.where(broken, jnp.nan, values), measured)
