"""One importance against another: the file, the picture, the section of the page."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments.report import pairs, write_report
from tests.test_report import Page, make_result, write_results

PAIR = {
    "x": "training data",
    "y": "test data",
    "parameter": "trunk/hidden_0/kernel",
    "points": [[0.1, 0.2], [10.0, 20.0], [0.0, 0.5], [0.0, 0.0]],
    "rank_correlation": 0.98765,
    "count": 4096,
    "zeros": {"both": 1000, "x": 12, "y": 3},
}
CONTENT = {
    "format": 1,
    "kind": "importance_pairs",
    "experiment": "split_digits",
    "description": "Test data says the same.\n\n    python -m experiments pairs",
    "pairs": [PAIR, {**PAIR, "y": "<one class>", "rank_correlation": -0.5}],
    "command": "python -m experiments pairs split_digits",
    "versions": {"jax": "0.10.2"},
    "machine": {"cores": 2},
    "seed": 17,
}


def write_pairs(directory: Path, **changes: Any) -> Path:
    """One file of pairs."""
    path = directory / "deep" / "importance_pairs.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({**CONTENT, **changes}), encoding="utf-8")
    return path


def test_a_file_is_read_as_it_was_written(tmp_path: Path) -> None:
    found = pairs.read(write_pairs(tmp_path))
    assert (found.experiment, found.seed, len(found.pairs)) == ("split_digits", 17, 2)
    np.testing.assert_array_equal(found.pairs[0].points, PAIR["points"])
    assert found.pairs[0].zeros == PAIR["zeros"]


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"format": 2}, "another format"),
        ({"kind": "something"}, "another format"),
        ({"pairs": []}, "it holds no pairs"),
        ({"pairs": [{**PAIR, "points": [[1.0, -1.0]]}]}, "hidden_0/kernel' must be finite"),
        ({"pairs": [{**PAIR, "points": [[1.0, float("nan")]]}]}, "must be finite"),
        ({"pairs": [{**PAIR, "points": [[1.0]]}]}, "reshape"),
        ({"pairs": [{**PAIR, "zeros": {"both": 1}}]}, "'x'"),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_a_file_of_another_kind_is_refused_by_name(
    tmp_path: Path, changes: dict[str, Any], text: str
) -> None:
    path = write_pairs(tmp_path, **changes)
    with pytest.raises(ValueError, match=r"importance_pairs\.json is not a file of pairs") as error:
        pairs.read(path)
    assert text in str(error.value)


def test_points_above_zero_are_drawn_on_equal_log_scales(tmp_path: Path) -> None:
    figure = pairs.scatter(pairs.read(write_pairs(tmp_path)), 3)
    axes = figure.axes[0]
    dots = axes.lines[0].get_xydata()
    np.testing.assert_array_equal(dots, [[0.1, 0.2], [10.0, 20.0]])
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    assert axes.get_xlim() == axes.get_ylim()
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("Ω, training data", "Ω, test data")
    notes = [text.get_text() for panel in figure.axes for text in panel.texts]
    assert notes == ["rank corr. 0.988", "rank corr. −0.500"]


def test_pairs_without_a_point_above_zero_are_drawn(tmp_path: Path) -> None:
    zeros = {**PAIR, "points": [[0.0, 0.0]], "rank_correlation": float("nan")}
    figure = pairs.scatter(pairs.read(write_pairs(tmp_path, pairs=[zeros])), 2)
    assert [text.get_text() for text in figure.axes[0].texts] == ["rank corr. –"]


def test_values_of_one_magnitude_have_a_scale(tmp_path: Path) -> None:
    close = {**PAIR, "points": [[2.0, 3.0], [2.5, 3.5]]}
    figure = pairs.scatter(pairs.read(write_pairs(tmp_path, pairs=[close])), 2)
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == ["10⁰", "10¹"]


def test_pairs_have_a_section_of_their_own_after_the_experiments(tmp_path: Path) -> None:
    write_results(tmp_path, make_result())
    write_pairs(tmp_path)
    page = Page(write_report(tmp_path).read_text(encoding="utf-8"))
    assert [attributes["href"] for _, attributes in page.all("a")] == [
        "#experiment-1",
        "#experiment-2",
    ]
    rows = page.table("Agreement of the two")
    assert rows[1] == [
        "trunk/hidden_0/kernel", "training data", "test data", "0.988", "4,096",
        "1,000", "12", "3",
    ]  # fmt: skip
    assert rows[2][2] == "<one class>"
    assert "seed: 17" in page.text
    assert "python -m experiments pairs split_digits" in page.text
    *_, (_, image) = page.all("img")
    assert "training data against test data: 0.988" in (image["alt"] or "")


def test_pairs_alone_make_a_page(tmp_path: Path) -> None:
    write_pairs(tmp_path)
    path = write_report(tmp_path)
    assert len(Page(path.read_text(encoding="utf-8")).all("section")) == 1
    assert sorted(found.name for found in path.parent.glob("*.png")) == [
        "1-split_digits-pairs-narrow.png",
        "1-split_digits-pairs.png",
    ]
