"""Settings out of range, and which of them make a different run."""

from typing import Any

import pytest

from experiments import config as configs
from experiments.config import Search
from experiments.methods import MAS
from experiments.registry import EXPERIMENTS, GROUPS, find
from tests import tiny


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"epochs": 0}, "--epochs must be at least 1, got 0"),
        ({"batch_size": 0}, "--batch-size must be at least 1"),
        ({"seeds": 0}, "--seeds must be at least 1"),
        ({"first_seed": -1}, "--first-seed must be at least 0"),
        ({"learning_rate": 0.0}, "--learning-rate must be above 0"),
        ({"learning_rate": float("nan")}, "--learning-rate must be above 0, and finite, got nan"),
        ({"momentum": 1.0}, r"--momentum must be in \[0, 1\)"),
        ({"hidden_sizes": (4, 0)}, "--hidden-sizes must be"),
        ({"hidden_sizes": ()}, "--hidden-sizes must be"),
        ({"classes": ()}, "--classes must be at least two tasks"),
        ({"classes": ((4, 1),)}, r"--classes must be at least two tasks, got \(\(4, 1\),\)"),
        ({"steps_per_epoch": 0}, "--steps-per-epoch must be at least 1, got 0"),
        ({"head_warmup_epochs": -1}, "--head-warmup-epochs must be at least 0"),
        ({"search": Search(enabled=True)}, "--validation-fraction must be above 0 where"),
        ({"search": Search(learning_rates=())}, "--search.learning-rates must be above 0"),
        ({"search": Search(learning_rates=(0.1, -1.0))}, "--search.learning-rates must be above 0"),
        ({"search": Search(first_strength=0.0)}, "--search.first-strength must be above 0"),
        ({"search": Search(margin=1.0)}, r"--search.margin must be in \[0, 1\), got 1.0"),
        ({"search": Search(max_halvings=-1)}, "--search.max-halvings must be at least 0"),
        ({"validation_fraction": 0.95}, r"--validation-fraction must be in \[0, 0.9\]"),
        ({"evaluate_on": "validation"}, "--validation-fraction must be above 0 where"),
    ],
)
def test_a_setting_out_of_range_is_named(settings: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        tiny.Tiny(**settings)


@pytest.mark.parametrize("strength", [-1.0, float("inf")])
def test_a_methods_setting_out_of_range_is_named(strength: float) -> None:
    with pytest.raises(ValueError, match="strength must be a finite number of at least 0"):
        MAS(strength=strength)


def test_settings_are_those_that_change_the_numbers_of_one_method() -> None:
    settings = configs.settings(tiny.Tiny(seeds=7), "mas")
    assert settings["method"] == {
        "name": "mas", "strength": 0.2, "output": "squared_norm", "data": "train", "only": [],
        "rule": "sum",
    }  # fmt: skip
    assert settings == configs.settings(tiny.Tiny(seeds=8, first_seed=2), "mas")
    assert settings != configs.settings(tiny.Tiny(epochs=9), "mas")
    assert not settings.keys() & {"seeds", "first_seed", "data_dir", "methods"}


def test_importance_stored_exactly_is_the_settings_of_runs_from_before_there_was_a_choice() -> None:
    coded = {
        code: configs.settings(tiny.Tiny(methods={"mas": MAS(importance_as=code)}), "mas")
        for code in ("exact", "log8")
    }
    without = {name: value for name, value in MAS().__dict__.items() if name != "importance_as"}
    assert coded["exact"]["method"] == {**without, "name": "mas", "only": []}
    assert coded["log8"]["method"] == {
        **without,
        "name": "mas",
        "only": [],
        "importance_as": "log8",
    }


@pytest.mark.parametrize("name", [*EXPERIMENTS, *GROUPS])
def test_every_experiment_says_claim_run_time_and_command(name: str) -> None:
    entry = EXPERIMENTS[name] if name in EXPERIMENTS else GROUPS[name]
    description = type(entry.config).__doc__ or ""
    assert "Claim:" in description
    assert "Run time:" in description
    assert f"python -m experiments compare {name}" in description


def test_an_unknown_experiment_is_answered_with_the_nearest() -> None:
    with pytest.raises(ValueError, match="'split_mnits'; did you mean 'split_mnist'"):
        find("split_mnits")
