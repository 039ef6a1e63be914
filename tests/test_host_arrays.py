"""What an anchor must be to be saved."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mas_jax import host_arrays
from mas_jax.anchor import Anchor
from mas_jax.errors import NonFiniteError, TreeMismatchError

ONES = jnp.ones(2)


@pytest.mark.parametrize(
    ("params", "importance", "error", "message"),
    [
        ({"w": ONES}, {}, TreeMismatchError, r"importance has no leaf \['w'\]"),
        ({"w": ONES}, {"w": jnp.ones(3)}, TreeMismatchError, r"\['w'\] has shape \(3,\)"),
        ({"w": ONES}, {"w": -ONES}, ValueError, r"importance\['w'\] has negative"),
        ({"w": ONES}, {"w": ONES * jnp.inf}, NonFiniteError, r"importance\['w'\] has NaN"),
        ({"w": ONES * jnp.nan}, {"w": ONES}, NonFiniteError, r"anchor.params\['w'\] has NaN"),
        ({"w": ONES}, {"w": ONES.astype(jnp.bfloat16)}, TypeError, "is bfloat16, wanted float32"),
        ({"w": ONES.astype(int)}, {"w": ONES}, TypeError, r"params\['w'\] is int32, wanted float"),
        ({"w": ONES.astype(complex)}, {"w": ONES}, TypeError, "is complex64, wanted floating"),
        ({"w": optax.MaskedNode()}, {"w": optax.MaskedNode()}, ValueError, "nothing to save"),
    ],
)
def test_an_anchor_that_cannot_be_used_is_not_saved(params, importance, error, message):
    with pytest.raises(error, match=message):
        host_arrays.check_anchor(Anchor(params, importance))


def test_both_trees_are_held_in_the_order_of_the_parameters():
    held = host_arrays.from_anchor(
        Anchor({"b": {"c": np.ones(1)}, "a": np.zeros(1)}, {"a": ONES[:1], "b": {"c": ONES[:1]}})
    )
    assert [leaf["path"] for leaf in held.leaves] == ["['a']", "['b']['c']"]
    numbers = {name: [leaf.item() for leaf in tree.values()] for name, tree in held.arrays.items()}
    assert numbers == {"params": [0, 1], "importance": [1, 1]}
