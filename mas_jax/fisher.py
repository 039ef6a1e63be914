"""EWC's importance: the diagonal of the Fisher information of a classifier."""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal, Unpack

import jax
import jax.numpy as jnp
import numpy as np

from mas_jax import checks
from mas_jax.estimate import estimate_importance
from mas_jax.importance import ImportanceEstimator, ImportanceState, importance_estimator
from mas_jax.options import EstimatorOptions, split_callable
from mas_jax.types import ApplyFn, Batch, Importance, Objective, Outputs, Params, at_least_float32

Labels = Literal["exact", "sampled", "empirical"]

_BATCHES = {"sampled": "(inputs, keys)", "empirical": "(inputs, labels)"}
_OWN = ("objective", "magnitude", "reduction")


def fisher_estimator(
    apply_fn: ApplyFn, *, labels: Labels, **options: Unpack[EstimatorOptions]
) -> ImportanceEstimator:
    """Build the streaming estimator of F = (1/N) Σ_k Σ_y p(y|x_k) (∂ log p(y|x_k) / ∂θ)².

    F is Elastic Weight Consolidation's importance: what `consolidate` and the penalty take in the
    place of Ω. The square is taken per sample and label, before any sum. Σ_y is over labels

    - "exact": all C classes, which takes C backward passes;
    - "sampled": one label per sample, drawn from p(y|x_k): F in expectation, one backward pass;
    - "empirical": the true label in the place of Σ_y, the "empirical Fisher". It is another
      quantity (Kunstner et al.): small wherever the data are fitted, and it needs labels.

    For a regression with a Gaussian likelihood of variance 1, F is the importance with
    objective=every_output and magnitude="square".

    Source: Kirkpatrick et al., PNAS 2017, arXiv 1612.00796, Eq. 3. Kunstner et al., NeurIPS 2019,
    arXiv 1905.12558, section 2.

    Args:
      apply_fn: `apply_fn(params, inputs) -> logits` (B, C), of a model in evaluation mode. Logits
        of classes that are not there (another task's) may be as low as their dtype goes, but not
        -inf: these have probability 0, and no part in F.
      labels: "exact", "sampled" or "empirical".
      **options: the keyword arguments of `importance_estimator`, but for objective, magnitude
        and reduction.

    Returns:
      An `ImportanceEstimator`, whose batches are `inputs` for "exact", `(inputs, keys)` for
      "sampled" with typed keys (B,), one for each sample, and `(inputs, labels)` for "empirical"
      with integers (B,) from 0 to C − 1.

    Raises:
      ValueError: logits of another shape, batches without keys or labels, labels out of range
        (within a trace, where nothing can raise, they count as samples that are not finite), and
        what `importance_estimator` names.
      TypeError: labels that are not integers, keys that are not typed, an option of the three.

    Example:
      >>> params = {"kernel": jnp.zeros((1, 2))}
      >>> apply_fn = lambda params, x: x @ params["kernel"]
      >>> estimator = fisher_estimator(apply_fn, labels="exact")
      >>> state = estimator.update(estimator.init(params), params, jnp.array([[2.0]]))
      >>> estimator.finalize(state)["kernel"].round(5)  # p (1 − p) x² = ½ ½ 2²
      Array([[1., 1.]], dtype=float32)
    """
    checks.check_choice("labels", labels, ("exact", "sampled", "empirical"))
    _check_options(options)
    labelled_fn, objective = _labelled(apply_fn, labels)
    estimator = importance_estimator(labelled_fn, **_full(objective, options))
    checked = functools.partial(_checked, apply_fn, labels)

    def update(
        state: ImportanceState, params: Params, batch: Batch, weights: Any = None
    ) -> ImportanceState:
        return estimator.update(state, params, checked(params, batch), weights)

    def predict_and_update(
        state: ImportanceState, params: Params, batch: Batch, weights: Any = None
    ) -> tuple[Outputs, ImportanceState]:
        batch = checked(params, batch)
        outputs, state = estimator.predict_and_update(state, params, batch, weights)
        return (outputs if labels == "exact" else outputs["logits"]), state

    return estimator._replace(update=update, predict_and_update=predict_and_update)


def estimate_fisher(
    apply_fn: ApplyFn,
    params: Params,
    batches: Iterable[Batch],
    *,
    labels: Labels,
    key: jax.Array | None = None,
    progress: Callable[[int], None] | None = None,
    **options: Unpack[EstimatorOptions],
) -> Importance:
    """Compute F over an iterable of batches: the host loop around `fisher_estimator`.

    Args:
      apply_fn: as for `fisher_estimator`.
      params: θ.
      batches: `inputs` for "exact" and "sampled", `(inputs, labels)` for "empirical".
      labels: as for `fisher_estimator`.
      key: for "sampled", and for nothing else: a typed key. That of a sample is `key` with the
        sample's index in the stream folded in (and that of the process, where a mesh spans
        several), so that F does not depend on how the stream is cut into batches.
      progress: as for `estimate_importance`.
      **options: as for `fisher_estimator`.

    Returns:
      F, as `importance_estimator`'s `finalize` returns Ω.

    Raises:
      ValueError: a key missing, or given in vain; and what `fisher_estimator` and
        `estimate_importance` name.
      TypeError: a key that is not a typed one, and as above.

    >>> params = {"kernel": jnp.zeros((1, 2))}
    >>> apply_fn = lambda params, x: x @ params["kernel"]
    >>> key = jax.random.key(0)
    >>> estimate_fisher(apply_fn, params, [jnp.array([[2.0]])], labels="sampled", key=key)
    {'kernel': Array([[1., 1.]], dtype=float32)}
    """
    checks.check_choice("labels", labels, ("exact", "sampled", "empirical"))
    _check_options(options)
    if (key is None) == (labels == "sampled"):
        wanted = "a key" if key is None else "no key"
        raise ValueError(f"labels={labels!r} takes {wanted}, got key={key!r}")
    if hasattr(batches, "shape"):
        raise TypeError("batches must be an iterable of batches, got one array: pass [batch]")
    if key is not None:
        batches = _with_keys(_checked_key(key), batches, options.get("mesh"))
    labelled_fn, objective = _labelled(apply_fn, labels)
    return estimate_importance(
        labelled_fn,
        params,
        (_checked(apply_fn, labels, params, batch) for batch in batches),
        progress=progress,
        **_full(objective, options),
    )


def _full(objective: Objective, options: EstimatorOptions) -> EstimatorOptions:
    """The options with those of the Fisher information."""
    return {**options, "objective": objective, "magnitude": "square"}


def _check_options(options: EstimatorOptions) -> None:
    """Raise TypeError for an option that the Fisher information leaves no choice of."""
    given = [name for name in _OWN if name in options]
    if given:
        raise TypeError(f"the Fisher information has {', '.join(given)} of its own; leave it out")


def _with_keys(key: jax.Array, batches: Iterable[Batch], mesh: Any) -> Iterator[Batch]:
    """(inputs, keys) for each batch of the stream."""
    if mesh is not None and mesh.is_multi_process:
        key = jax.random.fold_in(key, jax.process_index())
    start = 0
    for batch in batches:
        size = checks.batch_size(batch)
        yield batch, _fold_in(key, np.arange(start, start + size, dtype=np.uint32))
        start += size


@jax.jit
def _fold_in(key: jax.Array, indices_B: jax.Array) -> jax.Array:
    """A key for each sample (B,)."""
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, indices_B)


def _checked_key(key: Any) -> jax.Array:
    """`key`, one and typed."""
    if not _is_key(key) or jnp.shape(key) != ():
        raise TypeError(
            f"key must be one typed key, as jax.random.key(seed) makes it, got {_described(key)}"
        )
    return key


def _checked(apply_fn: ApplyFn, labels: Labels, params: Params, batch: Batch) -> Batch:
    """The batch, checked as far as its values can be read now."""
    if labels == "exact":
        return batch
    if not isinstance(batch, (tuple, list)) or len(batch) != 2 or batch[1] is None:
        raise ValueError(
            f"labels={labels!r} takes batches {_BATCHES[labels]}, got {_described(batch)}"
        )
    inputs, second = batch
    size = checks.batch_size(inputs)
    if labels == "sampled":
        if not _is_key(second):
            raise TypeError(
                "keys must be typed, as jax.random.split(jax.random.key(seed), size) makes them, "
                f"got {_described(second)}"
            )
    elif not jnp.issubdtype(jax.dtypes.result_type(second), jnp.integer):
        raise TypeError(f"labels must be integers, one class per sample, got {_described(second)}")
    if jnp.shape(second) != (size,):
        raise ValueError(
            f"{'keys' if labels == 'sampled' else 'labels'} must have shape ({size},), one per "
            f"sample of the batch, got {jnp.shape(second)}"
        )
    if labels == "empirical" and checks.is_concrete((second, inputs, params)):
        _check_range(_num_classes(apply_fn, params, inputs), second)
    return inputs, second


def _check_range(num_classes: int, labels: Any) -> None:
    """Raise ValueError for a label that is no class, if this process can read them all."""
    if not getattr(labels, "is_fully_addressable", True):
        return
    values = np.asarray(labels)
    wrong = np.flatnonzero((values < 0) | (values >= num_classes))
    if wrong.size:
        raise ValueError(
            f"labels must be from 0 to {num_classes - 1}, as there are {num_classes} logits, got "
            f"{values[wrong[0]]} for sample {wrong[0]} of the batch"
        )


def _num_classes(apply_fn: ApplyFn, params: Params, inputs: Batch) -> int:
    """C. Traced once per function and batch shape."""
    callee = split_callable(apply_fn)
    return _traced_logits.eval_shape(callee.static, callee.arrays, params, inputs).shape[-1]


@functools.partial(jax.jit, static_argnums=0)
def _traced_logits(static_fn: Any, array_fn: Any, params: Params, inputs: Batch) -> jax.Array:
    """The logits, of which only the shape is asked for."""
    return _logits(array_fn if static_fn is None else static_fn, params, inputs)


def _labelled(apply_fn: ApplyFn, labels: Labels) -> tuple[ApplyFn, Objective]:
    """The function of a batch with labels or keys, and the objective of its outputs."""
    fns: dict[Labels, tuple[Any, Objective]] = {
        "exact": (_logits, _expected_log_likelihoods),
        "sampled": (_with_drawn_labels, _log_likelihood),
        "empirical": (_with_given_labels, _log_likelihood),
    }
    labelled_fn, objective = fns[labels]
    if isinstance(apply_fn, jax.tree_util.Partial):  # the arrays in it stay arguments
        return jax.tree_util.Partial(labelled_fn, apply_fn), objective
    return _Bound(labelled_fn, apply_fn), objective


@dataclasses.dataclass(frozen=True)
class _Bound:
    """A function with its first argument; equal to others of the same, so compiled once."""

    fn: Callable[..., Any]
    apply_fn: ApplyFn

    def __call__(self, params: Params, batch: Batch, /) -> Any:
        return self.fn(self.apply_fn, params, batch)


def _with_given_labels(apply_fn: ApplyFn, params: Params, batch: Batch) -> Any:
    """Logits beside labels."""
    inputs, labels_B = batch
    return {"logits": _logits(apply_fn, params, inputs), "label": labels_B}


def _with_drawn_labels(apply_fn: ApplyFn, params: Params, batch: Batch) -> Any:
    """Logits beside labels drawn from them."""
    inputs, keys_B = batch
    logits_BxC = _logits(apply_fn, params, inputs)
    labels_B = jax.vmap(jax.random.categorical)(keys_B, jax.lax.stop_gradient(logits_BxC))
    return {"logits": logits_BxC, "label": labels_B}


def _log_likelihood(outputs: Any) -> jax.Array:
    """log p(label); NaN for a label that is no class."""
    log_p_C, label = _log_softmax(outputs["logits"]), outputs["label"]
    is_class = (label >= 0) & (label < len(log_p_C))
    return jnp.where(is_class, log_p_C[jnp.where(is_class, label, 0)], jnp.nan)


def _expected_log_likelihoods(logits_C: jax.Array) -> jax.Array:
    """√p_y log p_y with p_y held fixed, whose squared gradients are p_y (∂ log p_y)²."""
    log_p_C = _log_softmax(logits_C)
    roots_C = jax.lax.stop_gradient(jnp.exp(log_p_C / 2))
    # log 0 is -inf where a logit is as low as can be, and 0 · inf would be NaN.
    return jnp.where(roots_C > 0, roots_C * log_p_C, 0.0)


def _log_softmax(logits_C: jax.Array) -> jax.Array:
    """log p, in float32 or wider."""
    return jax.nn.log_softmax(logits_C.astype(at_least_float32(logits_C.dtype)))


def _logits(apply_fn: ApplyFn, params: Params, inputs: Batch) -> jax.Array:
    """What apply_fn returns, if that is logits (B, C)."""
    logits = apply_fn(params, inputs)
    good = isinstance(logits, (jax.Array, np.ndarray)) and logits.ndim == 2
    if not good or not jnp.issubdtype(logits.dtype, jnp.floating) or logits.shape[1] == 0:
        raise ValueError(
            "the Fisher information is that of a classifier: apply_fn must return logits, one "
            f"floating-point array (batch, classes), got {_described(logits)}"
        )
    return jnp.asarray(logits)


def _is_key(value: Any) -> bool:
    """Whether `value` is an array of typed keys."""
    dtype = getattr(value, "dtype", None)
    return dtype is not None and jnp.issubdtype(dtype, jax.dtypes.prng_key)


def _described(value: Any) -> str:
    """The kind of `value`, or dtype and shape."""
    if hasattr(value, "dtype"):
        return f"{value.dtype}{list(jnp.shape(value))}"
    return f"a {type(value).__name__}" + (f" of {len(value)}" if hasattr(value, "__len__") else "")
