"""Trees: which leaves are covered, and how partial trees are cut and matched by key path."""

import flax.core
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mas_jax import trees
from mas_jax.errors import TreeMismatchError


def make_params():
    return {
        "trunk": {"kernel": jnp.ones((2, 2)), "bias": jnp.zeros(2)},
        "head": (jnp.ones(2), jnp.arange(3)),
        "flag": jnp.array(True),
        "key": jax.random.key(0),
    }


def everything(value):
    return jax.tree.map(lambda _: value, make_params())


def test_only_floating_leaves_are_covered():
    assert trees.covered(make_params()) == {
        "trunk": {"kernel": True, "bias": True},
        "head": (True, False),
        "flag": False,
        "key": False,
    }


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.float32])
def test_every_floating_dtype_is_covered(dtype):
    assert trees.covered({"w": jnp.ones(2, dtype)}) == {"w": True}


def test_numpy_leaves_and_shape_structs_are_covered():
    assert trees.covered([np.ones(2), np.arange(2), jax.ShapeDtypeStruct((2,), jnp.float32)]) == [
        True,
        False,
        True,
    ]


@pytest.mark.parametrize(
    "mask",
    [
        {**everything(False), "trunk": {"kernel": True, "bias": True}},  # one bool per leaf
        {"trunk": True, "head": False, "flag": True, "key": True},  # one per subtree
        lambda params: {name: name == "trunk" for name in params},  # a function to a prefix
    ],
)
def test_mask_forms(mask):
    covered = trees.covered(make_params(), mask)
    assert covered == {**everything(False), "trunk": {"kernel": True, "bias": True}}


def test_mask_false_covers_nothing_and_true_all_that_can_be():
    assert trees.covered(make_params(), False) == everything(False)
    assert trees.covered(make_params(), True) == trees.covered(make_params())


@pytest.mark.parametrize("leaf", [1, 0.0, "head", jnp.array(True)])
def test_mask_leaves_must_be_bools(leaf):
    with pytest.raises(TypeError, match=r"mask leaf \['w'\] is \w+, wanted True or False"):
        trees.covered({"w": jnp.ones(2)}, {"w": leaf})


@pytest.mark.parametrize("mask", [{"v": True}, {"w": {"deeper": True}}, [True]])
def test_mask_of_another_structure_is_refused(mask):
    with pytest.raises(TreeMismatchError, match=r"mask (has|says nothing of) .*one bool per leaf"):
        trees.covered({"w": jnp.ones(2)}, mask)


def test_complex_leaf_is_refused_unless_masked():
    params = {"w": jnp.ones(2), "spectrum": jnp.ones(2, jnp.complex64)}
    with pytest.raises(TypeError, match=r"params\['spectrum'\] is complex64: .*real parameters"):
        trees.covered(params)
    assert trees.covered(params, {"w": True, "spectrum": False}) == {"w": True, "spectrum": False}


def test_select_puts_masked_nodes_where_nothing_is_kept():
    params = make_params()
    selected = trees.select(params, trees.covered(params, {**everything(True), "trunk": False}))
    assert len(jax.tree.leaves(selected)) == 1
    assert selected["head"][0] is params["head"][0]
    assert isinstance(selected["trunk"]["kernel"], optax.MaskedNode)
    assert isinstance(selected["key"], optax.MaskedNode)


def test_overlay_is_the_inverse_of_select():
    params = make_params()
    selected = trees.select(params, trees.covered(params))
    merged = trees.overlay(params, selected)
    assert jax.tree.structure(merged) == jax.tree.structure(params)
    pairs = zip(jax.tree.leaves(merged), jax.tree.leaves(params), strict=True)
    assert all(got is wanted for got, wanted in pairs)


def test_overlay_takes_covered_leaves_from_the_patch():
    merged = trees.overlay({"a": 1, "b": 2}, {"a": 10, "b": optax.MaskedNode()})
    assert merged == {"a": 10, "b": 2}


def test_like_matches_by_key_path_and_returns_the_structures_containers():
    structure = {"a": 0, "b": optax.MaskedNode()}
    assert trees.like(structure, {"b": 5, "a": 7}) == {"a": 7, "b": optax.MaskedNode()}


def test_paths_of_leaves_and_of_masked_nodes():
    tree = {"a": [1, optax.MaskedNode()], "b": optax.MaskedNode()}
    assert [trees.path_name(path) for path in trees.leaves_by_path(tree)] == ["['a'][0]"]
    assert [trees.path_name(path) for path in trees.masked_paths(tree)] == ["['a'][1]", "['b']"]
    assert trees.path_name(()) == "(the tree is a single leaf)"


def test_lies_under_itself_and_its_ancestors_only():
    (kernel,) = trees.leaves_by_path({"dense": {"kernel": 0}})
    (dense,) = trees.masked_paths({"dense": optax.MaskedNode()})
    (other,) = trees.masked_paths({"dens": optax.MaskedNode()})
    assert trees.lies_under(kernel, [dense])
    assert trees.lies_under(dense, [dense])
    assert not trees.lies_under(dense, [kernel])
    assert not trees.lies_under(kernel, [other])
    assert not trees.lies_under(kernel, [])


def test_masks_match_by_path_whatever_the_containers():
    params = flax.core.freeze({"trunk": {"w": jnp.ones(2)}, "head": jnp.ones(1)})
    result = trees.covered(params, {"trunk": np.True_, "head": False})
    assert flax.core.unfreeze(result) == {"trunk": {"w": True}, "head": False}


def test_leaves_that_share_a_path_are_refused():
    class Pair:
        def __init__(self, *parts):
            self.parts = parts

    same_key = jax.tree_util.GetAttrKey("part")
    jax.tree_util.register_pytree_with_keys(
        Pair, lambda pair: ([(same_key, part) for part in pair.parts], None), lambda _, c: Pair(*c)
    )
    with pytest.raises(ValueError, match="two leaves have the same key path"):
        trees.leaves_by_path(Pair(1, 2))
