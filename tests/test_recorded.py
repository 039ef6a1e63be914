"""The results in the repository are what the README says of them."""

from pathlib import Path

import pytest

from experiments import results, tables
from experiments.methods import METHODS

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "experiments" / "recorded"
README = (ROOT / "README.md").read_text(encoding="utf-8")
RECORDED = results.read_all(FOLDER / "authors_demo")
SEEDS = {"split_mnist": 10, "split_mnist_domain": 10, "split_mnist_class": 10}
NAMES = {"finetune": "fine-tuning", "mas": "**MAS**", "joint": "joint training"}


@pytest.mark.parametrize(
    "result", RECORDED, ids=lambda result: f"{result.experiment}-{result.method}"
)
def test_the_readmes_table_is_the_recorded_one(result: results.Result) -> None:
    assert len(results.finished(result)) == 10
    (line,) = [row for row in README.splitlines() if row.startswith(f"| {NAMES[result.method]}")]
    for measure, digits in (("average_accuracy", 2), ("forgetting", 3), ("backward_transfer", 3)):
        mean, half_width = results.summary(result)[measure]
        text = f"{100 * mean:.{digits}f} ± {100 * half_width:.{digits}f}".replace("-", "−")
        assert text in line


def test_the_authors_demo_reaches_what_is_claimed() -> None:
    (mas,) = [r for r in RECORDED if (r.experiment, r.method) == ("authors_demo", "mas")]
    measures = results.summary(mas)
    assert measures["average_accuracy"][0] >= 0.992
    assert measures["forgetting"][0] <= 0.0010
    assert mas.config["evaluate_on"] == "test"


@pytest.mark.parametrize("experiment", SEEDS)
def test_the_readme_shows_every_methods_recorded_numbers(experiment: str) -> None:
    found = results.read_all(FOLDER / experiment, tuple(METHODS))
    assert {len(results.finished(result)) for result in found} == {SEEDS[experiment]}
    assert {result.experiment for result in found} == {experiment}
    assert tables.as_markdown(found) in README


@pytest.mark.parametrize("experiment", SEEDS)
def test_split_mnist_compares_all_methods(experiment: str) -> None:
    assert {result.method for result in results.read_all(FOLDER / experiment)} == set(METHODS)


def test_mas_reaches_what_is_claimed_of_it() -> None:
    mas = results.read(FOLDER / "split_mnist" / "mas" / results.FILE_NAME)
    assert results.summary(mas)["average_accuracy"][0] >= 0.992
