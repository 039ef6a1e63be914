"""What the fused engine does with each parameter of a network, and what that costs."""

import math
from typing import Any, NamedTuple, Unpack

import jax.numpy as jnp

from mas_jax import checks, local, trees
from mas_jax.fused.engine import fitting_microbatch, passes_for, plan_for
from mas_jax.fused.plan import LeafPlan
from mas_jax.options import EstimatorOptions, checked_options
from mas_jax.per_sample import sample_value_fn
from mas_jax.types import ApplyFn, Batch, Params


class LeafExplanation(NamedTuple):
    """One covered leaf."""

    path: str
    shape: tuple[int, ...]
    rule: str  # of the fused engine, or "per sample": the leaf falls back
    reason: str
    memory: int  # bytes held at a time for its sake, beside network, cotangents and Ω
    cost: float  # estimated work, relative to the leaf's plain gradient
    layer: str | None = None  # under `local_outputs`: the layers it is in, or "none"
    layer_output: str | None = None  # … and their outputs: "256 after relu" for 256 entries


class Explanation(NamedTuple):
    """All covered leaves, in the order of the tree. `print` it for a table."""

    leaves: tuple[LeafExplanation, ...]
    batch_size: int
    microbatch_size: int  # samples per forward and backward pass

    def __str__(self) -> str:
        heads = ("leaf", "shape", "rule", "why", "memory", "work / plain")
        rows = [
            (
                leaf.path,
                "×".join(map(str, leaf.shape)) or "scalar",
                leaf.rule,
                leaf.reason,
                _readable(leaf.memory),
                f"{leaf.cost:.2f}",
                *_local_cells(leaf),
            )
            for leaf in self.leaves
        ]
        if self.leaves and self.leaves[0].layer is not None:
            heads = (*heads, "layer", "layer output")
        widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
        lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in (heads, *rows)]
        per_sample = sum(leaf.rule == "per sample" for leaf in self.leaves)
        held = sum(leaf.memory for leaf in self.leaves if leaf.rule == "per sample")
        lines.append(
            f"{per_sample} of {len(rows)} leaves keep a gradient per sample: {_readable(held)} for "
            f"micro-batches of {self.microbatch_size} (batch {self.batch_size})"
        )
        return "\n".join(lines)


def explain(
    apply_fn: ApplyFn, params: Params, batch: Batch, **options: Unpack[EstimatorOptions]
) -> Explanation:
    """Say for each parameter which rule of the fused engine it falls under, and why.

    Traces the network once and computes nothing, so that `params` and `batch` may be shapes
    (`jax.eval_shape`, `jax.ShapeDtypeStruct`).

    Args:
      apply_fn: as for `importance_estimator`.
      params: θ, or shapes.
      batch: a batch of the size that updates will have, or shapes. With `mesh`, what is said is
        about one device's share of it.
      **options: the keyword arguments of `importance_estimator`.

    Returns:
      An `Explanation`; `print` shows a table. Of what `local_outputs` has returned it says, too,
      which layer each leaf is in, and what that layer's output is. `memory` is exact for leaves
      that fall back. `cost` is an estimate by counting: 16 multiplications to one number moved;
      for a vector objective that of one of its entries.

    Raises:
      ValueError: engine="vmap", of which there is nothing to explain; otherwise, like FallbackError
        under `strict`, as `importance_estimator`'s `update`.

    >>> params = {"kernel": jnp.ones((784, 10)), "bias": jnp.zeros((1, 10))}
    >>> apply_fn = lambda params, x: x @ params["kernel"] + params["bias"]
    >>> print(explain(apply_fn, params, jnp.ones((32, 784))))
    leaf        shape   rule        why          memory    work / plain
    ['bias']    1×10    per sample  used by add  1.2 KiB   3.00
    ['kernel']  784×10  dense       used once    99.2 KiB  1.52
    1 of 2 leaves keep a gradient per sample: 1.2 KiB for micro-batches of 32 (batch 32)
    """
    checked = checked_options(**options)
    if checked.engine == "vmap":
        raise ValueError('explain is about the fused engine, got engine="vmap"')
    size = checks.batch_size(batch)
    if checked.mesh is not None:
        size = -(-size // checked.mesh.shape[checked.mesh_axis])  # what one device has of it
    selected = trees.select(params, trees.covered(params, checked.mask_tree()))
    value_fn = sample_value_fn(apply_fn, checked.objective)
    traced, plan = plan_for(value_fn, params, selected, batch, checked.strict)
    limits = checked.microbatch_size, checked.memory_budget
    if traced.num_outputs is None:
        samples, pairs = fitting_microbatch(plan, selected, *limits), 1
    else:
        passes = passes_for(traced, plan, size, *limits)
        samples, pairs = passes.samples, passes.outputs
    chunk = min(size, samples)
    leaves = trees.leaves_by_path(selected)
    explained = [
        _explain_leaf(trees.path_name(path), leaf, leaf_plan, size, chunk * pairs)
        for (path, leaf), leaf_plan in zip(leaves.items(), plan.leaves, strict=True)
    ]
    if local.network_of(apply_fn) is not apply_fn:
        layers = local.layers_of(apply_fn, params, batch)
        explained = [
            _with_layers(leaf, [layer for layer in layers if path in layer.leaves])
            for path, leaf in zip(leaves, explained, strict=True)
        ]
    return Explanation(tuple(explained), size, chunk)


def _explain_leaf(path: str, leaf: Any, plan: LeafPlan, size: int, held: int) -> LeafExplanation:
    """One row; `held` gradients of a leaf that falls back are held at a time."""
    shape = jnp.shape(leaf)
    entries = math.prod(shape)
    if plan.falls_back:
        works = [
            use.rule.work(size).plain if use.rule else size * max(entries, use.output_size)
            for use in plan.uses
        ]
        # Each sample's gradient is written, and read again to be reduced.
        cost = (sum(works) + 2 * size * entries) / max(1, sum(works))
        memory = held * entries * jnp.result_type(leaf).itemsize
        return LeafExplanation(path, shape, "per sample", plan.reason, memory, cost)
    if plan.rule is None:
        return LeafExplanation(path, shape, "none", plan.reason, 0, 1.0)
    plain, fused = plan.rule.work(size)
    layers = plan.uses[0].layers
    reason = plan.reason if layers == 1 else f"{plan.reason} in each of {layers} layers"
    return LeafExplanation(
        path, shape, plan.rule.name, reason, plan.rule.bytes_held(size), fused / plain
    )


def _with_layers(leaf: LeafExplanation, layers: list[local.NamedLayer]) -> LeafExplanation:
    """A row with the layers that the leaf is in."""
    return leaf._replace(
        layer=", ".join(layer.name for layer in layers) or "none",
        layer_output=", ".join(f"{layer.size} after {layer.operation}" for layer in layers)
        or "none",
    )


def _local_cells(leaf: LeafExplanation) -> tuple[str, ...]:
    """The cells that only functions from `local_outputs` have."""
    return () if leaf.layer is None else (leaf.layer, leaf.layer_output or "")


def _readable(size: int) -> str:
    """Bytes as people read them."""
    value, units = float(size), ["B", "KiB", "MiB", "GiB"]
    while value >= 1024 and len(units) > 1:
        value, units = value / 1024, units[1:]
    return f"{value:.1f} {units[0]}" if units[0] != "B" else f"{size} B"
