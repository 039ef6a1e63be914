"""Local MAS (l-MAS, Hebbian): the outputs of every layer, with gradients cut between layers."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mas_jax import checks, trees
from mas_jax.errors import EngineError
from mas_jax.fused import jaxprs
from mas_jax.layers import Body, Kind, Layer, Layered, find_layers
from mas_jax.per_sample import check_batched_outputs
from mas_jax.programs import Step, written_out
from mas_jax.types import ApplyFn, Batch, Outputs, Params


def local_outputs(apply_fn: ApplyFn) -> ApplyFn:
    """Make of a network the function that l-MAS measures: every layer's output, by itself.

    Ω_ij = (1/N) Σ_k |∂‖y(x_k)‖₂² / ∂θ_ij|, where y is the output of the layer that θ_ij is in,
    after its activation, and the layer's input is held constant. That is what
    `estimate_importance(local_outputs(apply_fn), params, batches)` computes, in one backward
    pass: the squared ℓ2 norm of all layers' outputs is the sum of the layers' norms, and each
    parameter reaches its own layer only. For a dense layer with ReLU, Ω_ij is (2/N) Σ_k y_i y_j,
    the product of the activities on both sides of the connection: Hebb's rule. The factor 2, which
    section 4.3 drops, is kept, as it is in global MAS.

    Layers need no marks. What they are is read off the operations that apply_fn does for one
    sample:

    - A layer begins where a parameter, or what is computed from parameters alone, meets what
      depends on the sample: a product, a convolution, a look-up in an embedding, a scale or bias
      by itself.
    - It goes on through elementwise operations (bias, batch normalisation in evaluation mode,
      activation functions) with parameters, constants and its own values, and through reshapes,
      transposes and casts. The scale of a layer or group normalisation goes on through the product
      with what is normalised. All else ends it: pooling, softmax, the sum or product with another
      branch, `stop_gradient`, a mask that depends on the sample.
    - Its output is the last of its values that everything passes through which leaves the layer:
      the activation, or what comes before it where something else uses that, too. What the
      network itself returns leaves a layer as well. Parameters further on begin another layer.
    - What `jit` wraps is looked into; so is `jax.checkpoint`, at whose borders layers end, too, and
      `scan`, where the layers of all steps are one entry of the result. A parameter that a scan
      carries on as an activation is a layer by itself. Other operations (`cond`, `while`, functions
      with a gradient of their own) are not looked into: one that takes parameters begins a layer.
      The output is all arrays that it returns, where they do not meet again.

    A parameter that several layers use is measured on the sum of their norms, and one that meets
    no sample has importance 0. `mas_jax.explain` shows each parameter's layer and output.

    Source: Aljundi et al., ECCV 2018, section 4.3.

    Args:
      apply_fn: as for `importance_estimator`.

    Returns:
      `local_fn(params, batch) -> {layer: (B, n) array}`, to be used wherever apply_fn is: n are a
      layer's entries for a sample. A layer is named by the path of its first parameter, followed
      by " (2)" if that is taken. As `predict_and_update`'s outputs, too, it returns layers. Equal
      for equal `apply_fn`, so that nothing compiles twice; a `jax.tree_util.Partial`, whose arrays
      are arguments, if `apply_fn` is one. The samples of a batch are computed one by one, under
      `vmap`, so that no operation can mix them.

    Raises:
      TypeError: `apply_fn` cannot be called.
      ValueError: it is what local_outputs has returned; and when called: no parameter meets the
        sample, outputs without the batch axis, or a function whose rule of differentiation closes
        over numbers computed from the sample.

    >>> params = {"kernel": jnp.array([[1.0, -1.0], [1.0, 1.0]]), "head": jnp.ones((2, 1))}
    >>> apply_fn = lambda params, x: jax.nn.relu(x @ params["kernel"]) @ params["head"]
    >>> local_outputs(apply_fn)(params, jnp.array([[2.0, 1.0]]))
    {"['kernel']": Array([[3., 0.]], dtype=float32), "['head']": Array([[3.]], dtype=float32)}
    """
    if not callable(apply_fn):
        raise TypeError(f"apply_fn must be a function, got {type(apply_fn).__name__}")
    if network_of(apply_fn) is not apply_fn:
        raise ValueError("apply_fn is what local_outputs has returned; pass the network itself")
    if isinstance(apply_fn, jax.tree_util.Partial):
        function = LocalOutputs(apply_fn.func)
        return jax.tree_util.Partial(function, *apply_fn.args, **apply_fn.keywords)
    return LocalOutputs(apply_fn)


def network_of(apply_fn: ApplyFn) -> ApplyFn:
    """The network whose layers' outputs `apply_fn` returns, or `apply_fn` itself."""
    if isinstance(apply_fn, LocalOutputs):
        return apply_fn.apply_fn
    if isinstance(apply_fn, jax.tree_util.Partial) and isinstance(apply_fn.func, LocalOutputs):
        function = apply_fn.func.apply_fn
        return jax.tree_util.Partial(function, *apply_fn.args, **apply_fn.keywords)
    return apply_fn


@dataclasses.dataclass(frozen=True)
class LocalOutputs:
    """(…, params, batch) -> outputs by layer. Equal, and of equal hash, where it does the same."""

    apply_fn: Any

    def __call__(self, *arguments: Any, **keywords: Any) -> dict[str, jax.Array]:
        *bound, params, batch = arguments
        apply_fn = functools.partial(self.apply_fn, *bound, **keywords)
        if checks.batch_size(batch) == 1:
            return _outputs_of_one(apply_fn, params, batch)

        def row(sample: Batch) -> dict[str, jax.Array]:
            outputs = _outputs_of_one(apply_fn, params, jax.tree.map(lambda x: x[None], sample))
            return {name: output[0] for name, output in outputs.items()}

        return jax.vmap(row)(batch)


class NamedLayer(NamedTuple):
    """A layer as users see it."""

    name: str
    leaves: tuple[trees.KeyPath, ...]
    size: int  # entries of its output for one sample
    operation: str  # the last that computed its output


def layers_of(local_fn: ApplyFn, params: Params, batch: Batch) -> list[NamedLayer]:
    """The layers of a function that `local_outputs` has returned. Shapes are enough."""
    network = network_of(local_fn)

    def row(x: Any) -> jax.ShapeDtypeStruct:
        dtype = x.dtype if hasattr(x, "dtype") else jnp.result_type(x)
        known = jax.dtypes.canonicalize_dtype(dtype, allow_extended_dtype=True)
        return jax.ShapeDtypeStruct((1, *jnp.shape(x)[1:]), known)

    return _trace(network, params, jax.tree.map(row, batch)).layers


class _Traced(NamedTuple):
    """A network of one sample, taken apart: inputs are floating leaves, then the sample's."""

    layered: Layered
    layers: list[NamedLayer]
    leaves: list[Any]


def _trace(apply_fn: ApplyFn, params: Params, sample: Batch) -> _Traced:
    """Find the layers of `apply_fn` for a batch of one sample."""
    floating = jax.tree.map(
        lambda leaf: jnp.issubdtype(jax.dtypes.result_type(leaf), jnp.floating), params
    )
    selected = trees.select(params, floating)
    leaves, treedef = jax.tree.flatten(selected)
    sample_leaves = jax.tree.leaves(sample)

    def outputs_of(leaves: list[Any], sample: Batch) -> Outputs:
        outputs = apply_fn(trees.overlay(params, treedef.unflatten(leaves)), sample)
        check_batched_outputs(outputs)
        return outputs

    def layered_of(closed: Any) -> Layered:
        kinds: list[Kind] = [frozenset({number}) for number in range(len(leaves))]
        return find_layers(written_out(closed), [*kinds, *([None] * len(sample_leaves))])

    def derivative_of(closed: Any) -> Any:
        layered = layered_of(closed)

        def total(leaves: list[Any], *sample: Any) -> jax.Array:
            _, found = _evaluate(layered, [*leaves, *sample])
            sums = [jnp.real(jnp.sum(output)).astype(jnp.float32) for output in found]
            return sum(sums, jnp.zeros(()))

        return jax.grad(total)

    try:
        closed, _ = jaxprs.single_sample_jaxpr(outputs_of, leaves, sample, derivative_of)
    except EngineError as error:
        raise ValueError(
            "local_outputs can't take this network apart: the rule of a custom_jvp or custom_vjp "
            "closes over numbers computed from the sample; pass them to it as arguments"
        ) from error
    layered = layered_of(closed)
    paths = list(trees.leaves_by_path(selected))
    return _Traced(layered, _named(layered.all_layers(), paths), leaves)


def _named(layers: Sequence[Layer], paths: list[trees.KeyPath]) -> list[NamedLayer]:
    """The layers, each under a name of its own."""
    if not layers:
        raise ValueError(
            "apply_fn has no layers: no operation takes both a floating-point parameter and what "
            "depends on the sample, so that there is nothing for l-MAS to measure"
        )
    named, times = [], {}
    for layer in layers:
        name = trees.path_name(paths[layer.leaves[0]])
        times[name] = times.get(name, 0) + 1
        unique = name if times[name] == 1 else f"{name} ({times[name]})"
        leaves = tuple(paths[leaf] for leaf in layer.leaves)
        named.append(NamedLayer(unique, leaves, layer.size, layer.operation))
    return named


def _outputs_of_one(apply_fn: ApplyFn, params: Params, sample: Batch) -> dict[str, jax.Array]:
    """The layers' outputs for a batch of one."""
    traced = _trace(apply_fn, params, sample)
    _, outputs = _evaluate(traced.layered, [*traced.leaves, *jax.tree.leaves(sample)])
    return {
        layer.name: output.reshape(1, -1)
        for layer, output in zip(traced.layers, outputs, strict=True)
    }


def _evaluate(layered: Layered, inputs: Sequence[Any]) -> tuple[list[Any], list[jax.Array]]:
    """A program's outputs, and its layers', in the order of `all_layers`.

    Gradients are cut where a layer's output leaves it. What depends on the sample has none, then,
    between layers: the backward pass neither computes nor keeps anything for it.
    """
    program = layered.program
    values = program.constants | dict(zip(program.inputs, inputs, strict=True))
    found: list[jax.Array] = []
    for number, step in enumerate(program.steps):
        operands = [values[value] for value in step.inputs]
        if number in layered.bodies:
            returned, inside = _evaluate_body(step, layered.bodies[number], operands)
            found += inside
        else:
            returned = jaxprs.bind(step.eqn, operands)
        values.update(zip(step.outputs, returned, strict=True))
        if number in layered.ends:
            outputs = layered.ends[number].values
            found.append(_flat([values[value] for value in outputs]))
            values |= {value: jax.lax.stop_gradient(values[value]) for value in outputs}
    return [values[value] for value in program.outputs], found


def _flat(arrays: list[jax.Array]) -> jax.Array:
    """All entries in one vector, of the widest dtype."""
    dtype = max((array.dtype for array in arrays), key=lambda dtype: dtype.itemsize)
    vectors = [array.reshape(-1).astype(dtype) for array in arrays]
    return vectors[0] if len(vectors) == 1 else jnp.concatenate(vectors)


def _evaluate_body(
    step: Step, body: Body, operands: list[Any]
) -> tuple[list[Any], list[jax.Array]]:
    """A scan or a checkpoint, with its layers' outputs beside what it returns."""
    found = [jnp.reshape(operands[operand], -1) for operand in body.entering]
    for operand in body.entering:
        operands[operand] = jax.lax.stop_gradient(operands[operand])
    scan = step.as_scan()
    if scan is not None:
        returned, inside = _scan(step, scan, body, operands)
    else:
        recomputed = jax.checkpoint(
            lambda operands: _evaluate(body.layered, operands),
            prevent_cse=step.eqn.params["prevent_cse"],
            policy=step.eqn.params["policy"],
        )
        returned, inside = recomputed(operands)
    return returned, [*found, *inside]


def _scan(
    step: Step, scan: jaxprs.Scan, body: Body, operands: list[Any]
) -> tuple[list[Any], list[jax.Array]]:
    """A scan: the layers' outputs are stacked."""
    params = step.eqn.params
    first_sliced = scan.num_consts + scan.num_carry
    consts, carry = operands[: scan.num_consts], operands[scan.num_consts : first_sliced]

    def one_step(carry: list[Any], sliced: list[Any]) -> Any:
        returned, found = _evaluate(body.layered, [*consts, *carry, *sliced])
        return returned[: scan.num_carry], (returned[scan.num_carry :], found)

    carry, (stacked, found) = jax.lax.scan(
        one_step,
        carry,
        operands[first_sliced:],
        length=params["length"],
        reverse=params["reverse"],
        unroll=params["unroll"],
    )
    return [*carry, *stacked], [output.reshape(-1) for output in found]
