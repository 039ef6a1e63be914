"""A loop called from the host does what one compiled into a program does."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.data.types import Examples
from experiments.examples import to_device
from experiments.forward import in_chunks
from experiments.loops import make_loop
from experiments.networks import MLP, Batch, Network

ROWS = jnp.arange(8).reshape(4, 2)
# The second batch and the last count nothing; of the third one row does.
WEIGHTS = jnp.array([[1.0, 1.0], [0.0, 0.0], [0.0, 2.0], [0.0, 0.0]])


EXAMPLES = jnp.arange(8.0)


def step(carry: Any, rows: Any, weights: Any, number: Any, scale: Any) -> Any:
    """Weighted rows are added up; what is reported is the sum so far, and the batch's number."""
    total = carry["total"] + scale * (weights * rows).sum()
    return {"total": total}, (total, number + 1)


@pytest.mark.parametrize("stepwise", [False, True])
def test_a_loop_takes_each_batch_that_counts_and_reports_zero_for_the_others(
    stepwise: bool,
) -> None:
    loop = make_loop(step, stepwise=stepwise)
    carry, (totals, numbers) = loop(
        {"total": jnp.zeros(())}, ROWS, WEIGHTS, EXAMPLES, jnp.float32(10.0)
    )
    # 10 · (0 + 1) after batch 0, and 10 · 2 · 5 more after batch 2.
    assert float(carry["total"]) == 110.0
    assert np.asarray(totals).tolist() == [10.0, 0.0, 110.0, 0.0]
    assert np.asarray(numbers).tolist() == [1, 0, 3, 0]


@pytest.mark.parametrize("stepwise", [False, True])
def test_a_loop_without_a_batch_that_counts_changes_nothing(stepwise: bool) -> None:
    loop = make_loop(step, stepwise=stepwise)
    carry, (totals, _) = loop(
        {"total": jnp.full((), 3.0)}, ROWS, 0 * WEIGHTS, EXAMPLES, jnp.float32(1.0)
    )
    assert float(carry["total"]) == 3.0
    assert not np.asarray(totals).any()


def test_the_host_compiles_a_step_once_for_all_batches() -> None:
    traced = []

    def watched(carry: Any, rows: Any, weights: Any, number: Any) -> Any:
        traced.append(isinstance(rows, jax.core.Tracer))
        return carry + (weights * rows).sum(), number

    loop = make_loop(watched, stepwise=True)
    carry, _ = loop(jnp.zeros(()), ROWS, WEIGHTS, EXAMPLES)
    before = len(traced)
    loop(carry, ROWS, WEIGHTS, EXAMPLES)
    # Once more for the reports' shapes; nothing is run uncompiled.
    assert len(traced) <= before + 1
    assert all(traced)


@pytest.mark.parametrize("stepwise", [False, True])
@pytest.mark.parametrize("chunk", [1, 4, 9, 11, 100])
def test_chunks_give_what_all_at_once_gives_and_leave_filling_out(
    chunk: int, stepwise: bool
) -> None:
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(9, 3)).astype(np.float32)
    examples = to_device([(0, Examples(inputs, np.zeros(9, np.int32)))], length=23)
    network = Network(MLP((5,)), ((True, True),), stepwise=stepwise)
    params = network.init(jax.random.key(0), examples.batch)

    def question(network: Network, params: Any, batch: Batch) -> jax.Array:
        return 1.0 + network.all_outputs(params, batch) ** 2

    got = np.asarray(in_chunks(network, None, question, params, examples, chunk))
    assert got.shape == (23, 2)
    expected = np.asarray(question(network, params, examples.batch))
    np.testing.assert_allclose(got[:9], expected[:9], rtol=1e-5)
    # Chunks of filling alone are not computed.
    first_left_out = -(-9 // chunk) * chunk
    assert (got[first_left_out:] == 0).all()
