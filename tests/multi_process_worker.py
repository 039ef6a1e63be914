"""One of the processes that test_multi_process.py starts: runs each case, writes what it gave."""

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

import mas_jax

PROCESSES = 2
SAMPLES = 24

Sizes = Sequence[Sequence[int]]
"""For each process the sizes of its batches."""

EQUAL: Sizes = [[6, 6], [6, 6]]
UNEVEN: Sizes = [[5, 3], [6, 5, 5]]
LARGE_THEN_SMALL: Sizes = [[6, 5], [1, 6, 4, 2]]
EMPTY: Sizes = [[6, 6], []]


def apply_fn(params, batch):
    """Two layers with tanh between them; an integer of each sample scales its outputs."""
    hidden = jnp.tanh(batch["x"] @ params["in"] + params["bias"].reshape(1, -1))
    return hidden @ params["out"] * batch["scale"].reshape(-1, 1)


def network() -> dict[str, np.ndarray]:
    """The layers' parameters."""
    rng = np.random.default_rng(0)
    shapes = {"in": (4, 6), "bias": (6,), "out": (6, 2)}
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def samples() -> dict[str, np.ndarray]:
    """All of them; the first shares begin at sample 0, each next one where that before it ends."""
    x = np.random.default_rng(1).normal(size=(SAMPLES, 4)).astype(np.float32)
    return {"x": x, "scale": np.arange(SAMPLES, dtype=np.int32) % 3 + 1}


def share(sizes: Sizes, process: int, data: Any = None) -> Iterator[Any]:
    """The batches of one process."""
    start = sum(sum(batches) for batches in sizes[:process])
    for size in sizes[process]:
        rows = slice(start, start + size)
        yield jax.tree.map(lambda leaf: leaf[rows], samples() if data is None else data)  # noqa: B023
        start += size


def cases(process: int, mesh: Mesh) -> dict[str, Callable[[], Any]]:
    """What is tried, by name."""

    def estimate(batches: Any, params: Any = None, **options: Any) -> Any:
        if not isinstance(batches, Iterator):
            batches = share(batches, process)
        params = network() if params is None else params
        return mas_jax.estimate_importance(apply_fn, params, batches, **{"mesh": mesh, **options})

    def with_progress() -> Any:
        seen: list[int] = []
        estimate(UNEVEN, progress=seen.append)
        return seen

    def with_global_arrays() -> Any:
        replicated = jax.device_put(network(), NamedSharding(mesh, PartitionSpec()))
        split = NamedSharding(mesh, PartitionSpec("data"))
        estimator = mas_jax.importance_estimator(apply_fn, mesh=mesh)
        state = estimator.init(replicated)
        for batch in share(EQUAL, process):
            batch = jax.make_array_from_process_local_data(split, batch)
            outputs, state = estimator.predict_and_update(state, replicated, batch)
            assert outputs.sharding.is_equivalent_to(split, 2)
        return estimator.finalize(state)

    def update_with_local_arrays() -> Any:
        replicated = jax.device_put(network(), NamedSharding(mesh, PartitionSpec()))
        estimator = mas_jax.importance_estimator(apply_fn, mesh=mesh)
        return estimator.update(estimator.init(replicated), replicated, next(share(EQUAL, process)))

    def global_batches() -> Iterator[Any]:
        split = NamedSharding(mesh, PartitionSpec("data"))
        yield jax.make_array_from_process_local_data(split, next(share(EQUAL, process)))

    def failing() -> Iterator[Any]:
        yield next(share(EQUAL, process))
        if process == 1:
            raise OSError("disk")
        yield next(share(EQUAL, process))

    def differing() -> Iterator[Any]:
        for batch in share(EQUAL, process):
            yield batch if process == 0 else {"x": batch["x"]}

    def with_nan() -> Iterator[Any]:
        data = samples()
        data["x"][8 + 12] = np.nan  # of UNEVEN: the second in the third batch of process 1
        return share(UNEVEN, process, data)

    crossed = np.array(jax.devices()).reshape(PROCESSES, 2).T
    automatic = Mesh(mesh.devices, mesh.axis_names, axis_types=(AxisType.Auto,))
    mine = Mesh(np.array(jax.local_devices()), ("data",))
    other = {name: leaf + process for name, leaf in network().items()}
    return {
        "equal": lambda: estimate(EQUAL),
        "equal, vmap engine": lambda: estimate(EQUAL, engine="vmap"),
        "equal, automatic axes": lambda: estimate(EQUAL, mesh=automatic),
        "uneven": lambda: estimate(UNEVEN),
        "batch mean": lambda: estimate(EQUAL, reduction="batch"),
        "large, then small": lambda: estimate(LARGE_THEN_SMALL),
        "devices of this process": lambda: estimate(iter([samples()]), mesh=mine),
        "global arrays": with_global_arrays,
        "skipped": lambda: estimate(with_nan(), on_nonfinite="skip"),
        "progress": with_progress,
        "no sample": lambda: estimate(EMPTY),
        "no padding": lambda: estimate(UNEVEN, pad_batch=False),
        "no padding, equal": lambda: estimate(EQUAL, pad_batch=False),
        "failing": lambda: estimate(failing()),
        "differing batches": lambda: estimate(differing()),
        "differing parameters": lambda: estimate(EQUAL, other),
        "not finite": lambda: estimate(with_nan()),
        "local arrays": update_with_local_arrays,
        "global batches": lambda: estimate(global_batches()),
        "axis across processes": lambda: estimate(EQUAL, mesh=Mesh(crossed, ("data", "model"))),
        "half of the devices": lambda: estimate(EQUAL, mesh=Mesh(jax.devices()[:3], ("data",))),
    }


def outcome(case: Callable[[], Any]) -> Any:
    """What a case gives, as JSON can hold it: a list, numbers by leaf, or an error's words."""
    try:
        result = case()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    if isinstance(result, list):
        return result
    assert all(leaf.is_fully_replicated for leaf in result.values())
    return {name: np.asarray(leaf).tolist() for name, leaf in result.items()}


def main(port: str, process: str, out: str) -> None:
    """Run all cases, and write their outcomes."""
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(f"localhost:{port}", PROCESSES, int(process))
    mesh = jax.make_mesh((jax.device_count(),), ("data",))
    outcomes = {name: outcome(case) for name, case in cases(int(process), mesh).items()}
    Path(out).write_text(json.dumps(outcomes))


if __name__ == "__main__":
    main(*sys.argv[1:])
