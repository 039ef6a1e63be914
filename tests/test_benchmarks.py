"""Benchmarks are commands; here they only have to run and measure what they say."""

import json

import pytest

from experiments.benchmarks import microbatch, penalty


def test_penalty_benchmark_prints_ratios_and_json(capsys: pytest.CaptureFixture[str]) -> None:
    penalty.main(penalty.Options(sizes=(6, 5, 3), batch_size=4, steps=2, repeats=3))
    first, second, *rest = capsys.readouterr().out.splitlines()
    assert first.startswith("anchor_penalty: ")
    assert second.startswith("anchor_proximal: ")
    report = json.loads("\n".join(rest))
    assert report["parameters"] == 6 * 5 + 5 + 5 * 3 + 3
    assert report["milliseconds_per_step"].keys() == {"plain", "anchor_penalty", "anchor_proximal"}


def test_microbatch_benchmark_prints_each_size(capsys: pytest.CaptureFixture[str]) -> None:
    options = microbatch.Options(sizes=(6, 5, 3), batch_size=4, microbatch_sizes=(1, 2), repeats=1)
    microbatch.main(options)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == [
        "micro-batch default",
        "micro-batch 1",
        "micro-batch 2",
    ]
    assert all(float(line.split()[-4]) > 0 for line in lines)
