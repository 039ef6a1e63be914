"""Where the fused engine stops: what it refuses, what it bounds, what options it takes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh

import mas_jax
from mas_jax import engines, trees
from mas_jax.fused import convolution, products
from mas_jax.fused.engine import fused_engine
from mas_jax.objectives import squared_l2_norm
from mas_jax.per_sample import vmap_engine

BATCH = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
PARAMS = {"w": np.random.default_rng(1).normal(size=(4, 3)).astype(np.float32)}


def jvp_over_the_sample(params, x):
    mask = (x[:, :3] > 0).astype(x.dtype)

    @jax.custom_jvp
    def masked(y):
        return y * mask

    masked.defjvp(lambda primals, tangents: (masked(*primals), tangents[0] * mask))
    return masked(x @ params["w"])


def vjp_over_the_sample(params, x):
    @jax.custom_vjp
    def scaled(y):
        return 2.0 * y

    scaled.defvjp(lambda y: (2.0 * y, None), lambda _, dy: (dy * x[:, :3],))
    return scaled(x @ params["w"])


@pytest.mark.parametrize("apply_fn", [jvp_over_the_sample, vjp_over_the_sample])
def test_a_rule_of_differentiation_that_closes_over_the_sample(apply_fn):
    estimator = mas_jax.importance_estimator(apply_fn, engine="fused")
    with pytest.raises(mas_jax.EngineError, match="closes over numbers computed from the sample"):
        estimator.update(estimator.init(PARAMS), PARAMS, BATCH)
    engines._warn_once.cache_clear()
    with pytest.warns(mas_jax.EngineWarning, match="closes over numbers"):
        omega = mas_jax.estimate_importance(apply_fn, PARAMS, [BATCH])
    wanted = mas_jax.estimate_importance(apply_fn, PARAMS, [BATCH], engine="vmap")
    np.testing.assert_allclose(omega["w"], wanted["w"], rtol=1e-6)


def test_a_rule_that_closes_over_something_else_is_fine():
    estimated = {}
    for engine in ("fused", "vmap"):

        @jax.jit
        def scaled_omega(scale, engine=engine):
            @jax.custom_vjp
            def scaled(y):
                return scale * y

            scaled.defvjp(lambda y: (scale * y, None), lambda _, dy: (scale * dy,))
            estimator = mas_jax.importance_estimator(
                lambda params, x: scaled(x @ params["w"]), engine=engine
            )
            return estimator.finalize(estimator.update(estimator.init(PARAMS), PARAMS, BATCH))

        estimated[engine] = scaled_omega(3.0)["w"]
    np.testing.assert_allclose(estimated["fused"], estimated["vmap"], rtol=1e-5)


def rule_of_window(window, groups):
    """The rule's name, or why there is none, for a kernel with this window."""
    channels = 2 * groups
    params = {"kernel": jax.ShapeDtypeStruct((*window, channels // groups, channels), jnp.float32)}
    space = "HWD"[: len(window)]

    def apply_fn(params, x):
        numbers = (f"N{space}C", f"{space}IO", f"N{space}C")
        return jax.lax.conv_general_dilated(
            x,
            params["kernel"],
            (1,) * len(window),
            "SAME",
            dimension_numbers=numbers,
            feature_group_count=groups,
        )

    batch = jax.ShapeDtypeStruct((2, *[4] * len(window), channels), jnp.float32)
    return mas_jax.explain(apply_fn, params, batch).leaves[0]


def test_a_window_too_large_to_write_out_falls_back():
    limit = convolution.MAX_SLICES
    assert rule_of_window((limit,), 1).rule == "convolution"
    assert rule_of_window((limit // 2, limit // 2), 1).rule == "convolution"
    assert rule_of_window((limit + 1,), 1).reason == f"convolution with a window of {limit + 1}"


def test_a_depthwise_window_writes_out_every_tap():
    def reason(size):
        params = {"kernel": jax.ShapeDtypeStruct((size, size, 1, 3), jnp.float32)}
        explanation = mas_jax.explain(
            lambda params, x: jax.lax.conv_general_dilated(
                x,
                params["kernel"],
                (1, 1),
                "SAME",
                dimension_numbers=("NHWC", "HWIO", "NHWC"),
                feature_group_count=3,
            ),
            params,
            jax.ShapeDtypeStruct((2, 8, 8, 3), jnp.float32),
        )
        return explanation.leaves[0].reason

    assert reason(11) == "used once"
    assert reason(12) == "convolution with a window of 12×12"


@pytest.mark.parametrize("size", [7, 8, 9, 30])
@pytest.mark.parametrize("samples", [1, 2, 3])
def test_chunks_of_samples_as_on_an_accelerator(monkeypatch, samples, size):
    # Of one sample: a gradient of 4 × 3 and a factor of 6 × 4 numbers.
    monkeypatch.setattr(products, "CHUNK_BYTES", {"cpu": samples * 4 * (12 + 24)})
    batch = np.random.default_rng(2).normal(size=(size, 6, 4)).astype(np.float32)
    weights = np.linspace(0.0, 2.0, size, dtype=np.float32)

    def sums(build):
        engine = build(lambda params, x: jnp.tanh(x @ params["w"]), squared_l2_norm, jnp.abs)
        run = jax.jit(lambda batch: engine(PARAMS, trees.covered(PARAMS), batch, weights).sums)
        return run(batch)["w"]

    np.testing.assert_allclose(sums(fused_engine), sums(vmap_engine), rtol=1e-5)


def test_what_an_iteration_holds_is_bounded():
    # Patches of 784 × 144 numbers: 0.45 MB a sample, of which 8 fit, and 4 are enough.
    # At four times the area two fit, at sixteen times one.
    for side, samples in [(28, 4), (56, 2), (112, 1)]:
        params = {"kernel": jax.ShapeDtypeStruct((3, 3, 16, 8), jnp.float32)}
        explanation = mas_jax.explain(
            lambda params, x: jax.lax.conv_general_dilated(
                x, params["kernel"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
            ),
            params,
            jax.ShapeDtypeStruct((32, side, side, 16), jnp.float32),
        )
        per_sample = 4 * (9 * 16 * 8 + side * side * 9 * 16)
        assert explanation.leaves[0].memory == samples * per_sample


@pytest.mark.parametrize("strict", ["yes", -3, 2.5, None])
def test_strict_is_a_bool_or_a_size(strict):
    with pytest.raises(ValueError, match="strict must be True, False or a number of entries"):
        mas_jax.importance_estimator(jvp_over_the_sample, strict=strict)


def test_strict_needs_an_engine_with_rules():
    with pytest.raises(ValueError, match=r'strict is about .* got engine="vmap"'):
        mas_jax.importance_estimator(jvp_over_the_sample, strict=True, engine="vmap")


def test_under_strict_the_vmap_engine_is_not_tried():
    estimator = mas_jax.importance_estimator(jvp_over_the_sample, strict=True)
    with pytest.raises(mas_jax.EngineError):
        estimator.update(estimator.init(PARAMS), PARAMS, BATCH)


def test_a_mesh_has_the_axis_that_is_named():
    mesh = Mesh(np.array(jax.devices()[:1]), ("samples",))
    with pytest.raises(ValueError, match=r"mesh has no axis 'data', only 'samples'.*mesh_axis"):
        mas_jax.importance_estimator(jvp_over_the_sample, mesh=mesh)
    omega = mas_jax.estimate_importance(
        lambda params, x: x @ params["w"], PARAMS, [BATCH], mesh=mesh, mesh_axis="samples"
    )
    wanted = mas_jax.estimate_importance(lambda params, x: x @ params["w"], PARAMS, [BATCH])
    np.testing.assert_allclose(omega["w"], wanted["w"], rtol=1e-6)


def test_a_mesh_is_a_mesh():
    with pytest.raises(TypeError, match=r"mesh must be a jax.sharding.Mesh, got list"):
        mas_jax.importance_estimator(jvp_over_the_sample, mesh=jax.devices())


@pytest.mark.parametrize("platform", ["tpu", "cuda"])
def test_an_update_on_a_mesh_lowers(platform):
    mesh = Mesh(np.array(jax.devices()[:1]), ("data",))
    estimator = mas_jax.importance_estimator(lambda params, x: x @ params["w"], mesh=mesh)
    state = estimator.init(PARAMS)
    exported = jax.export.export(jax.jit(estimator.update), platforms=[platform])(
        state, PARAMS, BATCH
    )
    assert exported.platforms == (platform,)
