"""Pictures of facts before and after other tasks: the file, the picture, the section."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments.report import projections, write_report
from tests.test_report import Page, make_result, write_results

NAMES = ("<person, climb>", "<person, ride, horse>", "<person, run>")


def content(methods: tuple[str, ...] = ("finetune", "mas"), each: int = 5) -> dict[str, Any]:
    """Three facts, `each` pictures of each; methods move them to the right by 1, 2, …"""
    rng = np.random.default_rng(0)
    vectors = np.array([[-2.0, 0.0], [2.0, -1.0], [0.0, 1.5]])
    labels = np.repeat(np.arange(3), each)
    before = vectors[labels] + 0.3 * rng.normal(size=(3 * each, 2))
    after = {name: before + np.array([n, 0.5]) for n, name in enumerate(methods, start=1)}
    return {
        "format": 1,
        "kind": "fact_projections",
        "experiment": "facts_4",
        "description": "Before and after.",
        "facts": list(NAMES),
        "vectors": vectors.tolist(),
        "share": 0.6123,
        "labels": labels.tolist(),
        "before": before.tolist(),
        "after": {name: places.tolist() for name, places in after.items()},
        "distances": {"before": 0.5, "after": {n: 1.25 + k for k, n in enumerate(methods)}},
        "command": "python -m experiments.analyses.fact_embeddings runs/facts_4",
        "versions": {"jax": "0.10.2"},
        "machine": {"cores": 2},
        "seed": 0,
    }


def write(directory: Path, **changes: Any) -> Path:
    """One file of projections."""
    path = directory / "deep" / "projections.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({**content(), **changes}), encoding="utf-8")
    return path


def test_a_file_is_read_as_it_was_written(tmp_path: Path) -> None:
    found = projections.read(write(tmp_path))
    assert (found.facts, found.seed, list(found.after)) == (NAMES, 0, ["finetune", "mas"])
    np.testing.assert_array_equal(found.after["mas"], content()["after"]["mas"])


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"format": 2}, "another format"),
        ({"kind": "importance_pairs"}, "another format"),
        ({"after": {}}, "holds no method"),
        ({"labels": []}, "labels must be of the 3 facts"),
        ({"labels": [3] * 15}, "labels must be of the 3 facts"),
        ({"before": [[0.0, 1.0]]}, "'before' must be 15 places of finite values, got 1"),
        ({"after": {"mas": [[float("nan"), 0.0]] * 15}}, "'mas' must be 15 places"),
        ({"distances": {"before": 0.5, "after": {}}}, "distances must be those"),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_a_file_of_another_kind_is_refused_by_name(
    tmp_path: Path, changes: dict[str, Any], text: str
) -> None:
    path = write(tmp_path, **changes)
    with pytest.raises(ValueError, match=r"projections\.json is not a file of proj") as error:
        projections.read(path)
    assert text in str(error.value)


@pytest.mark.parametrize("columns", [2, 3])
def test_each_method_has_a_panel_with_hollow_filled_and_cross(tmp_path: Path, columns: int) -> None:
    found = projections.read(write(tmp_path))
    panels = projections.planes(found, columns).axes
    assert [axes.get_title(loc="left") for axes in panels] == ["finetune", "mas"]
    for axes, after in zip(panels, found.after.values(), strict=True):
        # Before, after, from mean to mean, the cross on white: five lines for each fact.
        hollow, filled, moved, _, cross = axes.lines[5:10]
        own = found.labels == 1
        np.testing.assert_array_equal(hollow.get_xydata(), found.before[own])
        assert hollow.get_markerfacecolor() == "none"
        np.testing.assert_array_equal(filled.get_xydata(), after[own])
        assert filled.get_markerfacecolor() == filled.get_color()
        np.testing.assert_allclose(np.diff(moved.get_xydata(), axis=0), [(after - found.before)[0]])
        np.testing.assert_array_equal(cross.get_xydata(), found.vectors[1:2])
        assert cross.get_marker() == "x"
    assert len({(axes.get_xlim(), axes.get_ylim()) for axes in panels}) == 1
    low, high = panels[0].get_xlim()
    every = np.concatenate([found.before, *found.after.values()])[:, 0]
    assert low < every.min() < every.max() < high


def test_a_fact_without_pictures_is_a_cross_alone(tmp_path: Path) -> None:
    found = projections.read(write(tmp_path, labels=[0] * 15))
    assert len(projections.planes(found, 3).axes[0].lines) == 5 + 4 + 4


def test_projections_have_a_section_of_their_own_after_the_experiments(tmp_path: Path) -> None:
    write_results(tmp_path, make_result())
    write(tmp_path)
    page = Page(write_report(tmp_path).read_text(encoding="utf-8"))
    links = [attributes["href"] for _, attributes in page.all("a")]
    assert links == ["#experiment-1", "#experiment-2"]
    assert page.table("Mean squared distance of pictures to their fact's vector")[1:] == [
        ["finetune", "0.500", "1.250"],
        ["mas", "0.500", "2.250"],
    ]
    *_, (_, image) = page.all("img")
    assert "<person, climb>, <person, ride, horse>" in (image["alt"] or "")
    assert "0.500 before and afterwards: finetune 1.250, mas 2.250" in (image["alt"] or "")
    assert "61 % of their variance" in page.text
    assert "fact_embeddings runs/facts_4" in page.text


def test_projections_alone_make_a_page(tmp_path: Path) -> None:
    write(tmp_path)
    path = write_report(tmp_path)
    assert sorted(found.name for found in path.parent.glob("*.png")) == [
        "1-facts_4-projections-narrow.png",
        "1-facts_4-projections.png",
    ]
