"""Mixed characters: five data sets' splits, their classes numbered on, nothing else changed."""

import numpy as np
import pytest

from experiments.data import chars74k, digits, fashion_mnist, folders, mixed, mnist, omniglot
from experiments.data.sequences import hold_out
from experiments.data.types import DataDamagedError, DataNotFoundError, Examples, Splits
from tests import real_data

CLASSES = {mnist: 10, fashion_mnist: 10, omniglot: 4, chars74k: 26}


def splits(classes: int, seed: int) -> Splits:
    """Twelve training and three test examples of each class, each all its own."""
    rng = np.random.default_rng(seed)

    def part(each: int) -> Examples:
        labels = np.tile(np.arange(classes, dtype=np.int32), each)
        return Examples(rng.normal(size=(len(labels), 784)).astype(np.float32), labels)

    return Splits(part(12), part(3))


SETS = {module: splits(count, seed) for seed, (module, count) in enumerate(CLASSES.items())}


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple]:
    """Replace four data sets by small ones; what their `load` is asked for."""
    calls = []
    for module, found in SETS.items():

        def load(data_dir, found=found, name=module.__name__, **options):
            calls.append((name.split(".")[-1], data_dir, options))
            return found

        monkeypatch.setattr(module, "load", load)
    return calls


def test_tasks_are_the_whole_data_sets_with_classes_numbered_on(asked):
    tasks = mixed.load("here", alphabet="Old_(Other)")
    assert asked == [
        ("mnist", "here", {}),
        ("fashion_mnist", "here", {}),
        ("omniglot", "here", {"alphabet": "Old_(Other)"}),
        ("chars74k", "here", {}),
    ]
    assert [task.name for task in tasks] == [
        *("MNIST", "Fashion-MNIST", "Omniglot Old (Other)", "Chars74K letters", "digits"),
    ]
    # 10 + 10 + 4 + 26 + 10.
    assert [label for task in tasks for label in task.classes] == list(range(60))
    sources = [*SETS.values(), digits.load_resized()]
    for task, source, offset in zip(tasks, sources, (0, 10, 20, 24, 50), strict=True):
        np.testing.assert_array_equal(task.train.labels, source.train.labels + offset)
        np.testing.assert_array_equal(task.test.labels, source.test.labels + offset)
        np.testing.assert_array_equal(task.train.inputs, source.train.inputs)
        np.testing.assert_array_equal(task.test.inputs, source.test.inputs)
        assert task.validation.inputs.shape == (0, 784)
        assert set(task.train.labels) == set(task.test.labels) == set(task.classes)
        assert task.train.labels.dtype == task.validation.labels.dtype == np.int32


def test_validation_is_drawn_as_from_each_data_set_alone(asked):
    del asked
    tasks = mixed.load(validation_fraction=0.25, seed=7)
    for task, source in zip(tasks, SETS.values(), strict=False):
        train, validation = hold_out(source.train, validation_fraction=0.25, seed=7)
        np.testing.assert_array_equal(task.train.inputs, train.inputs)
        np.testing.assert_array_equal(task.validation.inputs, validation.inputs)
        # A quarter of twelve.
        counts = np.bincount(task.validation.labels - task.classes[0])
        assert counts.tolist() == [3] * len(task.classes)


def test_a_task_left_without_validation_examples_is_refused(asked):
    del asked
    with pytest.raises(ValueError, match=r"task 'MNIST' is left without validation examples"):
        mixed.load(validation_fraction=0.02)


def test_all_missing_data_sets_are_named_at_once(asked, monkeypatch, tmp_path):
    del asked
    monkeypatch.undo()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv(folders.DATA_DIR_VARIABLE, raising=False)
    (tmp_path / "data").mkdir()
    with pytest.raises(DataNotFoundError) as caught:
        mixed.load(tmp_path / "data")
    text = str(caught.value)
    starts = ("MNIST is", "Fashion-MNIST is", "Omniglot's evaluation set is", "Chars74K (English")
    for start, paragraph in zip(starts, text.split("\n\n"), strict=True):
        assert paragraph.startswith(start)
        assert "into the folder\n" in paragraph


def test_damage_is_told_at_once(asked, monkeypatch):
    del asked

    def damaged(*_, **__):
        raise DataDamagedError("a broken file")

    monkeypatch.setattr(fashion_mnist, "load", damaged)
    with pytest.raises(DataDamagedError, match=r"^a broken file$"):
        mixed.load()


@real_data.needs("mnist", "fashion_mnist", "omniglot", "chars74k_goodimg")
def test_real_tasks_have_their_sizes_classes_and_moments_and_load_alike_again(
    monkeypatch, tmp_path_factory
):
    monkeypatch.setenv("XDG_CACHE_HOME", real_data.cache(tmp_path_factory))
    tasks = mixed.load(real_data.data_dir, validation_fraction=0.1)
    sizes = [sum(len(part.labels) for part in task[2:5]) for task in tasks]
    assert sizes == [70000, 70000, 900, 5202, 1797]
    assert [len(task.classes) for task in tasks] == [10, 10, 45, 26, 10]
    assert [len(task.test.labels) for task in tasks] == [10000, 10000, 225, 1045, 445]
    assert [label for task in tasks for label in task.classes] == list(range(101))
    for task in tasks:
        assert abs(task.train.inputs.mean(dtype=np.float64)) < 0.01
        assert abs(task.train.inputs.std(dtype=np.float64) - 1) < 0.01
        assert all(set(part.labels) == set(task.classes) for part in task[2:5])
    again = mixed.load(real_data.data_dir, validation_fraction=0.1)
    for task, other in zip(tasks, again, strict=True):
        for one, two in zip(task[2:5], other[2:5], strict=True):
            np.testing.assert_array_equal(one.inputs, two.inputs)
            np.testing.assert_array_equal(one.labels, two.labels)
