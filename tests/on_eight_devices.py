"""The estimator over a mesh of eight devices: run by test_data_parallel.py, which makes these."""

import contextlib
import functools
import re
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

import mas_jax
from mas_jax.engines import build_engine
from mas_jax.errors import EngineError
from mas_jax.options import checked_options
from mas_jax.per_sample import batch_totals
from tests import oracle

ENGINES = pytest.mark.parametrize("engine", ["fused", "vmap"])
AXIS_TYPES = pytest.mark.parametrize("axis_type", [AxisType.Auto, AxisType.Explicit], ids=str)

REPLICATED = P()
ALONG_MODEL = {"kernel": P(None, "model"), "bias": P("model")}
ALONG_DATA = {"kernel": P("data", None), "bias": P("data")}


def apply_fn(params, x):
    """Two dense layers with tanh between them, as oracle.forward computes them."""
    hidden = x @ params["layer0"]["kernel"] + params["layer0"]["bias"].reshape(1, -1)
    return jnp.tanh(hidden) @ params["layer1"]["kernel"] + params["layer1"]["bias"].reshape(1, -1)


@functools.cache
def network() -> tuple[Any, np.ndarray]:
    """An 8-16-8 network on the host, and 64 samples."""
    rng = np.random.default_rng(0)
    params = {
        f"layer{i}": {
            "kernel": rng.normal(size=sizes).astype(np.float32) / np.float32(np.sqrt(sizes[0])),
            "bias": 0.1 * rng.normal(size=sizes[1]).astype(np.float32),
        }
        for i, sizes in enumerate([(8, 16), (16, 8)])
    }
    return params, rng.normal(size=(64, 8)).astype(np.float32)


def mesh(axis_type: AxisType = AxisType.Auto, model: int = 1) -> Mesh:
    """Eight devices, `model` of them along a second axis."""
    if model == 1:
        return jax.make_mesh((8,), ("data",), axis_types=(axis_type,))
    return jax.make_mesh((8 // model, model), ("data", "model"), axis_types=(axis_type,) * 2)


def laid_out(params: Any, mesh: Mesh, specs: Any) -> Any:
    """The network's parameters on the mesh; `specs` for each layer, or for all leaves."""
    specs = dict.fromkeys(params, specs) if isinstance(specs, dict) else specs
    shardings = jax.tree.map(lambda spec: NamedSharding(mesh, spec), specs)
    return jax.device_put(params, shardings)


def assert_agree(got: Any, expected: Any, tolerance: float = 1e-6) -> None:
    """Equal to within `tolerance` of each leaf's largest entry."""
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * np.abs(b).max()),
        got,
        expected,
    )


@contextlib.contextmanager
def compilations() -> Iterator[list[str]]:
    """What XLA compiles meanwhile."""
    compiled = []

    def listener(event: str, _: float, **__: Any) -> None:
        if event.endswith("backend_compile_duration"):
            compiled.append(event)

    jax.monitoring.register_event_duration_secs_listener(listener)
    yield compiled
    jax.monitoring.unregister_event_duration_listener(listener)


def test_there_are_eight_devices() -> None:
    assert jax.device_count() == 8


# The same numbers as on one device


LAYOUTS = [
    pytest.param(1, None, id="on the host"),
    pytest.param(1, REPLICATED, id="replicated"),
    pytest.param(1, ALONG_DATA, id="sharded like the batch"),
    pytest.param(2, ALONG_MODEL, id="sharded along another axis"),
    pytest.param(2, ALONG_DATA, id="sharded like the batch, two axes"),
]


@pytest.mark.parametrize(
    ("engine", "axis_type"),
    [("fused", AxisType.Auto), ("fused", AxisType.Explicit), ("vmap", AxisType.Explicit)],
    ids=str,
)
@pytest.mark.parametrize(("model", "specs"), LAYOUTS)
def test_it_equals_the_result_of_one_device_and_compiles_once(
    engine, axis_type, model, specs
) -> None:
    params, x = network()
    devices = mesh(axis_type, model)
    given = params if specs is None else laid_out(params, devices, specs)
    estimator = mas_jax.importance_estimator(apply_fn, engine=engine, mesh=devices)
    state = estimator.update(estimator.init(given), given, x[:32])
    with compilations() as compiled:
        state = estimator.update(state, given, x[32:])
    assert not compiled
    omega = estimator.finalize(state)
    assert_agree(omega, expected_importance(engine))
    if specs is not None:
        jax.tree.map(assert_same_sharding, omega, given)


@functools.cache
def expected_importance(engine) -> Any:
    """That of one device."""
    params, x = network()
    return mas_jax.estimate_importance(apply_fn, params, [x[:32], x[32:]], engine=engine)


def assert_same_sharding(leaf: jax.Array, other: jax.Array) -> None:
    """Divided among the devices in the same way."""
    assert leaf.sharding.is_equivalent_to(other.sharding, leaf.ndim)


@ENGINES
def test_it_equals_the_oracle(engine) -> None:
    params, x = network()
    weights = np.linspace(0, 2, 13, dtype=np.float32)
    expected = oracle.importance(params, x[:13], list(weights))
    estimator = mas_jax.importance_estimator(apply_fn, engine=engine, mesh=mesh())
    state = estimator.update(estimator.init(params), params, x[:13], weights)
    assert_agree(estimator.finalize(state), expected, 1e-5)


@pytest.mark.parametrize(("engine", "microbatch_size"), [("fused", 3), ("vmap", 1)])
@pytest.mark.parametrize("option", [{}, {"magnitude": "square"}, {"reduction": "batch"}], ids=str)
def test_uneven_batches_and_microbatches_change_nothing(engine, microbatch_size, option) -> None:
    params, x = network()
    batches = [x[:1], x[1:28], x[28:]]
    options = {"engine": engine, **option}
    expected = mas_jax.estimate_importance(apply_fn, params, batches, **options)
    options |= {"mesh": mesh(), "microbatch_size": microbatch_size}
    omega = mas_jax.estimate_importance(apply_fn, params, batches, **options)
    assert_agree(omega, expected)


def test_weights_of_a_padded_batch_count() -> None:
    params, x = network()
    weights = np.array([1.0, 0.0, 3.0, 0.5, 2.0], np.float32)
    omegas = []
    for options in ({}, {"mesh": mesh()}):
        estimator = mas_jax.importance_estimator(apply_fn, **options)
        state = estimator.update(estimator.init(params), params, jnp.asarray(x[:5]), weights)
        state = estimator.update(state, params, x[5:10], jnp.asarray(weights))
        assert state.num_samples == 10
        omegas.append(estimator.finalize(state))
    assert_agree(*omegas)


@ENGINES
def test_keys_and_integers_may_be_in_a_batch(engine) -> None:
    params, x = network()

    def noisy_apply(params, batch):
        noise = jax.vmap(lambda key: jax.random.normal(key, (8,)))(batch["key"])
        return apply_fn(params, batch["x"] + noise) * batch["scale"].reshape(-1, 1)

    def batches() -> Iterator[Any]:
        for size in (16, 5):
            keys = jax.random.split(jax.random.key(size), size)
            yield {"x": x[:size], "key": keys, "scale": np.arange(size, dtype=np.int32)}

    expected = mas_jax.estimate_importance(noisy_apply, params, batches(), engine=engine)
    omega = mas_jax.estimate_importance(noisy_apply, params, batches(), engine=engine, mesh=mesh())
    assert_agree(omega, expected)


@AXIS_TYPES
def test_it_may_be_part_of_a_callers_jit_and_scan(axis_type) -> None:
    params, x = network()
    expected = mas_jax.estimate_importance(apply_fn, params, [x[:30], x[30:60]])
    estimator = mas_jax.importance_estimator(apply_fn, mesh=mesh(axis_type))

    @jax.jit
    def scanned(params, batches):
        def step(state, batch):
            return estimator.update(state, params, batch), None

        state, _ = jax.lax.scan(step, estimator.init(params), batches)
        return estimator.finalize(state)

    assert_agree(scanned(params, x[:60].reshape(2, 30, 8)), expected)
    replicated = laid_out(params, mesh(axis_type), REPLICATED)
    with jax.set_mesh(mesh(axis_type)):
        assert_agree(scanned(replicated, x[:60].reshape(2, 30, 8)), expected)


def test_apply_fn_may_close_over_what_is_traced() -> None:
    params, x = network()
    expected = mas_jax.estimate_importance(lambda p, x: 2.0 * apply_fn(p, x), params, [x])

    @jax.jit
    def traced(params, factor):
        return mas_jax.estimate_importance(
            lambda p, x: factor * apply_fn(p, x), params, [x], mesh=mesh()
        )

    assert_agree(traced(params, jnp.float32(2.0)), expected)


# What is compiled


@ENGINES
@AXIS_TYPES
def test_an_update_has_one_all_reduce_and_no_all_gather(engine, axis_type) -> None:
    params, x = network()
    devices = mesh(axis_type)
    estimator = mas_jax.importance_estimator(apply_fn, engine=engine, mesh=devices)
    replicated = laid_out(params, devices, REPLICATED)
    batch = jax.device_put(x, NamedSharding(devices, P("data")))
    lowered = jax.jit(estimator.update).lower(estimator.init(replicated), replicated, batch)
    text = lowered.compile().as_text()
    assert text is not None
    assert len(re.findall(r" all-reduce(?:-start)?\(", text)) == 1
    for collective in ("all-gather", "all-to-all", "collective-permute", "reduce-scatter"):
        assert collective not in text


@pytest.mark.parametrize("specs", [None, REPLICATED, ALONG_DATA], ids=str)
def test_a_callers_jit_compiles_once(specs) -> None:
    params, x = network()
    given = params if specs is None else laid_out(params, mesh(), specs)
    estimator = mas_jax.importance_estimator(apply_fn, mesh=mesh())
    update = jax.jit(estimator.update)
    state = update(estimator.init(given), given, x[:13])
    with compilations() as compiled:
        state = update(state, given, x[13:26])
    assert not compiled
    assert state.num_samples == 26


# Outputs


@AXIS_TYPES
@pytest.mark.parametrize("size", [16, 3])
def test_outputs_are_those_of_the_real_rows(axis_type, size) -> None:
    params, x = network()
    devices = mesh(axis_type)
    estimator = mas_jax.importance_estimator(
        lambda params, x: {"logits": apply_fn(params, x), "first": x[:, 0]},
        objective=lambda outputs: mas_jax.squared_l2_norm(outputs["logits"]),
        mesh=devices,
    )
    outputs, state = estimator.predict_and_update(estimator.init(params), params, x[:size])
    np.testing.assert_allclose(outputs["logits"], apply_fn(params, x[:size]), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(outputs["first"], x[:size, 0])
    assert state.num_samples == size
    if size == 16:
        split = NamedSharding(devices, P("data"))
        assert outputs["logits"].sharding.is_equivalent_to(split, 2)


# Samples that are not finite


@ENGINES
@pytest.mark.parametrize("bad", [[0], [7, 9], [12]], ids=str)
def test_the_first_sample_that_is_not_finite_is_named(engine, bad) -> None:
    params, clean = network()
    x = clean[:13].copy()
    x[bad] = np.nan
    named = f"sample {13 + bad[0]} of the stream"
    options = {"engine": engine, "mesh": mesh()}
    estimator = mas_jax.importance_estimator(apply_fn, **options)
    state = estimator.update(estimator.init(params), params, clean[:13])
    with pytest.raises(mas_jax.NonFiniteError, match=named):
        estimator.finalize(estimator.update(state, params, x))
    with pytest.raises(mas_jax.NonFiniteError, match=named):
        mas_jax.estimate_importance(apply_fn, params, [clean[:13], x], **options)


@ENGINES
def test_samples_that_are_not_finite_may_be_skipped(engine) -> None:
    # The last row is copied to fill the batch up.
    params, clean = network()
    x = clean[:13].copy()
    x[[4, 12]] = np.nan
    expected = mas_jax.estimate_importance(apply_fn, params, [np.delete(x, [4, 12], axis=0)])
    omega = mas_jax.estimate_importance(
        apply_fn, params, [x], on_nonfinite="skip", engine=engine, mesh=mesh()
    )
    assert_agree(omega, expected)


# Where the arguments lie


def test_what_lies_on_one_device_is_brought_to_the_mesh() -> None:
    params, x = network()
    expected = mas_jax.estimate_importance(apply_fn, params, [x])

    def scaled(scale, params, x):
        return apply_fn(params, x) * scale

    one = jax.devices()[3]
    call = jax.tree_util.Partial(scaled, jax.device_put(np.float32(1.0), one))
    given, batch = jax.device_put((params, x), one)
    estimator = mas_jax.importance_estimator(call, mesh=mesh())
    state = estimator.update(estimator.init(given), given, batch)
    assert_agree(estimator.finalize(state), expected)
    # As restored from a checkpoint: NumPy arrays, or arrays on one device.
    for restored in (jax.device_get(state), jax.device_put(jax.device_get(state), one)):
        again = estimator.update(restored, given, batch)
        assert again.num_samples == 128
        assert_agree(estimator.finalize(again), expected)


def test_arrays_on_other_devices_are_refused() -> None:
    params, x = network()
    half = Mesh(np.array(jax.devices()[:4]), ("data",))
    elsewhere = laid_out(params, half, REPLICATED)
    estimator = mas_jax.importance_estimator(apply_fn, mesh=mesh())
    state = estimator.init(params)
    where = re.escape("['layer0']['bias'] lies on 4 devices that are not the 8 of mesh")
    with pytest.raises(ValueError, match="^params" + where):
        estimator.init(elsewhere)
    with pytest.raises(ValueError, match="^params" + where):
        estimator.update(state, elsewhere, x)
    batch = jax.device_put(x, NamedSharding(half, P("data")))
    with pytest.raises(ValueError, match=r"^batch lies on 4 devices"):
        estimator.update(state, params, batch)


@AXIS_TYPES
def test_explicit_axes_and_automatic_ones_do_not_mix(axis_type) -> None:
    params, x = network()
    other = AxisType.Auto if axis_type is AxisType.Explicit else AxisType.Explicit
    given = laid_out(params, mesh(other), REPLICATED)
    with pytest.raises(ValueError, match=r"^params\['layer0'\]\['bias'\] .* must be one mesh"):
        mas_jax.estimate_importance(apply_fn, given, [x], mesh=mesh(axis_type))


@pytest.mark.parametrize("wrap", [lambda fn: fn, jax.jit], ids=["eager", "jit"])
def test_a_batch_that_does_not_divide_is_refused_without_padding(wrap) -> None:
    params, x = network()
    estimator = mas_jax.importance_estimator(apply_fn, mesh=mesh(), pad_batch=False)
    update = wrap(estimator.update)
    state = update(estimator.init(params), params, x[:16])
    assert state.num_samples == 16
    with pytest.raises(
        ValueError, match=r"batch has 13 samples, .* pass a multiple of 8, or leave"
    ):
        update(state, params, x[:13])


# The trap: under check_vma=True JAX sums a shared parameter's gradient over devices by itself.


def line(params, x):
    """F = x · w + b."""
    return x @ params["w"] + params["b"].reshape(1, 1)


# At w = (0, 1) and b = 0, a sample x = (1, s) with s = ±1 has F = s and the gradient
# 2F (1, s, 1) = 2 (s, 1, s), so that Ω = (2, 2, 2). Each of the 8 devices has one sample, every
# second one with s = −1: summed over devices first, the gradient is (0, 16, 0) on each of them,
# and |·|, once more added up and divided by 8 samples, is (0, 16, 0).
LINE = {"w": np.array([[0.0], [1.0]], np.float32), "b": np.zeros(1, np.float32)}
SIGNS = np.array([[1.0, 1.0], [1.0, -1.0]] * 4, np.float32)
RIGHT = {"w": np.array([[2.0], [2.0]]), "b": np.array([2.0])}
WRONG = {"w": np.array([[0.0], [16.0]]), "b": np.array([0.0])}


def by_hand(engine: str, check_vma: bool) -> Any:
    """Ω as one would write it: each device's sums, then a psum."""
    build = build_engine(line, checked_options(engine=engine))
    covered = {"w": True, "b": True}

    def local(params, x):
        sums = batch_totals(build, params, covered, x, jnp.ones(len(x))).sums
        return jax.tree.map(lambda leaf: leaf / 8.0, jax.lax.psum(sums, "data"))

    spread = functools.partial(
        jax.shard_map, mesh=mesh(), in_specs=(P(), P("data")), out_specs=P(), check_vma=check_vma
    )
    return jax.jit(spread(local))(LINE, SIGNS)


@ENGINES
def test_the_mesh_takes_magnitudes_before_it_sums(engine) -> None:
    omega = mas_jax.estimate_importance(line, LINE, [SIGNS], engine=engine, mesh=mesh())
    jax.tree.map(np.testing.assert_array_equal, omega, RIGHT)
    jax.tree.map(np.testing.assert_array_equal, by_hand(engine, check_vma=False), RIGHT)


def test_check_vma_would_sum_before_magnitudes() -> None:
    jax.tree.map(np.testing.assert_array_equal, by_hand("vmap", check_vma=True), WRONG)
    with pytest.raises(EngineError, match="V:data"):
        by_hand("fused", check_vma=True)


@ENGINES
def test_update_inside_a_callers_shard_map_is_right_or_refused(engine) -> None:
    estimator = mas_jax.importance_estimator(line, engine=engine)

    def local(params, x):
        sums = estimator.update(estimator.init(params), params, x).sums.value[0]
        return jax.tree.map(lambda leaf: leaf / 8.0, jax.lax.psum(sums, "data"))

    spread = functools.partial(jax.shard_map, mesh=mesh(), in_specs=(P(), P("data")), out_specs=P())
    unchecked = jax.jit(spread(local, check_vma=False))(LINE, SIGNS)
    jax.tree.map(np.testing.assert_array_equal, unchecked, RIGHT)
    with pytest.raises(ValueError, match=r"check_vma=True, params\['b'\] .* along 'data'.* mesh="):
        jax.jit(spread(local))(LINE, SIGNS)
