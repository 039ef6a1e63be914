"""Sequences of pictures: every method learns one, from a trunk that was trained before."""

import dataclasses
import hashlib
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import checkpoint, fact_learning, object_recognition, registry
from experiments.config import settings
from experiments.data.types import Examples, Task
from experiments.examples import to_device
from experiments.facts.embeddings import FactTargets
from experiments.facts.network import FactNetwork, Facts
from experiments.facts.table import SPORTS, STANFORD40, facts_of
from experiments.learning import Epoch
from experiments.methods import METHODS, Method
from experiments.methods.ebll import EBLL
from experiments.networks import Network
from experiments.object_recognition import ObjectRecognition
from experiments.sequence import STATE_FILE, learn
from experiments.setup import Setup, prepare
from tests import real_data


class SmallTrunk(nn.Module):
    """A convolution, dropout and the mean over places: four features."""

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool = False) -> jax.Array:
        x = nn.Conv(4, (3, 3), name="conv")(images.astype(jnp.float32) / 255)
        return nn.Dropout(0.2, deterministic=not train)(nn.relu(x)).mean((1, 2))


TRAINED = {
    "conv": {
        "kernel": np.random.default_rng(5).normal(size=(3, 3, 3, 4)).astype(np.float32),
        "bias": np.zeros(4, np.float32),
    }
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Small(ObjectRecognition):
    """Three sets of pictures of 8×8, seen at 6×6."""

    data: tuple[str, ...] = ("flowers17", "letters", "cub10")
    side: int = 6
    kept_side: int = 8
    epochs: int = 2
    batch_size: int = 16
    head_warmup_epochs: int = 2

    def trunk(self) -> nn.Module:
        return SmallTrunk()

    def pretrained(self) -> Any:
        return TRAINED


def pictures(label: int, count: int) -> Examples:
    """Pictures of two classes, one redder than the other."""
    rng = np.random.default_rng([label, count])
    inputs = rng.integers(0, 200, (count, 8, 8, 3), np.uint8)
    labels = np.arange(count) % 2 + label
    inputs[labels == label, :, :, 0] += 55
    return Examples(inputs, labels.astype(np.int32))


# Of different sizes, so that there is filling.
TASKS = tuple(
    Task(name, (label, label + 1), pictures(label, size), pictures(label, 0), pictures(label, 10))
    for name, label, size in (("a", 0, 20), ("b", 2, 40), ("c", 4, 30))
)


def setup_of(method: Method) -> Setup:
    return prepare(Small(), method, TASKS)


def silent(_: Epoch) -> None:
    """No progress."""


SMALL: dict[str, Method] = {**METHODS, "ebll": EBLL(code_size=2)}


@pytest.mark.parametrize("name", ["ebll", "joint", "lmas", "mas", "si"])
def test_a_stopped_run_goes_on_bit_for_bit(name: str, tmp_path: Path) -> None:
    setup = setup_of(SMALL[name])
    whole = learn(setup, 0, tmp_path / "whole", silent)
    learn(setup, 0, tmp_path / "stopped", silent, stop_after=1)
    resumed = learn(setup, 0, tmp_path / "stopped", silent)
    assert resumed.accuracy == whole.accuracy
    assert resumed.loss == whole.loss
    assert len(whole.overall) == 3
    # 30 test pictures of all tasks: the mean over tasks of ten each.
    np.testing.assert_allclose(whole.overall, np.mean(whole.accuracy, axis=1), rtol=1e-6)


class Scanned(Small):
    """The same, in compiled loops."""

    def network(self, heads: Any, tasks: Any) -> Network:
        return dataclasses.replace(super().network(heads, tasks), stepwise=False)


@pytest.mark.parametrize("name", ["ebll", "ewc", "lwf", "mas", "si"])
def test_steps_from_the_host_learn_what_a_compiled_loop_learns(name: str, tmp_path: Path) -> None:
    runs = []
    for config in (Small(), Scanned()):
        setup = prepare(config, SMALL[name], TASKS)
        folder = tmp_path / type(config).__name__
        runs.append((learn(setup, 0, folder, silent), checkpoint.load(folder / STATE_FILE)))
    (stepped, state), (scanned, expected) = runs
    assert prepare(Small(), SMALL[name], TASKS).network.stepwise
    np.testing.assert_allclose(stepped.loss, scanned.loss, rtol=1e-4)
    assert stepped.importance.keys() == scanned.importance.keys()
    assert bool(stepped.importance) == (name in ("ewc", "mas", "si"))
    for path, histogram in stepped.importance.items():
        assert sum(histogram["counts"]) == sum(scanned.importance[path]["counts"])
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-4), state[0], expected[0]
    )


@pytest.mark.parametrize("name", ["mas", "si"])
def test_a_first_task_learned_before_gives_the_same_run(name: str, tmp_path: Path) -> None:
    learn(setup_of(METHODS["finetune"]), 0, tmp_path / "first", silent, stop_after=1)
    epochs = []
    shared = learn(
        setup_of(METHODS[name]),
        0,
        tmp_path / "shared",
        lambda epoch: epochs.append(epoch.task),
        first=tmp_path / "first",
    )
    whole = learn(setup_of(METHODS[name]), 0, tmp_path / "whole", silent)
    ended, expected = (checkpoint.load(tmp_path / run / STATE_FILE) for run in ("shared", "whole"))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-5), ended[0], expected[0]
    )
    assert shared.accuracy == whole.accuracy
    assert shared.untrained == whole.untrained
    np.testing.assert_allclose(shared.loss, whole.loss, rtol=1e-5)
    # SI measures along the way of the first task, too.
    assert (0 in epochs) == (name == "si")


def test_a_run_starts_from_the_trunk_that_was_trained_before(tmp_path: Path) -> None:
    seen = {}

    class Looking(type(METHODS["finetune"])):
        def record(self, memory: Any, stage: Any) -> Any:
            seen.setdefault("trunk", jax.tree.map(np.asarray, stage.params["trunk"]))
            return super().record(memory, stage)

    learn(setup_of(Looking()), 0, tmp_path, silent, stop_after=1)
    np.testing.assert_array_equal(seen["trunk"]["conv"]["kernel"], TRAINED["conv"]["kernel"])


def test_training_sees_other_views_and_drops_features_and_measuring_does_not() -> None:
    network = setup_of(METHODS["mas"]).network
    examples = to_device([(0, TASKS[0].train)], 20)
    params = {**network.init(jax.random.key(0), examples.batch), "trunk": TRAINED}
    plain, again = (network.seen(params, examples.batch).features for _ in range(2))
    np.testing.assert_array_equal(plain, again)
    middle = TASKS[0].train.inputs[:, 1:7, 1:7]
    by_hand = SmallTrunk().apply({"params": TRAINED}, middle)
    np.testing.assert_allclose(plain, by_hand, rtol=1e-5)
    drawn, other = (
        network.seen(params, examples.batch, jax.random.key(k)).features for k in (1, 2)
    )
    assert (np.asarray(drawn) != np.asarray(other)).any()


def test_letters_are_not_mirrored_and_flowers_are() -> None:
    assert Small().mirrored() == (True, False, True)
    assert Small(augmented=False).views().mirrored == ()
    network = setup_of(METHODS["mas"]).network
    assert network.views == Small().views()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"side": 9}, "--side must be from 1 to --kept-side, which is 8, got 9"),
        ({"backbone": "alexnett"}, "did you mean 'alexnet'"),
        ({"data": ("flowers17", "scenes15")}, "did you mean 'scene15'"),
        ({"head_rate": 0.0}, "--head-rate must be above 0"),
        ({"data": ("mnist", "cub10", "mnist")}, "--data names a set twice"),
        ({"data": ("mnist", "svhn"), "per_class": 5}, "are for stand-ins; svhn is taken whole"),
    ],
)
def test_settings_that_cannot_be_are_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Small(**wrong)


def test_files_that_numbers_depend_on_are_among_the_settings(tmp_path: Path) -> None:
    folder = tmp_path / "tiny_darknet_imagenet"
    folder.mkdir()
    config = registry.find("flowers_birds").config
    picked: dict[str, Any] = {"backbone": "tiny_darknet", "data_dir": tmp_path}
    config = dataclasses.replace(config, **picked)
    seen = []
    for content in (b"one", b"two"):
        (folder / "weights.npz").write_bytes(content)
        seen.append(settings(config, "mas")["digests"])
    assert seen[0] == {"weights": hashlib.sha256(b"one").hexdigest()}
    assert seen[1] == {"weights": hashlib.sha256(b"two").hexdigest()}
    at_random: dict[str, Any] = {"weights": "random"}
    assert "digests" not in settings(dataclasses.replace(config, **at_random), "mas")


def test_archives_that_may_be_any_are_among_the_settings(tmp_path: Path) -> None:
    folder = tmp_path / "oxford_flowers17"
    folder.mkdir()
    (folder / "flowers.zip").write_bytes(b"one")
    chosen: dict[str, Any] = {"data_dir": tmp_path, "weights": "random"}
    config = dataclasses.replace(registry.find("flowers_birds").config, **chosen)
    assert "digests" not in settings(config, "mas")
    # Letters' is known as the others' are.
    with_letters = ObjectRecognition(data=("letters", "cub10"), **chosen)
    assert "digests" not in settings(with_letters, "mas")
    (tmp_path / "cub200_2010_first10").mkdir()
    (tmp_path / "cub200_2010_first10" / "birds.zip").write_bytes(b"two")
    for option in ("any_copy", "skip_damaged"):
        loose: dict[str, Any] = {option: True}
        assert settings(dataclasses.replace(config, **loose), "mas")["digests"] == {
            "flowers17": hashlib.sha256(b"one").hexdigest(),
            "cub10": hashlib.sha256(b"two").hexdigest(),
        }


def test_a_network_that_diverged_is_an_error_and_not_class_0(tmp_path: Path) -> None:
    class Diverged(type(METHODS["finetune"])):
        def deployed(self, memory: Any, params: Any) -> Any:
            del memory
            return jax.tree.map(lambda leaf: leaf * np.nan, params)

    with pytest.raises(FloatingPointError, match="outputs are not finite"):
        learn(setup_of(Diverged()), 0, tmp_path, silent)


def test_facts_want_the_class_scenario() -> None:
    with pytest.raises(ValueError, match="--scenario must be class for facts"):
        SmallFacts(scenario="domain")


def test_the_papers_sequences_are_there_on_stand_ins_and_on_its_own_data() -> None:
    for name in ("birds_scenes", "scenes_birds", "flowers_birds", "flowers_scenes"):
        for end in ("", "_published"):
            config = registry.find(name + end).config
            assert isinstance(config, ObjectRecognition)
            assert len(config.data) == 2
            assert f"compare {name + end} " in (type(config).__doc__ or "")
    for name in ("eight_objects", "eight_objects_published"):
        assert len(object_recognition.SEQUENCES[name]) == 8
        # A backward pass for each of 148 or 738 outputs is out of reach.
        assert "mas_vector" not in registry.find(name).config.methods


@pytest.mark.parametrize(
    ("name", "strength"),
    [("flowers_birds_published", 2.0), ("two_tasks_published", 2.0), ("facts_2_published", 10.0)],
)
def test_published_sequences_have_the_papers_strength_as_its_code_has_it(
    name: str, strength: float
) -> None:
    config = {**registry.EXPERIMENTS, **registry.GROUPS}[name].config
    # λ of 1 and 5, whose gradient is 2λΩ(θ − θ*) there and λΩ(θ − θ*) here.
    kinds = [each for each in config.methods if each.partition("_")[0] in ("mas", "lmas")]
    found = {each: config.methods[each].strength for each in kinds if each != "mas_vector"}
    assert set(found.values()) == {strength}
    assert {"mas", "mas_both", "lmas"} <= found.keys()
    assert config.methods["ewc"].strength > 100


@real_data.needs("cub200_2010_first10", "oxford_flowers17")
def test_stand_ins_become_tasks_with_classes_numbered_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", real_data.cache(tmp_path_factory))
    config = dataclasses.replace(
        registry.find("flowers_birds").config,
        data_dir=Path(real_data.data_dir),
        kept_side=16,
        side=8,
        per_class=None,
        test_per_class=None,
    )
    first, second = object_recognition.tasks(config)  # pyright: ignore[reportArgumentType]
    assert (first.name, second.name) == ("Flowers-17", "CUB-10")
    assert first.classes == tuple(range(17))
    assert second.classes == tuple(range(17, 27))
    assert first.train.inputs.shape == (1088, 16, 16, 3)
    assert first.train.inputs.dtype == np.uint8
    assert set(second.test.labels.tolist()) == set(range(17, 27))


# Facts


def test_settings_know_6ds_by_its_pictures_too(tmp_path: Path) -> None:
    pictures, vectors = tmp_path / "sixds" / "images", tmp_path / "word_vectors"
    for folder in (pictures, vectors):
        folder.mkdir(parents=True)
    (vectors / "glove.txt").write_text("dog 1.0\n")
    lines = "file,subject,predicate,object,split\n1.jpg,dog,,,train\n"
    (tmp_path / "sixds" / "facts.csv").write_text(lines)
    config = fact_learning.FactLearning(
        data="sixds", data_dir=tmp_path, weights="random", per_class=None, test_per_class=None
    )
    seen = []
    for content in (b"a picture", b"a repaired picture"):
        (pictures / "1.jpg").write_bytes(content)
        seen.append(config.digests())
    assert seen[0]["sixds"] != seen[1]["sixds"]
    assert seen[0]["glove.txt"] == seen[1]["glove.txt"]


TARGETS = FactTargets(
    np.random.default_rng(1).normal(size=(6, 3, 2)).astype(np.float32), np.ones((6, 3), bool)
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SmallFacts(fact_learning.FactLearning):
    """The pictures above as six facts."""

    side: int = 6
    kept_side: int = 8
    epochs: int = 2
    batch_size: int = 16
    learning_rate: float = 0.02
    head_warmup_epochs: int = 2
    num_tasks: int = 3

    def trunk(self) -> nn.Module:
        return SmallTrunk()

    def pretrained(self) -> Any:
        return TRAINED

    def network(self, heads: Any, tasks: Any) -> Network:
        del tasks
        return FactNetwork(
            self.trunk(),
            heads,
            self.scenario,
            self.views(),
            stepwise=True,
            facts=Facts(TARGETS),
        )


@pytest.mark.parametrize("name", ["ewc", "lmas", "mas", "si"])
def test_facts_are_learned_by_every_method_of_the_paper(name: str, tmp_path: Path) -> None:
    setup = prepare(SmallFacts(), METHODS[name], TASKS)
    whole = learn(setup, 0, tmp_path / "whole", silent)
    learn(setup, 0, tmp_path / "stopped", silent, stop_after=2)
    assert learn(setup, 0, tmp_path / "stopped", silent).accuracy == whole.accuracy
    assert whole.loss[0][-1] < whole.loss[0][0]
    # A task's precision is the mean of its two facts', among its own pictures.
    per_fact = np.array(whole.class_accuracy[-1]).reshape(3, 2)
    np.testing.assert_allclose(whole.accuracy[-1], per_fact.mean(axis=1), rtol=1e-5)


@real_data.needs("stanford40", "word_vectors")
def test_stanford_40_is_cut_into_tasks_of_facts(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", real_data.cache(tmp_path_factory))
    config = fact_learning.FactAdaptation(
        data_dir=Path(real_data.data_dir), kept_side=8, side=8, per_class=2, test_per_class=None
    )
    tasks = fact_learning.tasks(config)
    assert [len(task.classes) for task in tasks] == [10] * 4
    facts = facts_of(sorted(STANFORD40))
    assert set(SPORTS) <= {facts[label] for label in tasks[0].classes}
    assert sum(len(task.test.labels) for task in tasks) == 5532
    network = config.network(((True,) * 40,) * 4, tasks)
    assert network.num_outputs == 150
    # Vectors of length 1, and none where a fact has no object.
    lengths = np.linalg.norm(network.facts.targets.vectors, axis=2)
    np.testing.assert_allclose(lengths, network.facts.targets.present, atol=1e-6)
