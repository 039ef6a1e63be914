"""From a flax model to `apply_fn, params`, in evaluation mode.

The `apply_fn` returned is a `jax.tree_util.Partial`: whatever else the model holds (batch
statistics, say) travels in it as arrays, not as constants, so that the next task's statistics do
not compile anything again.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import flax.errors
import flax.linen as nn
import jax
from flax import nnx

from mas_jax.types import ApplyFn, Batch, Outputs, Params

Call = Callable[[Any, Batch], Outputs]


def from_linen(
    module: nn.Module,
    variables: Mapping[str, Any],
    *,
    call: Call | None = None,
    **eval_kwargs: Any,
) -> tuple[ApplyFn, Params]:
    """Split a flax.linen model into its function in evaluation mode and its parameters.

    Args:
      module: an unbound linen module.
      variables: what `module.init` returned: "params" and any other collections, such as
        "batch_stats", which are read and never written.
      call: how the module is called, `call(module, batch) -> outputs`; by default
        `module(batch, **eval_kwargs)`.
      **eval_kwargs: what puts this module into evaluation mode: `train=False`,
        `deterministic=True` or `use_running_average=True`, whichever it takes.

    Returns:
      `apply_fn(params, batch) -> outputs`, and the params, without copying.

    Raises:
      ValueError: no "params" among the variables, `call` together with keyword arguments, or (when
        called) a module that asks for random numbers or updates its statistics: it is not in
        evaluation mode.

    >>> module = nn.Dense(2)
    >>> variables = module.init(jax.random.key(0), jax.numpy.ones((1, 3)))
    >>> apply_fn, params = from_linen(module, variables)
    >>> apply_fn(params, jax.numpy.ones((4, 3))).shape
    (4, 2)
    """
    if "params" not in variables:
        raise ValueError(
            f"variables has no collection 'params', only {sorted(variables)}; pass what "
            "module.init returned, not its 'params' alone"
        )
    if call is not None and eval_kwargs:
        raise ValueError(
            f"give either call or keyword arguments ({', '.join(eval_kwargs)}), not both: "
            "call decides itself how the module is called"
        )
    rest = {name: value for name, value in variables.items() if name != "params"}
    function = _LinenFunction(module, call, tuple(sorted(eval_kwargs.items())))
    return jax.tree_util.Partial(function, rest), variables["params"]


@dataclasses.dataclass(frozen=True)
class _LinenFunction:
    """(collections, params, batch) -> outputs. Equal, and of equal hash, where it does the same."""

    module: nn.Module
    call: Call | None
    kwargs: tuple[tuple[str, Any], ...]

    def __call__(self, rest: Mapping[str, Any], params: Params, batch: Batch) -> Outputs:
        try:
            variables = {"params": params, **rest}
            return self.module.apply(variables, batch, method=self.call, **dict(self.kwargs))
        except (flax.errors.InvalidRngError, flax.errors.ModifyScopeVariableError) as error:
            raise ValueError(
                f"{type(self.module).__name__} is not in evaluation mode: {error}. Give from_linen "
                "the argument that puts it there, such as train=False or deterministic=True"
            ) from error


def from_nnx(model: nnx.Module, *, call: Call | None = None) -> tuple[ApplyFn, Params]:
    """Split a flax.nnx model into its function in evaluation mode and its parameters.

    The model is left as it is; a copy of its definition is put into evaluation mode with
    `eval()`. Batch statistics and random states are read and never written.

    Args:
      model: any nnx module.
      call: how it is called, `call(model, batch) -> outputs`; by default `model(batch)`.

    Returns:
      `apply_fn(params, batch) -> outputs`, and the params: the `nnx.State` of all `nnx.Param`,
      the structure that `nnx.Optimizer(model, tx, wrt=nnx.Param)` works on.

    Raises:
      ValueError: the model has no `nnx.Param`.

    >>> apply_fn, params = from_nnx(nnx.Linear(3, 2, rngs=nnx.Rngs(0)))
    >>> apply_fn(params, jax.numpy.ones((4, 3))).shape
    (4, 2)
    """
    copy = nnx.merge(*nnx.split(model))
    copy.eval()
    graphdef, params, rest = nnx.split(copy, nnx.Param, ...)
    if not jax.tree.leaves(params):
        raise ValueError(f"{type(model).__name__} has no nnx.Param, so it has nothing to anchor")
    return jax.tree_util.Partial(_NnxFunction(graphdef, call), rest), params


@dataclasses.dataclass(frozen=True)
class _NnxFunction:
    """(other state, params, batch) -> outputs. Equal, and of equal hash, where it does the same."""

    graphdef: Any
    call: Call | None

    def __call__(self, rest: Any, params: Params, batch: Batch) -> Outputs:
        model = nnx.merge(self.graphdef, params, rest)
        return model(batch) if self.call is None else self.call(model, batch)
