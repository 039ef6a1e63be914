"""Settings out of range, and which of them make a different run."""

from typing import Any

import pytest

from experiments import config as configs
from experiments.methods import MAS
from experiments.registry import EXPERIMENTS, find
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
        ({"classes": ()}, "--classes must be at least one task"),
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
    assert settings["method"] == {"name": "mas", "strength": 0.2, "rule": "sum"}
    assert settings == configs.settings(tiny.Tiny(seeds=8, first_seed=2), "mas")
    assert settings != configs.settings(tiny.Tiny(epochs=9), "mas")
    assert not settings.keys() & {"seeds", "first_seed", "data_dir", "methods"}


def test_every_experiment_says_claim_run_time_and_command() -> None:
    for name, experiment in EXPERIMENTS.items():
        description = type(experiment.config).__doc__ or ""
        assert "Claim:" in description
        assert "Run time:" in description
        assert f"python -m experiments compare {name}" in description


def test_an_unknown_experiment_is_answered_with_the_nearest() -> None:
    with pytest.raises(ValueError, match="'split_mnits'; did you mean 'split_mnist'"):
        find("split_mnits")
