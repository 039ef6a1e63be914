"""The table of rules: what it says of a network, and when it refuses."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

import mas_jax


class Network(nn.Module):
    """A use of each kind: an embedding, a stack of layers, a tied table, a bias."""

    @nn.compact
    def __call__(self, tokens):
        embed = nn.Embed(11, 8)
        x = nn.Embed(5, 8, name="other")(tokens % 5) + embed(tokens)
        stack = nn.scan(Layer, variable_axes={"params": 0}, split_rngs={"params": True}, length=3)
        x, _ = stack()(x, None)
        self.param("unused", nn.initializers.ones, (3,))
        return embed.attend(x.mean(axis=1))


class Layer(nn.Module):
    """One layer of the stack."""

    @nn.compact
    def __call__(self, x, _):
        return nn.tanh(nn.Dense(8)(x)), None


TOKENS = jnp.arange(24).reshape(4, 6) % 11


@pytest.fixture(scope="module")
def params():
    return Network().init(jax.random.key(0), TOKENS)["params"]


def apply_fn(params, tokens):
    return Network().apply({"params": params}, tokens)


def by_path(explanation):
    return {leaf.path: leaf for leaf in explanation.leaves}


def test_every_leaf_has_its_rule_and_reason(params):
    leaves = by_path(mas_jax.explain(apply_fn, params, TOKENS))
    assert leaves["['ScanLayer_0']['Dense_0']['kernel']"][2:4] == (
        "dense over positions",
        "used once in each of 3 layers",
    )
    assert leaves["['ScanLayer_0']['Dense_0']['bias']"][2:4] == ("per sample", "used by add")
    assert leaves["['other']['embedding']"][2:4] == ("embedding", "used once")
    assert leaves["['unused']"][2:4] == ("none", "not used: its importance is 0")
    tied = leaves["['Embed_0']['embedding']"]
    assert tied.rule == "per sample"
    assert tied.reason == "used 2 times: embedding, dense"
    assert tied.shape == (11, 8)


def test_memory_of_a_leaf_that_falls_back_is_one_gradient_per_sample(params):
    explanation = mas_jax.explain(apply_fn, params, TOKENS)
    assert explanation.batch_size == explanation.microbatch_size == 4
    assert by_path(explanation)["['Embed_0']['embedding']"].memory == 4 * 11 * 8 * 4


def test_microbatches_are_sized_from_the_memory_budget(params):
    # Per sample: the tied table of 88, three biases of 8 and, as computed from parameters alone,
    # nothing: 112 floats.
    for budget, size in [(1, 1), (2 * 112 * 4, 2), (3 * 112 * 4 - 1, 2), (3 * 112 * 4, 3)]:
        explanation = mas_jax.explain(apply_fn, params, TOKENS, memory_budget=budget)
        assert explanation.microbatch_size == size
    assert mas_jax.explain(apply_fn, params, TOKENS, microbatch_size=3).microbatch_size == 3


def test_weights_computed_from_parameters_count_towards_the_budget():
    params = {"a": jnp.ones((50, 1)), "b": jnp.ones((1, 50))}

    def low_rank(params, x):
        return x @ (params["a"] * params["b"])

    # The product has a cotangent of 2500 floats per sample beside the leaves' 100.
    batch = jnp.ones((8, 50))
    for budget, size in [(4 * 2600 - 1, 1), (4 * 2 * 2600, 2)]:
        explanation = mas_jax.explain(low_rank, params, batch, memory_budget=budget)
        assert explanation.microbatch_size == size


def test_shapes_are_enough(params):
    shapes = jax.eval_shape(lambda: params)
    batch = jax.ShapeDtypeStruct(TOKENS.shape, TOKENS.dtype)
    assert mas_jax.explain(apply_fn, shapes, batch) == mas_jax.explain(apply_fn, params, TOKENS)


def test_the_table_has_a_line_per_leaf_and_a_sum(params):
    lines = str(mas_jax.explain(apply_fn, params, TOKENS)).splitlines()
    assert len(lines) == 1 + len(jax.tree.leaves(params)) + 1
    assert lines[0].split() == ["leaf", "shape", "rule", "why", "memory", "work", "/", "plain"]
    assert lines[-1] == (
        "2 of 5 leaves keep a gradient per sample: 1.8 KiB for micro-batches of 4 (batch 4)"
    )


def test_the_mask_decides_which_leaves_are_listed(params):
    explanation = mas_jax.explain(
        apply_fn,
        params,
        TOKENS,
        mask={"Embed_0": False, "ScanLayer_0": True, "other": True, "unused": False},
    )
    assert len(explanation.leaves) == 3


def test_strict_names_the_leaf_the_reason_and_the_limit(params):
    with pytest.raises(
        mas_jax.FallbackError,
        match=r"params\['Embed_0'\]\['embedding'\] of shape \(11, 8\) falls back to one gradient "
        r"per sample \(used 2 times: embedding, dense\), and strict allows that up to 87 entries",
    ):
        mas_jax.explain(apply_fn, params, TOKENS, strict=87)
    mas_jax.explain(apply_fn, params, TOKENS, strict=88)
    mas_jax.explain(apply_fn, params, TOKENS, strict=True)


@pytest.mark.parametrize("engine", ["auto", "fused"])
def test_strict_stops_an_update_too(params, engine):
    estimator = mas_jax.importance_estimator(apply_fn, strict=10, engine=engine)
    with pytest.raises(mas_jax.FallbackError, match="Embed_0"):
        estimator.update(estimator.init(params), params, TOKENS)


def test_the_vmap_engine_has_nothing_to_explain(params):
    with pytest.raises(ValueError, match="explain is about the fused engine"):
        mas_jax.explain(apply_fn, params, TOKENS, engine="vmap")


def test_the_layers_of_local_outputs_are_shown(params):
    explanation = mas_jax.explain(mas_jax.local_outputs(apply_fn), params, TOKENS)
    shown = {leaf.path: (leaf.layer, leaf.layer_output) for leaf in explanation.leaves}
    table, kernel = "['Embed_0']['embedding']", "['ScanLayer_0']['Dense_0']['kernel']"
    # Six tokens, eight features each, in three layers; the table looks up, and scores 11 words.
    assert shown == {
        table: (f"{table}, {table} (2)", "48 after gather, 11 after dot_general"),
        "['ScanLayer_0']['Dense_0']['bias']": (kernel, "144 after tanh"),
        kernel: (kernel, "144 after tanh"),
        "['other']['embedding']": ("['other']['embedding']", "48 after gather"),
        "['unused']": ("none", "none"),
    }
    lines = str(explanation).splitlines()
    assert lines[0].endswith("layer output")
    assert [line.split("  ")[-1] for line in lines[1:-1]] == [
        output for _, output in shown.values()
    ]


def test_other_functions_have_no_layers(params):
    explanation = mas_jax.explain(apply_fn, params, TOKENS)
    assert {(leaf.layer, leaf.layer_output) for leaf in explanation.leaves} == {(None, None)}


def test_the_layers_of_a_model_with_statistics_need_shapes_alone():
    module = nn.Sequential([nn.Dense(3), nn.BatchNorm(use_running_average=True), nn.relu])
    network, params = mas_jax.from_linen(module, module.init(jax.random.key(0), jnp.ones((1, 2))))
    explanation = mas_jax.explain(
        mas_jax.local_outputs(network),
        jax.eval_shape(lambda: params),
        jax.ShapeDtypeStruct((4, 2), jnp.float32),
    )
    assert [(leaf.layer, leaf.layer_output) for leaf in explanation.leaves] == [
        ("['layers_0']['kernel']", "3 after relu")
    ] * 4


def test_of_a_vector_it_says_how_many_gradients_are_held_for_a_leaf_that_falls_back() -> None:
    params = {"kernel": jnp.ones((3, 5)), "bias": jnp.zeros((1, 5))}
    batch = jnp.ones((4, 3))

    def apply_fn(params: dict, x: jax.Array) -> jax.Array:
        return x @ params["kernel"] + params["bias"]

    def bias_memory(**options: Any) -> int:
        explanation = mas_jax.explain(apply_fn, params, batch, **options)
        return next(leaf.memory for leaf in explanation.leaves if leaf.path == "['bias']")

    # Five entries of four bytes for each of four samples; and for each of five outputs.
    assert bias_memory() == 4 * 20
    assert bias_memory(objective=mas_jax.every_output, magnitude="l2") == 5 * 4 * 20
