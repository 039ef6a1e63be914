"""The results in the repository are what the README says of them."""

import json
from pathlib import Path

import pytest

from experiments import registry, results, tables
from experiments.alpha_order import CONFIGS
from experiments.analyses import adaptation, alpha_order, importance_codes, importance_data
from experiments.methods import METHODS

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "experiments" / "recorded"
README = (ROOT / "README.md").read_text(encoding="utf-8")
RECORDED = results.read_all(FOLDER / "authors_demo")
SEEDS = {
    "split_mnist": 10,
    "split_mnist_domain": 10,
    "split_mnist_class": 10,
    "split_mnist_search": 3,
    "permuted_mnist": 3,
    "permuted_mnist_wide": 3,
    "mixed_characters": 3,
}
NAMES = {"finetune": "fine-tuning", "mas": "**MAS**", "joint": "joint training"}


@pytest.mark.parametrize(
    "result", RECORDED, ids=lambda result: f"{result.experiment}-{result.method}"
)
def test_the_readmes_table_is_the_recorded_one(result: results.Result) -> None:
    assert len(results.finished(result)) == 10
    section = README.split("### The authors' demonstration", maxsplit=1)[1]
    (line,) = [row for row in section.splitlines() if row.startswith(f"| {NAMES[result.method]}")]
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


@pytest.mark.parametrize(
    "name",
    [
        "scenes_birds_strengths",
        "flowers_birds_longer",
        "eight_objects_middle_view",
        "eight_objects_default",
    ],
)
def test_the_readme_shows_photographs_with_other_settings(name: str) -> None:
    assert tables.as_markdown(results.read_all(FOLDER / name, tuple(METHODS))) in README


@pytest.mark.parametrize("experiment", SEEDS)
def test_every_method_of_the_experiment_is_recorded(experiment: str) -> None:
    recorded = {result.method for result in results.read_all(FOLDER / experiment)}
    assert recorded == set(registry.find(experiment).config.methods)


@pytest.mark.parametrize(
    ("experiment", "least"),
    [("split_mnist", 0.992), ("permuted_mnist", 0.945), ("permuted_mnist_wide", 0.96)],
)
def test_mas_reaches_what_is_claimed_of_it(experiment: str, least: float) -> None:
    mas = results.read(FOLDER / experiment / "mas" / results.FILE_NAME)
    accuracies = [record.accuracy[-1] for record in results.finished(mas)]
    assert min(sum(row) / len(row) for row in accuracies) >= least


def test_the_readme_gives_the_vector_output_with_the_authors_norm() -> None:
    result = results.read(FOLDER / "split_mnist_vector_l1" / "mas_vector" / results.FILE_NAME)
    assert len(results.finished(result)) == 10
    measures = results.summary(result)
    accuracy, forgetting = (measures[name] for name in ("average_accuracy", "forgetting"))
    text = "it has {:.2f} ± {:.2f} and forgets {:.3f} ± {:.3f}".format(
        *(100 * value for value in (*accuracy, *forgetting))
    )
    assert text in " ".join(README.split())


def test_the_readme_shows_what_balancing_changes() -> None:
    table = alpha_order.compared(FOLDER)
    assert table in README
    for name in CONFIGS:
        for result in results.read_all(FOLDER / name):
            assert len(results.finished(result)) == 10


def test_the_readme_shows_what_one_class_keeps() -> None:
    assert adaptation.compared(FOLDER / "adaptation") in README
    for result in results.read_all(FOLDER / "adaptation"):
        assert len(results.finished(result)) == 3


@pytest.mark.parametrize("code", importance_codes.CODES)
def test_a_run_of_every_code_of_importance_is_recorded(code: str) -> None:
    path = FOLDER / "split_mnist_importance_codes" / code / "mas" / results.FILE_NAME
    result = results.read(path)
    assert [record.seed for record in results.finished(result)] == list(range(10))
    assert result.config["evaluate_on"] == "test"
    options = {name: result.config["method"].get(name) for name in ("importance_as", "code")}
    assert options == {
        "importance_as": code if code in ("bfloat16", "log8") else None,
        "code": "linear8" if code == "linear8" else None,
    }
    # But for the code they are one experiment.
    exact = results.read(path.parents[2] / "exact" / "mas" / results.FILE_NAME)
    own = {name: value for name, value in result.config["method"].items() if name not in options}
    assert {**result.config, "method": own} == exact.config


def test_the_readme_holds_codes_against_methods_without_importance() -> None:
    forgotten = [
        100
        * results.summary(results.read(FOLDER / "split_mnist" / method / results.FILE_NAME))[
            "forgetting"
        ][0]
        for method in ("finetune", "l2")
    ]
    text = "without any penalty it is {:.3f} points, with all entries alike (`l2`) {:.3f}"
    assert text.format(*forgotten) in " ".join(README.split())


def test_the_readme_gives_the_recorded_rank_correlations() -> None:
    path = FOLDER / "importance_data" / importance_data.FILE_NAME
    pairs = json.loads(path.read_text(encoding="utf-8"))["pairs"]
    text = " ".join(README.split())
    for other, words in (
        ("test data", "a rank correlation of {} to {} with those from training images"),
        ("training data of class", "and of {} to {} where they are measured on one"),
    ):
        found = [p["rank_correlation"] for p in pairs if p["y"].startswith(other)]
        low, high = (f"{value:.2f}" for value in (min(found), max(found)))
        assert words.format(low, high) in text
