"""Each rule of the fused engine against loops: Σ_k w_k red(g_k) for g_k worked out term by term.

The function under test is op(x, kernel) · dy with x and dy in the batch, so that dy is the
cotangent of the operation's output, and the loops need to know of nothing else.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mas_jax import trees
from mas_jax.fused import products
from mas_jax.fused.engine import fused_engine
from tests import networks, oracle_kernels

pytestmark = pytest.mark.usefixtures("strict_dtypes")

MAGNITUDES = {"abs": abs, "square": lambda g: g * g, "signed": lambda g: g}
REDUCE_FNS = {"abs": jnp.abs, "square": jnp.square, "signed": lambda g: g}
WEIGHTS = [1.0, 0.5, 0.0, 2.0]  # again and again


def check(operation, x, kernel, gradient_fn, rule, seed=2):
    """Compare the sums for op(x, kernel) with those of `gradient_fn(x_k, dy_k)`, and the rule."""
    shape = jax.eval_shape(operation, x[0], kernel).shape
    dy = networks.batch_of(len(x), *shape, seed=seed)

    def apply_fn(params, batch):
        y = operation(batch["x"][0], params["kernel"])
        return (y * batch["dy"][0])[None]

    batch, params = {"x": x, "dy": dy}, {"kernel": kernel}
    network = networks.Network(apply_fn, params, batch, {"kernel": rule}, objective=jnp.sum)
    assert networks.rules_of(network) == network.expected_rules()

    @functools.partial(jax.jit, compiler_options=networks.COMPILER_OPTIONS)
    def sums(params, batch, weights):
        engines = (fused_engine(apply_fn, jnp.sum, fn) for fn in REDUCE_FNS.values())
        covered = trees.covered(params)
        return [engine(params, covered, batch, weights).sums["kernel"] for engine in engines]

    gradients = [
        gradient_fn(np.asarray(x_k, x.dtype if x.dtype.kind in "iu" else float), dy_k)
        for x_k, dy_k in zip(x, dy.astype(np.float64), strict=True)
    ]
    weights = np.resize(WEIGHTS, len(x))
    got = sums(params, batch, jnp.asarray(weights))
    for name, sums_of_kernel in zip(REDUCE_FNS, got, strict=True):
        wanted = oracle_kernels.sum_of_magnitudes(MAGNITUDES[name], gradients, weights)
        networks.assert_close(sums_of_kernel, wanted)


def chunks_of_three(monkeypatch):
    """Have the products of several samples held at a time, as on an accelerator."""
    monkeypatch.setattr(products.Products, "_chunking", lambda _, size: (min(size, 3), 4))


def contraction(equation, side):
    """The dot_general that an einsum of x and a kernel is, with the kernel on one side."""
    inputs, y_letters = equation.split("->")
    x_letters, kernel_letters = inputs.split(",")
    left, right = (x_letters, kernel_letters) if side == "right" else (kernel_letters, x_letters)
    shared = [letter for letter in left if letter in right]
    rows = [letter for letter in shared if letter not in y_letters]
    blocks = [letter for letter in shared if letter in y_letters]
    result = [*blocks, *(letter for letter in left + right if letter not in shared)]
    dimension_numbers: Any = [
        [[letters.index(letter) for letter in group] for letters in (left, right)]
        for group in (rows, blocks)
    ]

    def operation(x, kernel):
        operands = (x, kernel) if side == "right" else (kernel, x)
        y = jax.lax.dot_general(*operands, dimension_numbers)
        return jnp.transpose(y, [result.index(letter) for letter in y_letters])

    return operation


def check_dense(equation, x_shape, kernel_shape, rule, side, size=4):
    gradient_fn = functools.partial(
        oracle_kernels.einsum_kernel_gradient, equation, kernel_shape=kernel_shape
    )
    x, kernel = networks.batch_of(size, *x_shape), networks.batch_of(*kernel_shape, seed=1)
    check(contraction(equation, side), x, kernel, gradient_fn, rule)


@pytest.mark.parametrize(
    ("equation", "x_shape", "kernel_shape"),
    [
        ("i,io->o", (3,), (3, 2)),
        ("i,oi->o", (3,), (2, 3)),
        ("pi,io->po", (1, 3), (3, 2)),
        ("ij,ijo->o", (2, 3), (2, 3, 2)),
        ("ij,oji->o", (2, 3), (2, 3, 2)),
        ("i,iop->op", (3,), (3, 2, 2)),
        ("i,i->", (3,), (3,)),
        (",io->io", (), (3, 2)),
        ("ni,nio->no", (2, 3), (2, 3, 2)),
        ("n,no->no", (3,), (3, 2)),
        ("ni,oin->no", (2, 3), (2, 3, 2)),
    ],
)
@pytest.mark.parametrize("side", ["right", "left"])
def test_dense_at_one_position(equation, x_shape, kernel_shape, side):
    check_dense(equation, x_shape, kernel_shape, networks.DENSE, side)


MANY_POSITIONS = [
    ("p,->p", (3,), ()),
    ("p,o->po", (3,), (2,)),
    ("pi,io->po", (4, 3), (3, 2)),
    ("pi,io->op", (4, 3), (3, 2)),
    ("pqi,oi->pqo", (2, 2, 3), (2, 3)),
    ("phi,hio->po", (3, 2, 2), (2, 2, 3)),
    ("npi,nio->npo", (2, 3, 2), (2, 2, 3)),
    ("pnmi,moni->npmo", (3, 2, 2, 2), (2, 3, 2, 2)),
]


@pytest.mark.parametrize(("equation", "x_shape", "kernel_shape"), MANY_POSITIONS)
@pytest.mark.parametrize("side", ["right", "left"])
def test_dense_at_many_positions(equation, x_shape, kernel_shape, side):
    # Two rounds of the loop, which takes four samples at a time, and one sample after it.
    check_dense(equation, x_shape, kernel_shape, networks.POSITIONS, side, size=9)


@pytest.mark.parametrize(("equation", "x_shape", "kernel_shape"), MANY_POSITIONS)
def test_dense_at_many_positions_in_chunks(monkeypatch, equation, x_shape, kernel_shape):
    # One round of four chunks, and after it a whole chunk and one that is smaller.
    chunks_of_three(monkeypatch)
    check_dense(equation, x_shape, kernel_shape, networks.POSITIONS, "right", size=16)


def check_convolution(x_shape, kernel_shape, rule, layout=None, groups=1, size=5, **settings):
    """For x (images, channels, *space) and a kernel (columns, channels per group, *window)."""
    window = kernel_shape[2:]
    space = "DHW"[-len(window) :] if window else ""
    x_layout, kernel_layout, y_layout = layout or (f"NC{space}", f"OI{space}", f"NC{space}")
    ones = [1] * len(window)
    settings = {
        "window_strides": ones,
        "padding": [(0, 0)] * len(window),
        "lhs_dilation": ones,
        "rhs_dilation": ones,
    } | settings

    # JAX takes the settings of the axes of space in the order that the kernel has them in.
    order = [space.index(letter) for letter in kernel_layout if letter in space]
    reordered: dict[str, Any] = {
        name: [values[axis] for axis in order] for name, values in settings.items()
    }

    def moved(array, source, target):
        return jnp.transpose(array, [source.index(letter) for letter in target])

    def operation(x, kernel):
        y = jax.lax.conv_general_dilated(
            moved(x, f"NC{space}", x_layout),
            moved(kernel, f"OI{space}", kernel_layout),
            dimension_numbers=(x_layout, kernel_layout, y_layout),
            feature_group_count=groups,
            **reordered,
        )
        return moved(y, y_layout, f"NC{space}")

    gradient_fn = functools.partial(
        oracle_kernels.convolution_kernel_gradient,
        window=window,
        groups=groups,
        **settings,
    )
    kernel = networks.batch_of(*kernel_shape, seed=1)
    check(operation, networks.batch_of(size, *x_shape), kernel, gradient_fn, rule)


CONVOLUTIONS = {
    "one axis of space": ((1, 2, 5), (3, 2, 2), {}),
    "two axes": ((1, 2, 4, 3), (2, 2, 3, 2), {}),
    "three axes": ((1, 2, 3, 2, 4), (2, 2, 2, 1, 3), {"window_strides": [1, 2, 1]}),
    "no axis of space": ((2, 3), (2, 3), {}),
    "several images in a sample": ((3, 2, 3), (2, 2, 2), {}),
    "one position": ((1, 2, 3, 2), (4, 2, 3, 2), {}),
    "strides": ((1, 1, 7, 6), (2, 1, 3, 2), {"window_strides": [2, 3]}),
    "strides that leave a rest": ((1, 1, 8), (2, 1, 2), {"window_strides": [3]}),
    "padding": ((1, 2, 3, 3), (2, 2, 3, 2), {"padding": [(1, 2), (0, 3)]}),
    "padding wider than the window": ((1, 1, 2), (2, 1, 2), {"padding": [(4, 3)]}),
    "negative padding": ((1, 2, 6, 5), (2, 2, 2, 2), {"padding": [(-1, -2), (2, -1)]}),
    "dilated kernel": ((1, 2, 7, 5), (2, 2, 3, 2), {"rhs_dilation": [2, 3]}),
    "dilated input": (
        (1, 2, 3, 2),
        (2, 2, 2, 3),
        {"lhs_dilation": [2, 3], "padding": [(1, 1), (2, 0)]},
    ),
    "dilated input, cropped": (
        (1, 1, 4),
        (2, 1, 2),
        {"lhs_dilation": [3], "padding": [(-2, -1)], "window_strides": [2]},
    ),
    "all at once": (
        (2, 4, 5, 4),
        (4, 2, 2, 3),
        {
            "groups": 2,
            "window_strides": [2, 1],
            "padding": [(2, -1), (1, 1)],
            "lhs_dilation": [2, 1],
            "rhs_dilation": [3, 2],
        },
    ),
    "groups": ((1, 6, 4), (6, 2, 2), {"groups": 3}),
    "groups of one column": ((1, 4, 3, 3), (2, 2, 2, 2), {"groups": 2}),
    "channels last": ((1, 2, 4, 3), (3, 2, 2, 2), {"layout": ("NHWC", "HWIO", "NHWC")}),
    "a layout of its own": (
        (2, 2, 4, 3),
        (3, 2, 2, 2),
        {"layout": ("HCNW", "WOHI", "CWNH"), "window_strides": [2, 1]},
    ),
    "groups, channels last": (
        (1, 4, 4, 3),
        (6, 2, 2, 2),
        {"layout": ("NHWC", "HWIO", "NHWC"), "groups": 2},
    ),
}


@pytest.mark.parametrize("case", CONVOLUTIONS)
def test_convolution(case):
    x_shape, kernel_shape, settings = CONVOLUTIONS[case]
    check_convolution(x_shape, kernel_shape, networks.CONVOLUTION, **settings)


@pytest.mark.parametrize("case", ["two axes", "groups, channels last"])
def test_convolution_in_chunks(monkeypatch, case):
    chunks_of_three(monkeypatch)
    x_shape, kernel_shape, settings = CONVOLUTIONS[case]
    check_convolution(x_shape, kernel_shape, networks.CONVOLUTION, size=16, **settings)


@pytest.mark.parametrize("multiplier", [1, 2])
@pytest.mark.parametrize("layout", [None, ("NHWC", "HWIO", "NHWC"), ("CHWN", "IWHO", "HNWC")])
def test_depthwise_convolution(multiplier, layout):
    settings = {
        "layout": layout,
        "groups": 3,
        "padding": [(1, 0), (0, 2)],
        "window_strides": [2, 1],
    }
    shape = (3 * multiplier, 1, 2, 3)
    check_convolution((1, 3, 4, 3), shape, networks.DEPTHWISE, **settings)


def test_depthwise_convolution_over_three_axes():
    settings = {"groups": 2, "rhs_dilation": [1, 2, 1], "lhs_dilation": [1, 1, 2]}
    check_convolution((2, 2, 2, 3, 3), (2, 1, 2, 2, 3), networks.DEPTHWISE, **settings)


@pytest.mark.parametrize("transpose_kernel", [False, True])
@pytest.mark.parametrize("padding", ["SAME", "VALID"])
def test_transposed_convolution(padding, transpose_kernel):
    # It scatters: x at s adds x_s · kernel to the output at s · stride + tap, minus what is cut off
    # in front; flipped for the kernel of a gradient, which it was not made for.
    x, kernel = networks.batch_of(3, 1, 4, 2), networks.batch_of(3, 2, 2, seed=1)
    stride, window = 2, 3

    def operation(x, kernel):
        return jax.lax.conv_transpose(
            x, kernel, (stride,), padding, transpose_kernel=transpose_kernel,
            dimension_numbers=("NHC", "HIO", "NHC"),
        )  # fmt: skip

    def gradient_fn(x, dy):
        cut = 0 if padding == "VALID" else (window - stride) // 2
        gradient = np.zeros((window, 2, 2))
        for s in range(4):
            for tap in range(window):
                place = s * stride + tap - cut
                if 0 <= place < dy.shape[1]:
                    at = tap if transpose_kernel else window - 1 - tap
                    outer = np.outer(x[0, s], dy[0, place])
                    gradient[at] += outer.T if transpose_kernel else outer
        return gradient

    check(operation, x, kernel, gradient_fn, networks.CONVOLUTION)


TOKENS = np.array([[[0, 3, 3, 1], [3, 0, 3, 3]], [[2, 2, 2, 2], [2, 2, 2, 2]]], np.int32)


def check_lookup(mode, tokens, out_of_bounds, table_shape=(5, 2), lookup=None):
    def operation(x, table):
        if lookup is not None:
            return lookup(table, x)
        # A fill value of 0: the NaN that is the default would make the sample not finite.
        return table.at[x].get(mode=mode, fill_value=0, wrap_negative_indices=False)

    gradient_fn = functools.partial(
        oracle_kernels.lookup_kernel_gradient,
        table_shape=table_shape,
        out_of_bounds=out_of_bounds,
    )
    table = networks.batch_of(*table_shape, seed=1)
    check(operation, tokens, table, gradient_fn, networks.EMBEDDING)


@pytest.mark.parametrize("table_shape", [(5,), (5, 2), (5, 2, 3)])
def test_embedding_of_repeated_tokens(table_shape):
    check_lookup("fill", TOKENS, "drop", table_shape)


@pytest.mark.parametrize("shape", [(4,), (4, 1), (4, 2, 1, 3)])
def test_embedding_of_one_token_and_of_arrays_of_tokens(shape):
    check_lookup("fill", networks.tokens_of(*shape, vocabulary=5), "drop")


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int32])
@pytest.mark.parametrize(
    ("mode", "out_of_bounds"), [("fill", "drop"), ("drop", "drop"), ("clip", "clip")]
)
def test_embedding_out_of_bounds(mode, out_of_bounds, dtype):
    highest = np.iinfo(dtype).max
    tokens = np.array([[5, 4, 6, 0], [highest, 1, highest - 1, 4]], dtype)
    check_lookup(mode, tokens, out_of_bounds)


@pytest.mark.parametrize("dtype", [np.int8, np.int32])
@pytest.mark.parametrize(("mode", "out_of_bounds"), [("fill", "drop"), ("clip", "clip")])
def test_embedding_of_negative_tokens(mode, out_of_bounds, dtype):
    lowest = np.iinfo(dtype).min
    tokens = np.array([[-1, 0, -1, 4], [-5, -6, lowest, 1]], dtype)
    check_lookup(mode, tokens, out_of_bounds)


def test_embedding_of_more_rows_than_the_tokens_can_count():
    # In int8, row number 130 (none of the table's, which is where dropped tokens go) is −126.
    tokens = np.array([[127, -1, 4, -126], [4, 4, 0, -2]], np.int8)
    numbers = jax.lax.GatherDimensionNumbers((1,), (0,), (0,))

    def lookup(table, tokens):  # jnp's own indexing would make int32 of them
        return jax.lax.gather(table, tokens[:, None], numbers, (1, 1), mode="fill", fill_value=0)

    check_lookup("fill", tokens, "drop", (130, 1), lookup)


def test_embedding_promised_in_bounds():
    check_lookup("promise_in_bounds", TOKENS[0], "drop")


def test_embedding_by_negative_numbers_that_count_from_the_end():
    tokens = np.array([[-1, 4, 0, -5], [-2, -2, 3, 3]], np.int32)

    def gradient_fn(tokens, dy):
        return oracle_kernels.lookup_kernel_gradient(tokens % 5, dy, (5, 2), "drop")

    kernel = networks.batch_of(5, 2, seed=1)
    check(lambda x, table: table[x], tokens, kernel, gradient_fn, networks.EMBEDDING)


@pytest.mark.parametrize("offset_axes", [(0,), (1,), (2,)])
def test_embedding_with_the_row_at_any_axis_of_the_output(offset_axes):
    # `gather` may put the axis of a row in front of those of the indices.
    batch_axes = [axis for axis in range(3) if axis not in offset_axes]

    def operation(x, table):
        y = jax.lax.gather(
            table,
            x[..., None],
            jax.lax.GatherDimensionNumbers(offset_axes, (0,), (0,)),
            (1, 2),
            mode="clip",
        )
        return jnp.transpose(y, (*batch_axes, *offset_axes))

    gradient_fn = functools.partial(
        oracle_kernels.lookup_kernel_gradient, table_shape=(5, 2), out_of_bounds="clip"
    )
    table = networks.batch_of(5, 2, seed=1)
    check(operation, TOKENS, table, gradient_fn, networks.EMBEDDING)
