"""A network that says facts: its loss, its retrieval and its Fisher information by hand."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.facts.embeddings import FactTargets
from experiments.facts.network import FactNetwork, Facts, average_precision
from experiments.networks import MLP, Batch
from mas_jax import metrics
from tests.oracle_retrieval import retrieval_map

RNG = np.random.default_rng(0)
# Four facts of vectors with two entries; the second has no object, the third a subject alone.
PRESENT = np.array([[1, 1, 1], [1, 1, 0], [1, 0, 0], [1, 1, 1]], bool)
TARGETS = FactTargets((RNG.normal(size=(4, 3, 2)) * PRESENT[..., None]).astype(np.float32), PRESENT)
NETWORK = FactNetwork(MLP((5,)), ((True,) * 4,) * 2, "class", facts=Facts(TARGETS))
INPUTS = RNG.normal(size=(9, 3)).astype(np.float32)
LABELS = np.array([0, 1, 2, 3, 3, 2, 1, 0, 0], np.int32)
# Facts 0 and 1 are the first task's, 2 and 3 the second's.
TASKS = (LABELS >= 2).astype(np.int32)
BATCH = Batch(jnp.asarray(INPUTS), jnp.asarray(TASKS))
PARAMS = NETWORK.init(jax.random.key(0), BATCH)


def said() -> np.ndarray:
    """(N, 3, 2): what the network says, in float64."""
    return np.asarray(NETWORK.all_outputs(PARAMS, BATCH), np.float64).reshape(-1, 3, 2)


def test_outputs_are_three_vectors_and_all_of_the_network_is_shared() -> None:
    assert NETWORK.num_outputs == 6
    assert PARAMS["heads"]["kernel"].shape == (5, 6)
    assert NETWORK.anchored is None
    assert NETWORK.trained([1]).tolist() == [True] * 6
    np.testing.assert_array_equal(
        NETWORK.outputs(PARAMS, BATCH), NETWORK.all_outputs(PARAMS, BATCH)
    )


def test_features_have_mean_0_and_variance_1_before_the_linear_layer() -> None:
    features = np.asarray(NETWORK.features(PARAMS, BATCH))
    assert not np.allclose(features.mean(axis=1), 0, atol=1e-2)
    kernel, bias = (np.asarray(PARAMS["heads"][name]) for name in ("kernel", "bias"))
    expected = standardised(features) @ kernel + bias
    np.testing.assert_allclose(said().reshape(9, 6), expected, atol=1e-5)


def test_the_loss_is_the_squared_distance_to_the_parts_that_the_fact_has() -> None:
    losses, hits = NETWORK.losses(NETWORK.all_outputs(PARAMS, BATCH), BATCH.tasks, LABELS)
    for row, label in enumerate(LABELS):
        distances = [
            sum(
                np.sum((said()[row, part] - TARGETS.vectors[fact, part]) ** 2)
                for part in range(3)
                if PRESENT[fact, part]
            )
            for fact in range(4)
        ]
        np.testing.assert_allclose(losses[row], distances[label], rtol=1e-5)
        assert hits[row] == (np.argmin(distances) == label)


def test_accuracy_is_the_retrieval_of_pictures_by_facts() -> None:
    real = jnp.ones(9)
    measured = NETWORK.accuracy(NETWORK.all_outputs(PARAMS, BATCH), BATCH.tasks, LABELS, real)
    own_task = ((0, 1), (0, 1), (2, 3), (2, 3))
    per_task = [retrieval_map(said(), LABELS, TARGETS, own, own) for own in own_task[::2]]
    np.testing.assert_allclose(measured.per_task, per_task, rtol=1e-5)
    overall = retrieval_map(said(), LABELS, TARGETS, range(4), range(4))
    np.testing.assert_allclose(measured.overall, overall, rtol=1e-5)
    per_fact = [
        retrieval_map(said(), LABELS, TARGETS, [fact], own) for fact, own in enumerate(own_task)
    ]
    np.testing.assert_allclose(measured.per_class, per_fact, rtol=1e-5)


def test_filling_is_not_retrieved() -> None:
    outputs = NETWORK.all_outputs(PARAMS, BATCH)
    alone = NETWORK.accuracy(outputs, BATCH.tasks, LABELS, jnp.ones(9))
    filled = NETWORK.accuracy(
        jnp.concatenate([outputs, outputs[:4]]),
        jnp.concatenate([BATCH.tasks, BATCH.tasks[:4]]),
        np.concatenate([LABELS, LABELS[:4]]),
        jnp.concatenate([jnp.ones(9), jnp.zeros(4)]),
    )
    for one, other in zip(alone, filled, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)


@pytest.mark.parametrize("ties", [False, True])
def test_average_precision_is_the_librarys(ties: bool) -> None:
    for seed in range(20):
        rng = np.random.default_rng(seed)
        distances = rng.integers(0, 4, 12) if ties else rng.permutation(12)
        distances = distances.astype(np.float32)
        relevant = rng.integers(0, 2, 12).astype(bool)
        relevant[0] = True
        got = average_precision(jnp.asarray(distances), relevant, jnp.ones(12, bool))
        expected = metrics.mean_average_precision(-distances, relevant)
        np.testing.assert_allclose(got, expected, rtol=1e-5)


def test_nothing_relevant_is_not_a_number() -> None:
    assert np.isnan(average_precision(jnp.arange(3.0), np.zeros(3, bool), np.ones(3, bool)))


def standardised(features: np.ndarray) -> np.ndarray:
    """Each row with mean 0 and variance 1, in float64."""
    centred = features - np.mean(features, axis=1, keepdims=True, dtype=np.float64)
    return centred / np.sqrt((centred**2).mean(axis=1, keepdims=True) + 1e-5)


class Linear(nn.Module):
    """Features that are the inputs, so that the heads' Fisher information is known."""

    @nn.compact
    def __call__(self, inputs: jax.Array, *, train: bool = False) -> jax.Array:
        del train
        return inputs


def fisher(labels: str, batch: object, weights: np.ndarray | None = None) -> np.ndarray:
    """Fisher information of the heads' kernel of a linear network, (3, 6)."""
    network = FactNetwork(Linear(), ((True,) * 4,) * 2, "class", facts=Facts(TARGETS))
    params = {"heads": {"kernel": jnp.ones((3, 6)) / 4, "bias": jnp.zeros(6)}}
    estimator = network.fisher_estimator(labels, mask=None, mesh=None)  # pyright: ignore[reportArgumentType]
    state = estimator.update(estimator.init(params), params, batch, weights)
    return np.asarray(estimator.finalize(state)["heads"]["kernel"])


def test_fisher_information_of_a_linear_network() -> None:
    # F_o = Σ_i z_i w_io of standardised z, and y ~ N(F, 1): F_io = E z_i², whatever the output.
    features = standardised(INPUTS)
    expected = np.square(features).mean(axis=0)[:, None].repeat(6, 1)
    np.testing.assert_allclose(fisher("exact", BATCH), expected, rtol=1e-5)
    # Empirically E z_i² (v_o − F_o)², and 0 where the fact lacks the part.
    outputs = features @ np.full((3, 6), 0.25)
    missing = (TARGETS.vectors[LABELS] * PRESENT[LABELS][..., None]).reshape(9, 6) - outputs
    missing *= PRESENT[LABELS].repeat(2, axis=1)
    expected = (features[:, :, None] ** 2 * missing[:, None] ** 2).mean(axis=0)
    np.testing.assert_allclose(
        fisher("empirical", (BATCH, jnp.asarray(LABELS))), expected, rtol=1e-4
    )


def test_sampled_fisher_information_is_exact_on_average() -> None:
    many = Batch(jnp.tile(BATCH.inputs, (400, 1)), jnp.tile(BATCH.tasks, 400))
    keys = jax.random.split(jax.random.key(3), 3600)
    exact = fisher("exact", BATCH)
    # Squares of 3,600 draws have a standard error of √(2/3600), weighted by z⁴: five are < 20 %.
    np.testing.assert_allclose(fisher("sampled", (many, keys)), exact, rtol=0.2)
