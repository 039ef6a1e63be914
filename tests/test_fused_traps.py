"""Where the fused engine could be silently wrong.

First the traps that prototypes fell into, with the true sums worked out by hand; then one function
for each way to hide a second use, or anything else that a rule must not overlook, compared with
the vmap engine.
"""

import functools
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import networks
from tests.networks import CONVOLUTION, DENSE, EMBEDDING, FALLS_BACK, POSITIONS, UNUSED

SEQUENCES = networks.batch_of(5, 3, 4)
TOKENS = networks.tokens_of(5, 3, vocabulary=6)


def sums_of(apply_fn, params, batch, rules, **options):
    """The fused engine's sums for the sum of the outputs, which fall under the rules."""
    network = networks.Network(apply_fn, params, batch, rules, objective=jnp.sum)
    assert networks.rules_of(network) == network.expected_rules()
    weights = np.ones(networks.size_of(batch))
    run = networks.compiled(network, engines=["fused"], **options)
    return run(batch, weights).fused["abs"].sums


def column(*values):
    """A parameter or a batch of numbers, one column wide."""
    return np.array(values, np.float32).reshape(-1, 1)


def test_the_magnitude_comes_before_the_sum_over_samples():
    # y = w x with x = ±1: Σ|g| = 2 and |Σ g| = 0.
    sums = sums_of(lambda p, x: x @ p["w"], {"w": column(1)}, column(1, -1), {"w": DENSE})
    assert sums["w"] == 2.0


def test_a_leaf_at_two_sites_whose_gradients_cancel():
    # y = x w − x w: g = 0, while two sites would give 2|x|.
    def apply_fn(p, x):
        return x @ p["w"] - jax.jit(lambda w: x @ w)(p["w"])

    sums = sums_of(apply_fn, {"w": column(1)}, column(1, 2), {"w": FALLS_BACK})
    assert sums["w"] == 0.0


def test_a_leaf_times_a_number_counts_that_many_times():
    # y = x (3 w): g = 3 x.
    sums = sums_of(
        lambda p, x: x @ (3.0 * p["w"]), {"w": column(1)}, column(1, -2), {"w": FALLS_BACK}
    )
    assert sums["w"] == 9.0


def test_positions_are_summed_before_the_magnitude():
    # Two positions per sample, with x = 1 and −1: g = 0, while |A|ᵀ |Δ| would be 2.
    batch = np.array([[[1.0], [-1.0]], [[2.0], [1.0]]], np.float32)
    sums = sums_of(lambda p, x: x @ p["w"], {"w": column(1)}, batch, {"w": POSITIONS})
    assert sums["w"] == 3.0


def test_the_batch_axis_is_no_position():
    # apply_fn sees a batch axis of 1, here or as one of two axes of size 1: one product for all.
    for shape in [(2, 1), (2, 1, 1)]:
        batch = column(1, -1).reshape(shape)
        sums = sums_of(lambda p, x: x @ p["w"], {"w": column(1)}, batch, {"w": DENSE})
        assert sums["w"] == 2.0


def test_repeated_tokens_are_merged_before_the_magnitude():
    # The row is looked up twice, with cotangents 1 and −1: g = 0, while scattering |Δ| gives 2.
    def apply_fn(p, tokens):
        return p["table"][tokens] * jnp.array([[[1.0], [-1.0]]])

    tokens = np.array([[0, 0], [0, 1]], np.int32)
    sums = sums_of(apply_fn, {"table": column(1, 1)}, tokens, {"table": EMBEDDING})
    np.testing.assert_array_equal(sums["table"], column(1, 1))


def test_sums_of_bfloat16_gradients_are_not_rounded_to_bfloat16():
    # 1 + 1/1024 takes ten binary digits after the point, and bfloat16 has seven.
    batch = jnp.array([[1.0], [1 / 1024]], jnp.bfloat16)
    params = {"w": jnp.ones((1, 1), jnp.bfloat16)}
    sums = sums_of(lambda p, x: x @ p["w"], params, batch, {"w": DENSE})
    assert sums["w"].dtype == jnp.float32
    assert sums["w"] == 1 + 1 / 1024


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_a_float32_leaf_that_is_rounded_on_its_way(dtype):
    # The rounding passes gradients on as they are, as though the leaf had been round before.
    def cast(p, x):
        return jnp.tanh(x @ p["w"].astype(dtype).astype(jnp.float32)) @ p["v"]

    def round_before(p, x):
        return jnp.tanh(x @ p["w"]) @ p["v"]

    params = {name: networks.batch_of(4, 4, seed=i) for i, name in enumerate("wv")}
    rounded = params | {"w": np.asarray(params["w"].astype(dtype), np.float32)}
    rules = {"w": POSITIONS, "v": POSITIONS}
    sums = sums_of(cast, params, SEQUENCES, rules)
    networks.assert_close(sums, sums_of(round_before, rounded, SEQUENCES, rules))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_padding_row_of_weight_0_adds_nothing_to_any_leaf(bad):
    # 0 · NaN is NaN: its weight alone does not leave it out.
    network = networks.one_of_each(4)
    batch = network.batch | {"ones": network.batch["ones"].copy()}
    batch["ones"][2] = bad
    results = networks.compiled(network, ("abs", "square"))(batch, np.array([1.0, 2.0, 0.0, 0.5]))
    for magnitude in ("abs", "square"):
        for name, sums in results.fused[magnitude].sums.items():
            np.testing.assert_array_equal(sums, np.full(sums.shape, 3.5), err_msg=name)


def test_the_last_microbatch_is_not_filled_up_with_zeros():
    # x / |x| is NaN for a row of zeros, and micro-batches of two leave half of the last one empty.
    def apply_fn(p, x):
        return (x / jnp.linalg.norm(x, axis=1, keepdims=True)) @ p["w"] + p["b"].reshape(1, 1)

    params = {"w": column(1, 1), "b": np.ones(1, np.float32)}
    batch = np.array([[3.0, 4.0], [0.0, 2.0], [-4.0, 3.0]], np.float32)
    sums = sums_of(apply_fn, params, batch, {"w": DENSE}, microbatch_size=2)
    # |x| / ‖x‖ are (0.6, 0.8), (0, 1) and (0.8, 0.6).
    networks.assert_close(sums, {"w": column(1.4, 2.4), "b": np.array([3.0])})


IN_DOUBLE_PRECISION = """
import functools
import jax, jax.numpy as jnp, numpy as np
from tests import networks

one_of_each = functools.partial(networks.one_of_each, 5)
for build in (one_of_each, networks.recomputed_scan, networks.causal_convolutions):
    for dtype, tolerance in ((jnp.float64, 1e-12), (jnp.float32, 1e-5)):
        cast = lambda x: x.astype(dtype) if x.dtype == np.float32 else x
        network = build()
        params, batch = jax.tree.map(cast, (network.params, network.batch))
        network = network._replace(params=params, batch=batch)
        assert networks.rules_of(network) == network.expected_rules()
        results = networks.compiled(network)(batch, np.linspace(0, 1, 5))
        fused, vmap = results.fused["abs"].sums, results.vmap["abs"].sums
        assert {leaf.dtype for leaf in jax.tree.leaves(fused)} == {jnp.dtype(dtype)}
        networks.assert_close(fused, vmap, tolerance)
"""


def test_double_precision():
    # A process of its own: 64-bit types are a setting for all of JAX.
    root = Path(__file__).parents[1]
    environment = os.environ | {"JAX_ENABLE_X64": "1", "PYTHONPATH": str(root)}
    command = [sys.executable, "-W", "error", "-c", IN_DOUBLE_PRECISION]
    subprocess.run(command, cwd=root, env=environment, check=True, timeout=300)


def test_parameters_of_numpy_in_double_precision():
    # JAX computes with them in float32, as do the sums.
    params = {"w": np.ones((2, 2)), "b": np.ones(2)}
    batch = np.array([[1.0, 2.0], [3.0, -4.0]])
    sums = sums_of(
        lambda p, x: x @ p["w"].T.reshape(2, 2) + p["b"].reshape(1, 2), params, batch, {"w": DENSE}
    )
    assert {leaf.dtype for leaf in jax.tree.leaves(sums)} == {jnp.dtype(jnp.float32)}
    # Σ|x| is (4, 6); w enters transposed.
    networks.assert_close(sums, {"w": np.array([[4.0, 6.0]] * 2), "b": np.array([2.0, 2.0])})


@pytest.mark.parametrize("precision", ["highest", jax.lax.DotAlgorithmPreset.F32_F32_F32])
def test_a_product_of_a_precision_of_its_own(precision):
    network = networks.Network(
        lambda p, x: jnp.matmul(jnp.matmul(x, p["w"], precision=precision)[:, 0], p["v"]),
        {name: networks.batch_of(4, 4, seed=i) for i, name in enumerate("wv")},
        SEQUENCES,
        {"w": POSITIONS, "v": DENSE},
    )
    networks.assert_engines_agree(network, magnitudes=("abs",))


@pytest.mark.parametrize("narrow", ["w", "x"])
@pytest.mark.parametrize("positions", [1, 3])
def test_a_product_of_bfloat16_and_float32(narrow, positions):
    def apply_fn(p, x):
        dimensions = (((2,), (0,)), ((), ()))
        return jax.lax.dot_general(x, p["w"], dimensions, preferred_element_type=jnp.float32)

    dtypes = {"w": jnp.float32, "x": jnp.float32, narrow: jnp.bfloat16}
    params = {"w": jnp.asarray(networks.batch_of(4, 4, seed=1), dtypes["w"])}
    batch = jnp.asarray(SEQUENCES[:, :positions], dtypes["x"])
    rules = {"w": POSITIONS if positions > 1 else DENSE}
    # y = x w, summed: every column of g is Σ_p x_p.
    wanted = np.abs(np.asarray(batch, np.float64).sum(axis=1)).sum(axis=0)
    wanted = np.repeat(wanted[:, None], 4, axis=1)
    with jax.numpy_dtype_promotion("strict"):  # the engine's own dtypes are its own business
        networks.assert_close(sums_of(apply_fn, params, batch, rules), {"w": wanted})


@pytest.mark.parametrize("shape", [(4, 0), (0, 4)])
@pytest.mark.parametrize("positions", [1, 3])
def test_an_empty_leaf(shape, positions):
    network = networks.Network(
        lambda p, x: {"empty": x[..., : shape[0]] @ p["empty"], "y": x @ p["w"]},
        {"empty": np.zeros(shape, np.float32), "w": networks.batch_of(4, 4)},
        SEQUENCES[:, :positions],
        {"empty": FALLS_BACK, ".": POSITIONS if positions > 1 else DENSE},
        objective=lambda outputs: sum(jnp.sum(leaf) for leaf in outputs.values()),
    )
    networks.assert_engines_agree(network, magnitudes=("abs",))


SHAPES = {
    "w": (4, 4),
    "v": (4, 4),
    "stack": (3, 4, 4),
    "stacks": (2, 3, 4, 4),
    "bias": (4,),
    "table": (6, 4),
    "window": (2, 4, 4),
    "windows": (3, 2, 4, 4),
    "image": (1, 5, 4),
    "scalar": (),
    "one": (1, 1, 1),
}
WEIGHTS = np.array([1.0, 0.5, 0.0, 2.0, 1.0])


class Case(NamedTuple):
    """A function of leaves of SHAPES and a batch, and the rule of each leaf that it is given."""

    apply_fn: Callable[..., Any]
    rules: dict[str, str]
    batch: Any


CASES: list[Case] = []


def trap(batch: Any = SEQUENCES, **rules):
    """Have the function that follows compared with the vmap engine."""

    def register(apply_fn):
        CASES.append(Case(apply_fn, rules, batch))
        return apply_fn

    return register


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.apply_fn.__name__)
def test_exact_with(case):
    params = networks.drawn_like(
        {name: jax.ShapeDtypeStruct(SHAPES[name], jnp.float32) for name in case.rules}
    )
    rules = {f"'{name}'": rule for name, rule in case.rules.items()}
    network = networks.Network(
        case.apply_fn,
        params,
        case.batch,
        rules,
        objective=lambda outputs: sum(
            jnp.sum(jnp.square(jnp.abs(leaf))) for leaf in jax.tree.leaves(outputs)
        ),
    )
    networks.assert_engines_agree(network, WEIGHTS, ("abs",))


@jax.jit
def layer(w, x):
    return jnp.tanh(x @ w)


@trap(w=FALLS_BACK)
def a_leaf_at_two_sites(p, x):
    return jnp.tanh(x @ p["w"]) @ p["w"]


@trap(w=FALLS_BACK)
def a_leaf_and_its_transpose(p, x):
    return jnp.tanh(x @ p["w"]) @ p["w"].T


@trap(w=FALLS_BACK)
def a_leaf_inside_and_outside_a_jitted_function(p, x):
    return layer(p["w"], x) @ p["w"]


@trap(w=POSITIONS, v=POSITIONS)
def a_jitted_function_called_with_two_leaves(p, x):
    return layer(p["v"], layer(p["w"], x))


@trap(w=FALLS_BACK)
def a_jitted_function_called_twice_with_one_leaf(p, x):
    return layer(p["w"], layer(p["w"], x))


@trap(w=FALLS_BACK)
def a_leaf_for_two_arguments_of_a_jitted_function(p, x):
    return jax.jit(lambda w, v: jnp.tanh(x @ w) @ v)(p["w"], p["w"])


@trap(w=POSITIONS)
def a_leaf_that_a_jitted_function_closes_over(p, x):
    return jax.jit(lambda x: jnp.tanh(x @ p["w"]))(x)


@trap(w=POSITIONS)
def a_leaf_that_a_jitted_function_returns(p, x):
    return x @ jax.jit(lambda w: w.T.reshape(4, 2, 2))(p["w"]).reshape(4, 4)


@trap(w=FALLS_BACK)
def a_leaf_that_a_jitted_function_uses_and_returns(p, x):
    y, w = jax.jit(lambda w: (jnp.tanh(x @ w), w))(p["w"])
    return y @ w


@trap(w=POSITIONS)
def a_leaf_that_a_checkpoint_returns(p, x):
    w, y = jax.checkpoint(lambda w, x: (w.T, jnp.sin(x)))(p["w"], x)
    return y @ w


@trap(w=FALLS_BACK)
def a_leaf_reshaped_and_used_twice(p, x):
    heads = p["w"].reshape(4, 2, 2)
    return jnp.einsum("btd,dhe->bthe", x, heads).reshape(x.shape) @ heads.reshape(4, 4)


@trap(w=FALLS_BACK)
def a_leaf_in_two_halves(p, x):
    return jnp.tanh(x @ p["w"][:, :2]) @ p["w"][:2]


@trap(w=POSITIONS)
def a_leaf_reshaped_transposed_flipped_and_used_once(p, x):
    w = jnp.flip(p["w"].reshape(2, 2, 4), axis=1).transpose(2, 1, 0)
    return jnp.einsum("btd,dij->btij", x, w[:, :, None][:, :, 0])


@trap(w=FALLS_BACK)
def a_leaf_times_itself(p, x):
    return x @ (p["w"].T @ p["w"])


@trap(w=FALLS_BACK, v=FALLS_BACK)
def a_leaf_times_another(p, x):
    return x @ (p["w"] @ p["v"])


@trap(w=FALLS_BACK, v=FALLS_BACK)
def two_leaves_in_one(p, x):
    return x @ jnp.concatenate([p["w"], p["v"]], axis=1)


@trap(w=UNUSED, v=POSITIONS)
def a_leaf_that_is_not_used(p, x):
    return x @ p["v"]


@trap(w=POSITIONS, v=POSITIONS)
def a_leaf_whose_use_comes_to_nothing(p, x):
    return (x @ p["w"], x @ p["v"])[1]


@trap(w=FALLS_BACK)
def a_leaf_with_a_second_use_that_comes_to_nothing(p, x):
    return (jnp.sin(x) @ p["w"], x @ p["w"])[1]


@trap(w=FALLS_BACK)
def a_leaf_that_is_shown(p, x):
    jax.debug.callback(lambda _: None, p["w"])
    return x @ p["w"]


@trap(w=FALLS_BACK)
def a_leaf_times_a_number(p, x):
    return x @ (2.0 * p["w"])


@trap(w=FALLS_BACK)
def a_leaf_times_an_input(p, x):
    return x @ (x[0, 0, 0] * p["w"])


@trap(w=FALLS_BACK)
def a_leaf_divided_by_its_norm(p, x):
    return x @ (p["w"] / jnp.linalg.norm(p["w"]))


@trap(w=FALLS_BACK)
def a_leaf_under_where(p, x):
    return x @ jnp.where(jnp.eye(4) > 0, p["w"], 0.5)


@trap(w=FALLS_BACK)
def a_broadcast_leaf(p, x):
    return jnp.einsum("btd,tde->bte", x, jnp.broadcast_to(p["w"], (3, 4, 4)))


@trap(one=POSITIONS)
def a_leaf_broadcast_to_another_shape_of_its_size(p, x):
    return jnp.einsum("btd,dio->btio", x[:, :, :1], jnp.broadcast_to(p["one"], (1, 1, 1)))


@trap(one=FALLS_BACK)
def a_leaf_of_one_entry_broadcast(p, x):
    return x @ jnp.broadcast_to(p["one"][0], (4, 4))


@trap(scalar=DENSE)
def a_product_with_a_number(p, x):
    y = jax.lax.dot_general(p["scalar"], 2.0, (((), ()), ((), ())))
    return x * y.reshape(1, 1, 1)


@trap(w=FALLS_BACK)
def a_leaf_behind_stop_gradient(p, x):
    return x @ jax.lax.stop_gradient(p["w"])


@trap(w=FALLS_BACK)
def a_leaf_behind_stop_gradient_and_not(p, x):
    return jnp.tanh(x @ p["w"]) @ jax.lax.stop_gradient(p["w"])


@trap(w=FALLS_BACK)
def a_complex_leaf(p, x):
    y = x @ (p["w"] * 1j + p["w"].T)
    return jnp.concatenate([y.real, y.imag], axis=-1)


@trap(w=POSITIONS, v=FALLS_BACK)
def complex_activations(p, x):
    y = jnp.fft.fft(x @ p["w"], axis=1) @ p["v"].astype(complex)
    return {"real": y.real, "complex": y}


@trap(w=FALLS_BACK)
def complex_activations_in_a_mixed_product(p, x):
    # jnp.matmul would make the leaf complex first. At one position |Re(a b)| is not |a| |b|.
    x = jax.lax.complex(x[:, 0], x[:, 1])
    return jax.lax.dot_general(x, p["w"], (((1,), (0,)), ((), ())))


@trap(w=POSITIONS, v=POSITIONS)
def an_infinite_use_that_comes_to_nothing(p, x):
    y = jnp.where(True, x, jax.lax.stop_gradient(jnp.exp(1e4 * jnp.abs(x)) @ p["v"]))
    return y @ p["w"]


@trap(w=FALLS_BACK)
def the_diagonal_of_a_leaf(p, x):
    return jnp.einsum("btd,dd->btd", x, p["w"])


@trap(w=FALLS_BACK)
def the_trace_of_a_leaf(p, x):
    return x * jnp.einsum("dd->", p["w"]).reshape(1, 1, 1)


@trap(w=POSITIONS)
def a_diagonal_of_the_activations(p, x):
    return jnp.einsum("tt,td->td", x[0, :, :3], x[0] @ p["w"])[None]


@trap(stack=POSITIONS)
def a_bilinear_form(p, x):
    return jnp.einsum("bti,kij,btj->btk", x, p["stack"], jnp.sin(x))


@trap(w=DENSE)
def an_outer_product_with_a_leaf(p, x):
    return jnp.einsum("btd,ij->bij", x, p["w"])


@trap(stack=POSITIONS)
def heads_under_vmap(p, x):
    return jax.vmap(lambda w: jnp.tanh(x @ w), out_axes=1)(p["stack"])


@trap(w=POSITIONS)
def one_leaf_for_all_heads_under_vmap(p, x):
    return jax.vmap(lambda head: head @ p["w"], in_axes=1, out_axes=1)(x[:, :, None] * x[..., None])


@trap(stack=DENSE)
def a_leaf_per_position_under_vmap(p, x):
    return jax.vmap(lambda w, token: token @ w, in_axes=(0, 1), out_axes=1)(p["stack"], x)


@trap(batch=TOKENS, table=EMBEDDING)
def tokens_looked_up_under_vmap(p, x):
    return jax.vmap(lambda token: p["table"][token])(x)


@trap(batch=TOKENS, table=FALLS_BACK)
def columns_of_a_table(p, x):
    return p["table"][:, x[0] % 4].T[None]


@trap(batch=TOKENS, table=FALLS_BACK)
def parts_of_rows_of_a_table(p, x):
    return p["table"][x, :2]


@trap(batch=TOKENS, table=FALLS_BACK)
def entries_of_a_table(p, x):
    return p["table"][x, x % 4]


@trap(batch=TOKENS, table=FALLS_BACK)
def beginnings_of_rows_of_a_table(p, x):
    numbers = jax.lax.GatherDimensionNumbers((2,), (0,), (0,))
    return jax.lax.gather(p["table"], x[..., None], numbers, (1, 2))


@trap(batch=TOKENS, table=FALLS_BACK)
def rows_that_two_numbers_name(p, x):
    indices = jnp.stack([x, jnp.zeros_like(x)], axis=-1)
    numbers = jax.lax.GatherDimensionNumbers((2,), (0,), (0, 1))
    return jax.lax.gather(p["table"], indices, numbers, (1, 4))


@trap(batch=TOKENS, table=FALLS_BACK)
def blocks_of_rows_of_a_table(p, x):
    return jax.lax.dynamic_slice_in_dim(p["table"], x[0, 0], 2)[None]


@trap(batch=TOKENS, table=FALLS_BACK)
def a_table_that_is_written_to(p, x):
    return p["table"].at[x[0]].set(1.0)[None]


@trap(batch=TOKENS, table=FALLS_BACK)
def two_look_ups_in_one_table(p, x):
    return p["table"][x] * p["table"][(x + 1) % 6]


@trap(batch=TOKENS, table=POSITIONS)
def one_hot_tokens(p, x):
    return jax.nn.one_hot(x, 6) @ p["table"]


@trap(batch=TOKENS, table=EMBEDDING)
def a_transposed_table(p, x):
    return p["table"].reshape(4, 6).T[x]


@trap(table=EMBEDDING, w=POSITIONS)
def constant_positions(p, x):
    return x @ p["w"] + p["table"][np.array([1, 3, 1])][None]


@trap(table=EMBEDDING)
def positions_from_floating_point_inputs(p, x):
    return p["table"][jnp.argsort(x[..., 0], axis=1)] * x


@trap(window=FALLS_BACK)
def a_kernel_for_two_convolutions(p, x):
    convolve = functools.partial(
        jax.lax.conv_general_dilated,
        rhs=p["window"],
        window_strides=(1,),
        padding="SAME",
        dimension_numbers=("NHC", "HIO", "NHC"),
    )
    return convolve(jnp.tanh(convolve(x)))


def convolve(x, kernel, padding="SAME"):
    return jax.lax.conv_general_dilated(
        x, kernel, (1,), padding, dimension_numbers=("NHC", "HIO", "NHC")
    )


@trap(window=CONVOLUTION)
def a_flipped_kernel(p, x):
    return convolve(x, jnp.flip(p["window"], axis=0))


@trap(windows=CONVOLUTION)
def convolutions_under_vmap(p, x):
    return jax.vmap(lambda kernel: convolve(x, kernel), out_axes=1)(p["windows"])


@trap(windows=CONVOLUTION)
def a_convolution_per_expert_under_vmap(p, x):
    experts = x[:, None] * jnp.arange(1.0, 4.0).reshape(1, 3, 1, 1)
    return jax.vmap(convolve, in_axes=(1, 0), out_axes=1)(experts, p["windows"])


@trap(image=FALLS_BACK, window=CONVOLUTION)
def a_leaf_as_the_image_of_a_convolution(p, x):
    return jnp.sin(convolve(p["image"], jnp.sin(x[0, :2, :, None] * x[0, :2, None]))) * convolve(
        jnp.sin(p["image"]), p["window"]
    )


@trap(bias=FALLS_BACK, w=DENSE)
def a_kernel_applied_to_another_leaf(p, x):
    return x * (jnp.tanh(p["bias"]) @ p["w"]).reshape(1, 1, 4)


@trap(w=POSITIONS)
def a_kernel_applied_to_a_constant(p, x):
    return x * (jnp.arange(12.0).reshape(3, 4) @ p["w"])[None]


@trap(w=POSITIONS)
def a_kernel_that_meets_no_sample(p, x):
    return jnp.broadcast_to((jnp.eye(4) @ p["w"])[None], (len(x), 4, 4))


@trap(w=POSITIONS, v=POSITIONS)
def kernels_one_behind_the_other(p, x):
    return x @ jnp.tanh(jnp.tanh(jnp.eye(4) @ p["w"]) @ p["v"])


CLOSED_OVER = networks.batch_of(4, 4, seed=3)


@trap(w=POSITIONS)
def an_array_that_is_closed_over(p, x):
    return jnp.tanh(x @ p["w"]) @ CLOSED_OVER


@trap(stack=POSITIONS)
def layers_of_a_scan(p, x):
    return jax.lax.scan(lambda h, w: (jnp.tanh(h @ w), None), x, p["stack"])[0]


@trap(stack=POSITIONS)
def layers_of_a_reversed_scan_with_outputs(p, x):
    h, outputs = jax.lax.scan(
        lambda h, w: (jnp.tanh(h @ w), h.sum(axis=(1, 2))), x, p["stack"], reverse=True
    )
    return h, outputs.T


@trap(stack=FALLS_BACK)
def layers_used_twice_in_a_step(p, x):
    return jax.lax.scan(lambda h, w: (jnp.tanh(h @ w) @ w, None), x, p["stack"])[0]


@trap(stack=FALLS_BACK)
def layers_scanned_over_and_closed_over(p, x):
    return jax.lax.scan(lambda h, w: (jnp.tanh(h @ w) @ p["stack"][0], None), x, p["stack"])[0]


@trap(stack=FALLS_BACK)
def layers_of_two_scans(p, x):
    for _ in range(2):
        x, _ = jax.lax.scan(lambda h, w: (jnp.tanh(h @ w), None), x, p["stack"])
    return x


@trap(stack=FALLS_BACK)
def layers_scanned_over_twice_at_once(p, x):
    layers = (p["stack"], p["stack"][::-1])
    return jax.lax.scan(lambda h, ws: (jnp.tanh(h @ ws[0]) @ ws[1], None), x, layers)[0]


@trap(stack=POSITIONS)
def layers_moved_before_and_in_a_scan(p, x):
    layers = p["stack"].transpose(0, 2, 1)[::-1].reshape(3, 16)
    return jax.lax.scan(lambda h, w: (jnp.tanh(h @ w.reshape(4, 4).T), None), x, layers)[0]


@trap(stacks=POSITIONS)
def layers_of_a_scan_in_a_scan(p, x):
    def outer(h, layers):
        return jax.lax.scan(lambda h, w: (layer(w, h), None), h, layers)[0], None

    return jax.lax.scan(outer, x, p["stacks"])[0]


@trap(stack=FALLS_BACK)
def layers_scanned_over_in_a_scan(p, x):
    def outer(h, _):
        return jax.lax.scan(lambda h, w: (layer(w, h), None), h, p["stack"])[0], None

    return jax.lax.scan(outer, x, length=2)[0]


@trap(stack=FALLS_BACK)
def layers_that_a_scan_returns(p, x):
    h, layers = jax.lax.scan(lambda h, w: (jnp.tanh(h), w.T), x, p["stack"])
    return h @ layers[0] @ layers[2]


@trap(stack=FALLS_BACK)
def layers_that_a_scan_carries_on(p, x):
    def step(carry, w):
        h, last = carry
        return (jnp.tanh(h @ last), w), None

    return jax.lax.scan(step, (x, jnp.eye(4)), p["stack"])[0][0]


@trap(w=FALLS_BACK)
def a_leaf_in_every_step(p, x):
    return jax.lax.scan(lambda h, _: (layer(p["w"], h), None), x, length=3)[0]


@trap(w=FALLS_BACK)
def a_leaf_that_a_scan_carries(p, x):
    def step(carry, _):
        h, w = carry
        return (layer(w, h), w), None

    return jax.lax.scan(step, (x, p["w"]), length=3)[0][0]


@trap(w=FALLS_BACK)
def a_leaf_in_one_step(p, x):
    return jax.lax.scan(lambda h, _: (layer(p["w"], h), None), x, length=1)[0]


@trap(stack=POSITIONS)
def experts_under_map(p, x):
    return jnp.moveaxis(jax.lax.map(lambda w: jnp.tanh(x @ w), p["stack"]), 0, 1)


@trap(stack=POSITIONS, w=POSITIONS)
def a_scan_of_checkpoints_in_a_jitted_checkpoint(p, x):
    def run(stack, w, x):
        step = jax.checkpoint(lambda h, w: (layer(w, h), None))
        return jax.lax.scan(step, x, stack)[0] @ w

    return jax.jit(jax.checkpoint(run))(p["stack"], p["w"], x)


@trap(w=FALLS_BACK)
def a_leaf_inside_and_outside_a_checkpoint(p, x):
    return jax.checkpoint(layer)(p["w"], x) @ p["w"]


@trap(w=POSITIONS, v=POSITIONS)
def a_checkpoint_with_a_policy(p, x):
    policy = jax.checkpoint_policies.dots_with_no_batch_dims_saveable

    def run(w, v, x, scale):
        return jnp.sin(jnp.sin(x @ w) @ v) * scale

    return jax.checkpoint(run, policy=policy)(p["w"], p["v"], x, 2.0)


@trap(w=FALLS_BACK, v=POSITIONS)
def a_leaf_in_one_branch(p, x):
    y = jax.lax.cond(x.sum() > 0, lambda x: x @ p["w"], lambda x: x, x)
    return jnp.tanh(y) @ p["v"]


@trap(w=FALLS_BACK, v=FALLS_BACK)
def a_leaf_in_each_branch(p, x):
    branches = [lambda x: x @ p["w"], lambda x: x @ p["v"], lambda x: x]
    return jax.lax.switch((10 * x[0, 0, 0]).astype(int) % 3, branches, x)


@trap(w=POSITIONS, stack=FALLS_BACK)
def a_layer_chosen_by_the_sample(p, x):
    return jnp.tanh(x @ p["w"]) @ p["stack"][(10 * x[0, 0, 0]).astype(int) % 3]


@trap(w=POSITIONS)
def a_while_loop_beside_it(p, x):
    steps = jax.lax.while_loop(lambda n: n * jnp.abs(x[0, 0, 0]) < 2, lambda n: n + 1.0, 1.0)
    return jnp.tanh(x @ p["w"]) * steps


@trap(w=POSITIONS)
def inputs_from_a_while_loop_that_has_no_gradient(p, x):
    # Nor does it need one: only the leaves are differentiated, relu's own rule or not.
    x = jax.lax.while_loop(lambda x: jnp.abs(x).max() > 1, lambda x: x / 2, x)
    return jax.nn.relu(x @ p["w"])


@trap(w=POSITIONS)
def inputs_from_a_callback_that_has_no_gradient(p, x):
    shape = jax.ShapeDtypeStruct(x.shape, x.dtype)
    x = jax.pure_callback(np.sin, shape, x, vmap_method="broadcast_all")
    return jax.nn.relu(x @ p["w"])


@trap(w=FALLS_BACK)
def a_loop_with_a_fixed_number_of_steps(p, x):
    return jax.lax.fori_loop(0, 2, lambda _, h: layer(p["w"], h), x)


@jax.custom_jvp
def scaled_dense(w, x):
    return x @ w


@scaled_dense.defjvp
def _(primals, tangents):
    (w, x), (dw, dx) = primals, tangents
    return x @ w, 3.0 * (x @ dw) + dx @ w


@jax.custom_vjp
def reversed_dense(w, x):
    return x @ w


reversed_dense.defvjp(
    lambda w, x: (x @ w, (w, x)),
    lambda kept, dy: (-2.0 * jnp.einsum("bti,bto->io", kept[1], dy), dy @ kept[0].T),
)


@jax.custom_vjp
def reversing(x):
    return x


reversing.defvjp(lambda x: (x, None), lambda _, dy: (-0.5 * dy,))


@trap(w=FALLS_BACK, v=POSITIONS)
def a_leaf_in_a_custom_jvp(p, x):
    return scaled_dense(p["w"], jnp.tanh(x @ p["v"]))


@trap(w=FALLS_BACK, v=POSITIONS)
def a_leaf_in_a_custom_vjp(p, x):
    return reversed_dense(p["w"], jnp.tanh(x @ p["v"]))


@trap(w=POSITIONS, v=POSITIONS)
def activations_with_rules_of_their_own(p, x):
    return jax.nn.relu(reversing(jax.nn.silu(jax.nn.relu6(x @ p["w"])) @ p["v"]))


@trap(w=FALLS_BACK)
def a_leaf_behind_a_custom_vjp(p, x):
    return x @ reversing(p["w"])


@trap(w=FALLS_BACK, v=FALLS_BACK)
def the_derivative_of_a_network(p, x):
    return jax.jvp(lambda x: jnp.tanh(x @ p["w"]) @ p["v"], (x,), (jnp.ones_like(x),))[1]


@trap(w=FALLS_BACK)
def the_gradient_of_a_network(p, x):
    return jax.grad(lambda x: jnp.sum(jnp.tanh(x @ p["w"])))(x)


@trap(w=FALLS_BACK)
def a_linear_solve(p, x):
    return jnp.linalg.solve(p["w"] + 3 * jnp.eye(4), x[0].T)[None]


@trap(w=FALLS_BACK, v=FALLS_BACK)
def a_leaf_among_the_outputs(p, x):
    return {"y": x @ p["v"], "w": p["w"][None], "v": [p["v"].T[None]]}


@trap(w=POSITIONS, v=POSITIONS, bias=FALLS_BACK)
def outputs_of_many_kinds(p, x):
    h = jnp.tanh(x @ p["w"])
    outputs = (h[:, 0], {"y": (h @ p["v"]).astype(jnp.float32) + p["bias"].reshape(1, 1, 4)})
    return *outputs, jnp.broadcast_to(jnp.float32(3), (len(x), 1))


@trap(batch=networks.tokens_of(5, 3, 4, vocabulary=9), w=POSITIONS)
def whole_numbers(p, x):
    return x.astype(jnp.float32) @ p["w"]


@trap(batch={"x": SEQUENCES, "key": jax.random.split(jax.random.key(0), 5)}, w=POSITIONS)
def a_random_key_in_the_batch(p, batch):
    noise = jax.vmap(lambda key: jax.random.normal(key, (3, 4)))(batch["key"])
    return (batch["x"] + noise) @ p["w"]


@trap(batch=SEQUENCES[:, :1], w=DENSE)
def sequences_of_one(p, x):
    return jnp.tanh(x) @ p["w"]


@trap(batch=SEQUENCES, w=POSITIONS)
def the_batch_axis_moved(p, x):
    return jnp.einsum("tbd,de->bte", x.transpose(1, 0, 2), p["w"])


@trap(batch=SEQUENCES, w=POSITIONS)
def the_batch_axis_merged_with_positions(p, x):
    return (x.reshape(-1, 4) @ p["w"]).reshape(x.shape)


@trap(batch=SEQUENCES, w=POSITIONS)
def the_batch_axis_under_vmap(p, x):
    return jax.vmap(lambda x: x @ p["w"])(x)
