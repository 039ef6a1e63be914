"""Which leaves are specialised, and what is said of the others."""

import jax
import jax.numpy as jnp
import pytest

import mas_jax
from mas_jax.fused import jaxprs, rules
from tests import networks
from tests.networks import FALLS_BACK, POSITIONS

X = networks.batch_of(5, 3, 4)
TOKENS = networks.tokens_of(5, 3, vocabulary=4)
LEAVES = {
    "w": networks.batch_of(4, 4, seed=1),
    "v": networks.batch_of(4, 4, seed=2),
    "stack": networks.batch_of(3, 4, 4, seed=3),
}


def network(apply_fn, *names, batch=X, objective=mas_jax.squared_l2_norm):
    params = {name: LEAVES[name] for name in names}
    return networks.Network(apply_fn, params, batch, {}, objective=objective)


def plans(apply_fn, *names, **settings):
    """The plan for each leaf, in the order of the names."""
    paths, plan = networks.plan_of(network(apply_fn, *names, **settings))
    by_path = dict(zip(paths, plan.leaves, strict=True))
    return [by_path[f"['{name}']"] for name in names]


def convolve(image, kernel, **settings):
    return jax.lax.conv_general_dilated(
        image, kernel, (1,), "SAME", dimension_numbers=("NHC", "HIO", "NHC"), **settings
    )


@jax.custom_jvp
def with_a_derivative(w, x):
    return x @ w


@with_a_derivative.defjvp
def _(primals, tangents):
    return jax.jvp(lambda w, x: x @ w, primals, tangents)


@jax.custom_vjp
def with_a_gradient(w, x):
    return x @ w


with_a_gradient.defvjp(
    lambda w, x: jax.vjp(lambda w, x: x @ w, w, x), lambda pullback, dy: pullback(dy)
)


def returned_by_a_scan(p, x):
    x, layers = jax.lax.scan(lambda x, w: (jnp.tanh(x), w.T), x, p["w"].reshape(2, 2, 4))
    return x @ layers.reshape(4, 4)


# What is done with the leaf w, by the reason why it falls back.
REASONS = {
    "used by add": lambda p, x: x[0, 0].reshape(1, 1, 4) + p["w"][None],
    "used by mul": lambda p, x: x @ (p["w"] * 2),
    "used by slice": lambda p, x: x @ p["w"][:, :2],
    "used by stop_gradient": lambda p, x: x @ jax.lax.stop_gradient(p["w"]),
    "used by cond": lambda p, x: jax.lax.cond(x[0, 0, 0] > 0, lambda: x, lambda: x @ p["w"]),
    "used by custom_jvp_call": lambda p, x: with_a_derivative(p["w"], x),
    "used by custom_vjp_call": lambda p, x: with_a_gradient(p["w"], x),
    "used by optimization_barrier": lambda p, x: x @ jax.lax.optimization_barrier(p["w"]),
    "used at every step of a scan": lambda p, x: jax.lax.scan(
        lambda x, _: (x @ p["w"], None), x, length=2
    )[0],
    "returned by a scan": returned_by_a_scan,
    "indexed other than by whole rows": lambda p, x: x @ jnp.take(p["w"], jnp.array([1, 1]), 1),
    "convolved as an image is": lambda p, x: convolve(p["w"][None], x[0, :, :, None])[:, :3],
    "convolution with batch groups": lambda p, x: convolve(
        jnp.concatenate([x, x]), p["w"][None], batch_group_count=2
    ),
    "used 2 times: dense over positions, dense over positions": lambda p, x: x @ p["w"] @ p["w"],
    "used 5 times: dense over positions, sin, cos, …": lambda p, x: (
        x @ p["w"] @ jnp.sin(p["w"]) @ jnp.cos(p["w"]) @ jnp.exp(p["w"]) @ p["w"]
    ),
}


@pytest.mark.parametrize("reason", REASONS)
def test_a_leaf_that_falls_back_has_its_reason(reason):
    (leaf,) = plans(REASONS[reason], "w")
    assert leaf.falls_back
    assert leaf.rule is None
    assert leaf.reason == reason


def test_a_leaf_among_the_outputs_is_used_by_the_check_of_the_outputs_too():
    (leaf,) = plans(
        lambda p, x: {"y": x, "leaf": p["w"].T[None]},
        "w",
        objective=lambda outputs: jnp.sum(outputs["y"]),
    )
    assert leaf.falls_back
    assert leaf.reason == "used 2 times: is_finite, returned as it is"


def test_two_leaves_of_one_operation_fall_back_both():
    w, v = plans(lambda p, x: x @ (p["w"] @ p["v"]), "w", "v")
    assert w.falls_back
    assert v.falls_back
    assert w.reason == v.reason == "dot_general of two leaves"


def test_a_leaf_without_a_use_does_not_fall_back():
    unused, used = plans(lambda p, x: x @ p["v"], "w", "v")
    assert not unused.falls_back
    assert (unused.rule, unused.reason) == (None, "not used: its importance is 0")
    assert used.reason == "used once"


def test_a_stack_is_used_once_in_each_layer():
    def layers(stack, x):
        return jax.lax.scan(lambda x, w: (jnp.tanh(x @ w), None), x, stack)[0]

    def two_by_three(p, x):
        stacks = jnp.broadcast_to(p["stack"][None], (1, 3, 4, 4)).reshape(3, 1, 4, 4)
        return jax.lax.scan(lambda x, stack: (layers(stack, x), None), x, stacks)[0]

    for apply_fn in (lambda p, x: layers(p["stack"], x), jax.jit(two_by_three)):
        (leaf,) = plans(apply_fn, "stack")
        assert not leaf.falls_back
        assert [use.layers for use in leaf.uses] == [3]


@pytest.mark.parametrize(
    ("apply_fn", "rule"),
    [
        (lambda p, x: x[:, 0] @ p["w"], "dense"),
        (lambda p, x: x @ p["w"], "dense over positions"),
        (lambda p, x: convolve(x, p["w"][None]), "convolution"),
        (
            lambda p, x: convolve(x, p["w"][:, None], feature_group_count=4),
            "depthwise convolution",
        ),
        (lambda p, x: p["w"][jnp.argmax(x, axis=2)] * x, "embedding"),
    ],
)
def test_a_leaf_that_is_used_once_has_its_rule(apply_fn, rule):
    (leaf,) = plans(apply_fn, "w")
    assert leaf.rule is not None
    assert leaf.rule.name == rule
    assert leaf.reason == "used once"
    assert len(leaf.uses) == 1


def test_leaves_that_the_mask_excludes_are_not_in_the_plan():
    masked = network(lambda p, x: x @ p["w"] @ p["v"], "w", "v")._replace(
        mask={"w": False, "v": True}
    )
    assert networks.rules_of(masked) == {"['v']": POSITIONS}


def test_a_masked_leaf_leaves_the_other_of_a_product_its_rule():
    # w v is a product of two leaves; with w frozen it is a kernel v applied to what is given.
    masked = network(lambda p, x: x @ (p["w"] @ p["v"]), "w", "v")._replace(
        mask={"w": False, "v": True}, rules={"v": POSITIONS}
    )
    networks.assert_engines_agree(masked, magnitudes=("abs",))


@pytest.mark.parametrize(
    ("apply_fn", "names", "floats"),
    [
        (lambda p, x: x @ p["w"], ["w"], 0),
        (lambda p, x: x @ p["w"], ["w", "v"], 0),
        (lambda p, x: jnp.tanh(x @ p["w"]) @ p["w"] @ p["v"], ["w", "v"], 16),
        (lambda p, x: jax.jit(lambda w: x @ (2 * w))(p["w"]), ["w"], 16 + 16),
        (lambda p, x: x @ p["w"] @ (p["stack"] * 2).sum(axis=0), ["w", "stack"], 48 + 48),
        (lambda p, x: x @ (p["w"] * x[0, 0, 0]), ["w"], 16),
    ],
    ids=["a rule", "a rule, and no use", "two uses", "a number times", "a sum", "times the sample"],
)
def test_the_fallback_holds_leaves_and_what_is_computed_from_leaves_alone(apply_fn, names, floats):
    _, plan = networks.plan_of(network(apply_fn, *names))
    assert plan.fallback_bytes == 4 * floats


def every_kind_of_call(p, x):
    x = jax.jit(lambda w, x: jnp.tanh(x @ w))(p["w"], x)
    x = jax.checkpoint(lambda v, x: jnp.tanh(x @ v))(p["v"], x)
    return jax.lax.scan(lambda x, w: (jnp.tanh(x @ w), None), x, p["stack"])[0]


def test_calls_are_looked_into():
    network_of_calls = network(every_kind_of_call, "w", "v", "stack")
    networks.assert_engines_agree(network_of_calls._replace(rules={".": POSITIONS}))


@pytest.mark.parametrize("unknown", ["calls", "rules", "reshapes"])
def test_what_is_unknown_falls_back_and_is_never_an_error(monkeypatch, unknown):
    # As it would be if a new version of JAX gave its primitives other names.
    expected = {".": FALLS_BACK}
    if unknown == "calls":
        monkeypatch.setattr(jaxprs, "CALLS", frozenset())
        monkeypatch.setattr(jaxprs, "CHECKPOINTS", frozenset())
        expected = {"stack": POSITIONS}
    elif unknown == "rules":
        monkeypatch.setattr(rules, "MATCHERS", {})
    else:
        monkeypatch.setattr(jaxprs, "PASSING", frozenset())
        monkeypatch.setattr(jaxprs, "RESHAPING", frozenset())
        expected = {"v|stack": POSITIONS}

    def apply_fn(p, x):
        return every_kind_of_call(p | {"w": p["w"].T}, x)

    unfamiliar = network(apply_fn, "w", "v", "stack")._replace(rules=expected)
    networks.assert_engines_agree(unfamiliar, magnitudes=("abs",))


def test_the_plan_is_for_one_sample_whatever_the_batch():
    for size in (1, 5):
        (leaf,) = plans(lambda p, x: x @ p["w"], "w", batch=X[:size, :1])
        assert leaf.rule is not None
        assert leaf.rule.name == "dense"


def test_gradients_no_larger_than_activations_do_not_cut_a_batch():
    params = {"w": jnp.ones((4, 6)), "bias": jnp.ones((1, 6)), "square": jnp.ones((6, 6))}

    def apply_fn(params, x):
        y = x @ params["w"] + params["bias"]
        return y @ params["square"] @ params["square"]

    def samples(**options):
        return mas_jax.explain(apply_fn, params, jnp.ones((10**6, 4)), **options).microbatch_size

    # Only the square, 36 numbers used to compute 12, counts against 1 MiB. Told a budget, all do.
    assert samples() == 2**20 // (4 * 36)
    assert samples(memory_budget=4 * (36 + 6)) == 1
    assert samples(memory_budget=2 * 4 * (36 + 6)) == 2
