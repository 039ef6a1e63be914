"""Pictures of facts before and after other tasks: the command, on runs of tiny pictures."""

import dataclasses
import itertools
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import checkpoint, fact_learning, registry, results, runs
from experiments.analyses import fact_embeddings
from experiments.analyses.fact_embeddings import FILE_NAME, Options, measure
from experiments.data.types import Examples, Task
from experiments.facts.embeddings import FactTargets
from experiments.facts.network import FactNetwork, Facts
from experiments.facts.types import Fact
from experiments.methods import METHODS, Method
from experiments.networks import Batch
from experiments.report import projections
from tests.test_facts_projection import oracle
from tests.test_picture_sequences import TRAINED, SmallTrunk, silent

FACTS = tuple(Fact("person", word) for word in "abcdef")
VECTORS = np.random.default_rng(1).normal(size=(6, 3, 2)).astype(np.float32)
TARGETS = FactTargets(VECTORS, np.array([[True, True, False]] * 3 + [[True] * 3] * 3))
LEARNED = ("finetune", "mas")


def _methods() -> dict[str, Method]:
    return {name: METHODS[name] for name in LEARNED}


@dataclasses.dataclass(frozen=True, kw_only=True)
class SmallFacts(fact_learning.FactLearning):
    """Two tasks of three facts."""

    methods: dict[str, Method] = dataclasses.field(default_factory=_methods)
    weights: Any = "random"
    side: int = 6
    kept_side: int = 8
    epochs: int = 2
    learning_rate: float = 0.02
    batch_size: int = 16
    seeds: int = 1
    first_seed: int = 3

    def trunk(self) -> nn.Module:
        return SmallTrunk()

    def pretrained(self) -> Any:
        return TRAINED

    def network(self, heads: Any, tasks: Any) -> FactNetwork:
        del tasks
        return FactNetwork(
            self.trunk(),
            heads,
            self.scenario,
            self.views(),
            stepwise=True,
            facts=Facts(TARGETS),
        )

    def first_facts(self) -> tuple[Fact, ...]:
        return FACTS[2:3]


def pictures(first: int, count: int) -> Examples:
    """Pictures of three facts."""
    rng = np.random.default_rng([first, count])
    labels = np.arange(count, dtype=np.int32) % 3 + first
    return Examples(rng.integers(0, 255, (count, 8, 8, 3), np.uint8), labels)


TASKS = tuple(
    Task(name, (first, first + 1, first + 2), pictures(first, 24), pictures(first, 0), tested)
    for name, first, tested in (("T1", 0, pictures(0, 14)), ("T2", 3, pictures(3, 9)))
)


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as `compare facts_2 --share-first-task` leaves it, and the data beside it."""
    folder = tmp_path_factory.mktemp("facts")
    (folder / "data" / "word_vectors").mkdir(parents=True)
    (folder / "data" / "word_vectors" / "glove.2d.txt").write_text("a 1 2\n")
    config, out = SmallFacts(data_dir=folder / "data"), folder / "runs"
    first = out / "first_task"
    plain = runs.plain_config(config)
    runs.run("facts_2", plain, "finetune", TASKS, first, silent, "c", stop_after=1)
    for name in LEARNED:
        runs.run("facts_2", config, name, TASKS, out, silent, "c", first=first)
    return folder


@pytest.fixture
def there(learned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of that folder, where facts_2 is the small experiment."""
    shutil.copytree(learned, tmp_path / "copy")
    entry = registry.Experiment(SmallFacts(), lambda _: TASKS)
    monkeypatch.setitem(registry.EXPERIMENTS, "facts_2", entry)
    monkeypatch.setattr(fact_learning, "facts_in", lambda _: FACTS)
    return tmp_path / "copy"


def options(there: Path, **changes: Any) -> Options:
    return dataclasses.replace(
        Options(runs=there / "runs", data_dir=there / "data", pictures=4), **changes
    )


def test_the_file_holds_where_the_states_networks_place_the_pictures(there: Path) -> None:
    measured = measure(options(there), "the command")
    # The fact that had to be in the first task comes first.
    chosen = [2, 0, 1]
    assert measured["facts"] == [str(FACTS[fact]) for fact in chosen]
    test = TASKS[0].test
    rows = [row for fact in chosen for row in np.flatnonzero(test.labels == fact)[:4]]
    assert measured["labels"] == [0] * 4 + [1] * 4 + [2] * 4
    network = SmallFacts().network(((True,) * 6,) * 2, TASKS)
    batch = Batch(jnp.asarray(test.inputs[rows]), jnp.zeros(12, jnp.int32))
    vectors = VECTORS[chosen].reshape(3, 6).astype(np.float64)
    folders = {"before": "first_task/finetune", "finetune": "finetune", "mas": "mas"}
    for name, folder in folders.items():
        stored = checkpoint.load(there / "runs" / folder / "seed_3" / "state.msgpack")
        assert stored is not None
        said = np.asarray(network.all_outputs(stored[0], batch), np.float64)
        places, share = oracle(vectors, said)
        found = measured["before"] if name == "before" else measured["after"][name]
        np.testing.assert_allclose(found, places, atol=1e-4)
        # Facts of the first task have no object: four of six values count.
        wanted = np.mean(
            [
                sum((said[n, d] - VECTORS[test.labels[row]].ravel()[d]) ** 2 for d in range(4))
                for n, row in enumerate(rows)
            ]
        )
        distances = measured["distances"]
        got = distances["before"] if name == "before" else distances["after"][name]
        assert got == pytest.approx(wanted, abs=1e-4)
        assert measured["share"] == pytest.approx(share, abs=1e-4)
    np.testing.assert_allclose(measured["vectors"], oracle(vectors, vectors)[0], atol=1e-4)
    places = [measured["before"], *measured["after"].values()]
    assert not any(np.allclose(a, b) for a, b in itertools.combinations(places, 2))
    assert (measured["seed"], measured["experiment"]) == (3, "facts_2")


def test_the_command_writes_a_file_that_the_report_reads(
    there: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["fact_embeddings", str(there / "runs")])
    fact_embeddings.main(options(there))
    found = projections.read(there / "runs" / FILE_NAME)
    assert list(found.after) == list(LEARNED)
    assert found.command.startswith("python -m experiments.analyses.fact_embeddings")
    out = capsys.readouterr().out
    assert f"written: {there / 'runs' / FILE_NAME}" in out
    assert f"mas: {found.distances['after']['mas']:.4f}" in out


@pytest.mark.parametrize("missing", ["first_task/finetune", "mas"])
def test_missing_states_are_named_with_the_command_that_makes_them(
    there: Path, missing: str
) -> None:
    state = there / "runs" / missing / "seed_3" / "state.msgpack"
    state.unlink()
    with pytest.raises(ValueError, match=r"there is no .*state\.msgpack") as error:
        measure(options(there), "c")
    assert str(state) in str(error.value)
    line = f"python -m experiments compare facts_2 --share-first-task --out {there / 'runs'}"
    assert line in str(error.value)


def test_a_run_that_was_stopped_is_told_how_to_go_on(there: Path) -> None:
    first, last = (there / "runs" / name / "seed_3" for name in ("first_task/finetune", "mas"))
    shutil.copy(first / "state.msgpack", last / "state.msgpack")
    with pytest.raises(ValueError, match="after task 1, wanted that after task 2; states are"):
        measure(options(there), "c")


def test_other_word_vectors_are_refused(there: Path) -> None:
    (there / "data" / "word_vectors" / "glove.2d.txt").write_text("a 1 3\n")
    with pytest.raises(ValueError, match=r"word vectors in glove\.2d\.txt, and those found"):
        measure(options(there), "c")


def test_the_trunks_weights_need_not_be_there(there: Path) -> None:
    (result, *others) = results.read_all(there / "runs")
    digests = {**result.config["digests"], "weights": "0" * 64}
    changed = dataclasses.replace(result, config={**result.config, "digests": digests})
    config = fact_embeddings.config_of([changed, *others], there / "data")
    assert config.weights == "random"
    assert config.split_seed == 0


def test_folders_of_other_experiments_are_refused(there: Path) -> None:
    (result, *_) = results.read_all(there / "runs")
    for name in ("split_mnist", "facts_4"):
        other = dataclasses.replace(result, experiment=name)
        with pytest.raises(ValueError, match=f"alone, got one of facts_2, {name}"):
            fact_embeddings.config_of([result, other], None)
    other = dataclasses.replace(result, experiment="split_mnist")
    with pytest.raises(ValueError, match="got one of split_mnist"):
        fact_embeddings.config_of([other], None)


def test_the_command_line_says_what_is_wrong_and_fails(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "experiments.analyses.fact_embeddings", str(tmp_path)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert ended.stderr.startswith("error: no result.json below")
    assert "Traceback" not in ended.stderr
