"""Ω in fewer bytes: how far it is from what it was, and what never happens."""

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

import mas_jax
from mas_jax import importance_codes
from mas_jax.anchor import Anchor
from mas_jax.entries import Entries
from mas_jax.errors import CheckpointCorruptError, NonFiniteError
from mas_jax.importance_codes import BLOCK, OCTAVES, decoded, encoded
from mas_jax.store import AnchorStore

LARGEST = float(np.finfo(np.float32).max)
HALF_STEP = 2 ** (OCTAVES / 254 / 2) - 1  # 3.33 %

# Exponents are uniform, as Ω's nearly are; and the ends of what float32 holds.
importances = arrays.arrays(
    np.float32,
    arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=20),
    elements=st.one_of(
        st.just(0.0),
        st.floats(0, LARGEST, width=32),
        st.floats(-40, 5).map(lambda exponent: float(np.float32(10.0**exponent))),
    ),
)


def _there_and_back(omega, code):
    stored, scales = encoded(omega, code)
    restored = decoded(stored, scales, code)
    assert stored.shape == restored.shape == omega.shape
    assert restored.dtype == np.float32
    return restored.astype(np.float64)


def _largest_of_blocks(omega):
    """For each entry the largest of its block."""
    flat = np.pad(omega.reshape(-1), (0, -omega.size % BLOCK)).reshape(-1, BLOCK)
    largest = np.repeat(flat.max(axis=1, initial=0), BLOCK)[: omega.size]
    return largest.reshape(omega.shape).astype(np.float64)


@given(importances)
def test_exact_is_bit_for_bit(omega):
    stored, scales = encoded(omega, "exact")
    assert stored is omega
    assert scales is None


@given(importances)
def test_bfloat16_is_within_its_bound(omega):
    restored, exact = _there_and_back(omega, "bfloat16"), omega.astype(np.float64)
    assert np.isfinite(restored).all()
    assert (restored >= 0).all()
    assert (restored[omega == 0] == 0).all()
    largest = float(ml_dtypes.finfo(ml_dtypes.bfloat16).max)
    assert (restored[exact > largest] == largest).all()
    # 2⁻¹³⁴ is half a step of subnormal numbers.
    bound = np.maximum(2.0**-8 * exact, 2.0**-134)
    assert (np.abs(restored - exact) <= bound)[exact <= largest].all()


@given(importances)
def test_log8_is_within_its_bound(omega):
    restored, exact = _there_and_back(omega, "log8"), omega.astype(np.float64)
    largest = _largest_of_blocks(omega)
    assert np.isfinite(restored).all()
    assert (restored <= largest).all()
    assert ((restored == 0) == (omega == 0)).all()
    assert (restored[omega == largest] == largest[omega == largest]).all()
    floor = largest * 2.0**-OCTAVES
    near = exact >= floor
    subnormal = float(np.finfo(np.float32).smallest_subnormal) / 2
    error = np.abs(restored - exact)
    assert (error <= HALF_STEP * 1.000001 * exact + subnormal)[near].all()
    # What lies farther below becomes the lowest there is, which is no less than it was.
    assert (restored >= exact)[~near].all()
    assert (restored <= floor * 1.000001 + subnormal)[~near].all()


@pytest.mark.parametrize("size", [BLOCK - 1, BLOCK, BLOCK + 1, 8192 * BLOCK + 130])
def test_blocks_begin_and_end_where_they_should(size):
    # Every block has values of its own order: a scale in the wrong place is far off.
    omega = (10.0 ** (np.arange(size) // BLOCK % 30 - 20)).astype(np.float32)
    stored, scales = encoded(omega, "log8")
    assert scales is not None
    assert scales.size == -(-size // BLOCK)
    np.testing.assert_array_equal(decoded(stored, scales, "log8"), omega)


def test_negative_zero_is_a_zero():
    for code in ("bfloat16", "log8"):
        restored = _there_and_back(np.array([-0.0, 1.0], np.float32), code)
        assert restored.tolist() == [0, 1]


PARAMS = {"w": jnp.arange(300.0).reshape(20, 15), "e": jnp.zeros((0, 3)), "s": jnp.ones(())}
OMEGA = jax.tree.map(lambda leaf: jnp.exp(-leaf / 30), PARAMS)


@pytest.mark.parametrize(("code", "version"), [("exact", 1), ("bfloat16", 2), ("log8", 2)])
def test_a_store_gives_back_float32_and_theta_exactly(tmp_path, code, version):
    store = AnchorStore(tmp_path)
    store.save("birds", Anchor(PARAMS, OMEGA), objective="x", num_samples=1, importance_as=code)
    restored = store.restore("birds", like=PARAMS)
    jax.tree.map(np.testing.assert_array_equal, restored.params, PARAMS)
    for name, omega in OMEGA.items():
        wanted = _there_and_back(np.asarray(omega), code)
        np.testing.assert_array_equal(restored.importance[name], wanted)
        assert restored.importance[name].dtype == jnp.float32
    # Readers that know "exact" alone are told by the version, and read the rest.
    assert store.metadata("birds")["format_version"] == version


@pytest.mark.parametrize("tree", ["importance", "scales"])
def test_damage_to_what_is_stored_is_refused(tmp_path, monkeypatch, tree):
    store = AnchorStore(tmp_path)
    store.save("birds", Anchor(PARAMS, OMEGA), objective="x", num_samples=1, importance_as="log8")
    read = Entries._arrays

    def damaged(*arguments):
        arrays = read(*arguments)
        number = str(list(PARAMS).index("w"))
        number = next(n for n, value in arrays[tree].items() if value.size > 1)
        value = arrays[tree][number].copy()
        value.reshape(-1).view(np.uint8)[0] ^= 1
        return {**arrays, tree: {**arrays[tree], number: value}}

    monkeypatch.setattr(Entries, "_arrays", damaged)
    with pytest.raises(CheckpointCorruptError, match=r"importance\['w'\] of task 'birds'"):
        store.restore("birds", like=PARAMS)


def test_other_codes_and_dtypes_are_refused(tmp_path):
    store = AnchorStore(tmp_path)
    with pytest.raises(
        ValueError, match="importance_as must be one of 'exact', 'bfloat16', 'log8'"
    ):
        store.save(
            "birds", Anchor(PARAMS, OMEGA), objective="x", num_samples=1, importance_as="int4"
        )
    wide = Anchor({"w": np.ones(2)}, {"w": np.ones(2)})
    with pytest.raises(TypeError, match=r"importance\['w'\] is float64, and importance_as='log8'"):
        store.save("wide", wide, objective="x", num_samples=1, importance_as="log8")
    assert importance_codes.STORED_DTYPES.keys() == {"bfloat16", "log8"}


# What is rounded once


@pytest.mark.parametrize("code", ["bfloat16", "log8"])
@given(omega=importances)
def test_rounding_twice_is_rounding_once(code, omega):
    once = decoded(*encoded(omega, code), code)
    twice = decoded(*encoded(once, code), code)
    assert once.tobytes() == twice.tobytes()


@pytest.mark.parametrize("largest", [1, 7, 100, 2**22])
def test_rounding_twice_is_rounding_once_among_subnormal_numbers(largest):
    # All multiples of the smallest float32 up to so many: float32 itself rounds coarsely there.
    steps = np.unique(np.linspace(0, largest, 4096).astype(np.uint32))
    omega = np.append(steps, largest).astype(np.uint32).view(np.float32)
    once = decoded(*encoded(omega, "log8"), "log8")
    np.testing.assert_array_equal(decoded(*encoded(once, "log8"), "log8"), once)


@pytest.mark.parametrize("code", ["exact", "bfloat16", "log8"])
def test_as_stored_is_what_the_store_gives_back_bit_for_bit(tmp_path, code):
    anchor = Anchor(PARAMS, OMEGA)
    rounded = mas_jax.as_stored(anchor, code)
    for name, kept in (("rounded", rounded), ("as it was", anchor)):
        store = AnchorStore(tmp_path / name)
        store.save("birds", kept, objective="x", num_samples=1, importance_as=code)
        restored = store.restore("birds", like=PARAMS)
        jax.tree.map(np.testing.assert_array_equal, restored, rounded)
    is_same = jax.tree.map(lambda a, b: bool((a == b).all()), rounded.importance, OMEGA)
    assert is_same["w"] == (code == "exact")


def test_as_stored_leaves_arrays_where_they_are_and_masks_what_is_masked():
    device = jax.devices()[-1]
    on_device = jax.device_put(OMEGA["w"], device)
    masked = optax.MaskedNode()
    anchor = Anchor({"w": PARAMS["w"], "head": masked}, {"w": on_device, "head": masked})
    rounded = mas_jax.as_stored(anchor, "log8")
    assert rounded.params is anchor.params
    assert rounded.importance["head"] == masked
    leaf = rounded.importance["w"]
    assert (leaf.sharding, leaf.committed) == (on_device.sharding, on_device.committed)
    assert leaf.committed
    assert not mas_jax.as_stored(Anchor(PARAMS, OMEGA), "log8").importance["w"].committed


@pytest.mark.parametrize(
    ("leaf", "code", "error", "message"),
    [
        (jnp.ones(2), "int4", ValueError, "importance_as must be one of 'exact', 'bfloat16'"),
        (np.ones(2), "log8", TypeError, r"importance\['w'\] is float64, and importance_as='log8'"),
        (jnp.array([1.0, jnp.nan]), "log8", NonFiniteError, r"importance\['w'\] has NaN"),
        (-jnp.ones(2), "bfloat16", ValueError, r"importance\['w'\] has negative"),
    ],
)
def test_as_stored_refuses_what_cannot_be_stored_so(leaf, code, error, message):
    with pytest.raises(error, match=message):
        mas_jax.as_stored(Anchor({"w": jnp.ones(2)}, {"w": leaf}), code)
