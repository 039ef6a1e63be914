"""The demonstration's claim, on real digits with one seed and a shortened schedule."""

import dataclasses
from pathlib import Path

import numpy as np

from experiments import sequence, split_digits
from experiments.setup import prepare
from mas_jax import metrics


def test_mas_keeps_what_finetuning_forgets(tmp_path: Path) -> None:
    config = dataclasses.replace(split_digits.SplitDigits(), epochs=8)
    tasks = split_digits.tasks(config)
    matrices = {}
    for name in ("finetune", "mas"):
        setup = prepare(config, config.methods[name], tasks)
        record = sequence.learn(setup, 0, tmp_path / name, lambda _: None)
        matrices[name] = np.array(record.accuracy)
    assert metrics.forgetting(matrices["finetune"]) > 0.02
    assert metrics.forgetting(matrices["mas"]) < 0.01
    assert metrics.average_accuracy(matrices["mas"]) > 0.97
