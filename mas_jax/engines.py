"""The engine that the options ask for, and what happens when the fused one cannot be had."""

import functools
import warnings
from typing import Any

import jax

from mas_jax.errors import EngineError, EngineWarning
from mas_jax.fused.engine import fused_engine
from mas_jax.options import Options
from mas_jax.per_sample import BatchSums, Engine, vmap_engine
from mas_jax.types import ApplyFn, Batch, Params


def build_engine(apply_fn: ApplyFn, options: Options) -> Engine:
    """The engine that `options` names; under "auto" the fused one, and vmap should that fail."""
    arguments = (
        apply_fn,
        options.objective,
        options.reduce_fn,
        options.microbatch_size,
        options.memory_budget,
        options.over_outputs,
    )
    vmap = vmap_engine(*arguments)
    if options.engine == "vmap":
        return vmap
    fused = fused_engine(*arguments, strict=options.strict)
    # Under `strict` all parameters would fall back at once.
    if options.engine == "fused" or options.strict is not False:
        return fused
    return _with_fallback(fused, vmap)


def _with_fallback(fused: Engine, vmap: Engine) -> Engine:
    """`fused`, or where it raises an EngineError, a warning and `vmap`."""

    def engine(params: Params, covered: Any, batch: Batch, weights: jax.Array) -> BatchSums:
        try:
            return fused(params, covered, batch, weights)
        except EngineError as error:
            _warn_once(str(error))
            return vmap(params, covered, batch, weights)

    return engine


@functools.cache
def _warn_once(cause: str) -> None:
    """Say once for each cause that something slower runs instead."""
    warnings.warn(
        f"{cause.rstrip('.')}. The vmap engine is tried instead, which gives the same numbers with "
        'more memory and time; engine="vmap" says so and silences this',
        EngineWarning,
        stacklevel=2,
    )
