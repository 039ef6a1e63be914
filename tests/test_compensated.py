"""Compensated sums: what float32 rounding takes from a long sum is kept."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mas_jax import compensated

pytestmark = pytest.mark.usefixtures("strict_dtypes")

add = jax.jit(compensated.add)
FLOAT32 = st.floats(-1e6, 1e6, width=32, allow_subnormal=False)


def summed(terms, *, add=add):
    total = compensated.zeros(jnp.zeros((), jnp.float32))
    for term in terms:
        total = add(total, jnp.asarray(term, jnp.float32))
    return total


@given(st.lists(FLOAT32, min_size=1, max_size=30))
def test_sum_agrees_with_an_exact_sum(terms):
    exact = math.fsum(float(np.float32(term)) for term in terms)
    # The residue is itself a float32 sum, of numbers some 2⁻²⁴ of the sum's size: what is lost
    # is of the order of 2⁻⁴⁸ of the terms, and the rounding of the result.
    bound = abs(exact) * 2.0**-23 + 30 * 2.0**-46 * math.fsum(map(abs, terms))
    assert abs(float(compensated.total(summed(terms))) - exact) <= bound


def test_a_million_small_numbers_are_not_lost_beside_a_large_one():
    # 2²⁴ + 1 is no float32, so that a plain sum stays at 2²⁴ whatever is added one by one.
    start = summed([2.0**24])
    end = jax.lax.fori_loop(0, 10**6, lambda _, total: compensated.add(total, jnp.ones(())), start)
    assert float(compensated.total(end)) == 2.0**24 + 10**6


@pytest.mark.parametrize("term", [0.1, 0.256, 1 / 3, 1e-3])
def test_a_million_equal_terms_stay_within_a_millionth(term):
    # Equal terms lose the same bits again and again, so that a residue that is only added up
    # drifts, too: 0.256 then ends 6e-5 off.
    term = jnp.float32(term)
    end = jax.lax.fori_loop(0, 10**6, lambda _, total: compensated.add(total, term), summed([]))
    np.testing.assert_allclose(compensated.total(end), 10**6 * np.float64(term), rtol=1e-7)


def test_value_and_residue_together_are_exact():
    # 1 + 2⁻³⁰ does not fit into one float32; the two parts hold it exactly.
    total = summed([1.0, 2.0**-30])
    assert float(total.value) + float(total.residue) == 1.0 + 2.0**-30


@given(st.permutations(list(range(12))))
def test_order_of_the_terms_changes_rounding_only(order):
    terms = np.random.default_rng(0).normal(size=12).astype(np.float32) * 10.0 ** np.arange(-6, 6)
    shuffled = compensated.total(summed(terms[order]))
    np.testing.assert_allclose(shuffled, compensated.total(summed(terms)), rtol=2.0**-22)


def test_jit_changes_nothing_and_compiles_once():
    terms = np.random.default_rng(1).normal(size=20).astype(np.float32)
    jitted = jax.jit(lambda total, term: compensated.add(total, term))
    jit, plain = summed(terms, add=jitted), summed(terms, add=compensated.add)
    np.testing.assert_array_equal(jit.value, plain.value)
    np.testing.assert_array_equal(jit.residue, plain.residue)
    assert jitted._cache_size() == 1


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.float32])
def test_zeros_are_float32_zeros_in_the_structure_of_the_terms(dtype):
    like = {"a": jnp.ones((2, 3), dtype), "b": [jnp.ones((), dtype)]}
    empty = compensated.zeros(like)
    assert jax.tree.structure(empty.value) == jax.tree.structure(like)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(empty))
    for leaf, zero in zip(jax.tree.leaves(like), jax.tree.leaves(empty.value), strict=True):
        np.testing.assert_array_equal(zero, np.zeros(leaf.shape))
    assert all(not leaf.any() for leaf in jax.tree.leaves(compensated.total(empty)))


def test_float64_stays_float64():
    with jax.enable_x64(True):
        total = compensated.add(compensated.zeros(jnp.zeros(2)), jnp.full(2, 1e-12))
        assert {leaf.dtype for leaf in jax.tree.leaves(total)} == {jnp.dtype("float64")}


def test_zeros_can_be_donated():
    total = compensated.zeros(jnp.zeros(3))
    total = jax.jit(compensated.add, donate_argnums=0)(total, jnp.ones(3))
    np.testing.assert_array_equal(compensated.total(total), np.ones(3))
