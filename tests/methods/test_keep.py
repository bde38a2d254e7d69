"""Masks of steps whose inputs are not kept are those of steps whose are, byte for byte."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tiny import SEGMENT, STEPS, Start, masks, tiny_recipe
from weakseg.errors import WeaksegError
from weakseg.files import read_json

UNKEPT = {"keep": False}
ALONE: dict[str, dict[str, Any]] = {
    "svm+crf": {"localize": UNKEPT, "cam": None, "cam+crf": None, "seed": None, "svm": UNKEPT},
    "svm": {"localize": UNKEPT, "cam": None, "cam+crf": None, "seed": None, "svm+crf": None},
    "cam+crf": {"localize": UNKEPT, "cam": UNKEPT, "seed": None, "svm": None, "svm+crf": None},
}
"""Changes that leave nothing but the masks of a step."""


@pytest.mark.parametrize("name", ALONE)
def test_the_same_bytes_as_of_steps_that_are_kept(
    finished: Path, photos: Path, start: Start, tmp_path: Path, name: str
) -> None:
    out = tmp_path / "out"
    start(photos, out, tiny_recipe(**ALONE[name]))
    kept = {
        path: content for path, content in masks(finished).items() if path.startswith(f"{name}/")
    }
    assert sum(path.endswith(".png") for path in kept) == 10
    classifier = "classify/classifier.safetensors"
    assert masks(out) == {**kept, classifier: masks(finished)[classifier]}
    rows = read_json(out / "metrics.json")["stages"]
    its = [row for row in read_json(finished / "metrics.json")["stages"] if row["name"] == name]
    assert rows == its
    assert len(list((out / "panels").glob("*.jpg"))) == 2


def test_goes_on_with_what_is_there(photos: Path, start: Start, tmp_path: Path) -> None:
    recipe = tiny_recipe(**ALONE["svm+crf"])
    start(photos, tmp_path / "whole", recipe)
    cut_off = Path(shutil.copytree(tmp_path / "whole", tmp_path / "cut_off"))
    record = read_json(cut_off / "run.json")
    record["steps"]["svm+crf"]["finished"] = False
    (cut_off / "run.json").write_text(json.dumps(record))
    for path in sorted((cut_off / "svm+crf").iterdir())[3:]:
        path.unlink()
    said = start(photos, cut_off, recipe).said
    assert "svm+crf: 3 of 10 done before" in said
    assert masks(cut_off) == masks(tmp_path / "whole")


def test_keeping_all_makes_what_was_not_kept_alone(
    finished: Path, photos: Path, start: Start, tmp_path: Path
) -> None:
    start(photos, tmp_path, tiny_recipe(**ALONE["svm+crf"]))
    said = start(photos, tmp_path, tiny_recipe()).said
    assert {"classify: up to date", "svm+crf: up to date"} < set(said)
    assert masks(tmp_path) == masks(finished)


def test_maps_that_are_not_kept_take_a_network_behind_a_threshold_as_well(
    finished: Path, photos: Path, start: Start, tmp_path: Path
) -> None:
    left_out: dict[str, Any] = dict.fromkeys(("seed", "svm", "svm+crf"))
    for localize, taken in (({}, False), (UNKEPT, True)):
        recipe = tiny_recipe(localize=localize, **left_out)
        steps = {step.name: step for step in recipe.build(tmp_path)}
        assert steps["cam"].uses_network == steps["cam+crf"].uses_network == taken
    start(photos, tmp_path, recipe)
    kept = {path: its for path, its in masks(finished).items() if path.startswith("cam")}
    found = {path: its for path, its in masks(tmp_path).items() if path.startswith("cam")}
    assert found == kept
    rows = read_json(tmp_path / "metrics.json")["stages"]
    known = {row["name"]: row for row in read_json(finished / "metrics.json")["stages"]}
    assert rows == [known[name] for name in ("cam", "cam-oracle", "cam+crf")]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"localize": UNKEPT}, r"localize\.keep: .* here these do: cam, seed, svm\. Keep it, or"),
        ({"svm+crf": UNKEPT}, r"svm\+crf\.keep: .* here these do: none"),
        ({"classify": UNKEPT}, r"classify\.keep: a step of kind classifier has to be kept"),
        ({"cam": {"keep": "no"}}, r"cam\.keep: expected true or false, given 'no'"),
        (
            {"svm+crf": UNKEPT, "segmenter": {**SEGMENT["segmenter"], "of": "svm+crf"}},
            r"svm\+crf\.keep: segmenter reads its files, so that it has to be kept",
        ),
        (
            {
                "own-tags": {"kind": "tags", "only": ["cat"]},
                "own-classify": {**STEPS["classify"], "of": "own-tags"},
                "own": {"kind": "cam", "of": "own-classify", "scales": [1.0], **UNKEPT},
                "own-cam": {**STEPS["cam"], "of": "own", **UNKEPT},
                "merged": {"kind": "combine", "of": ["cam", "own-cam"], "how": "fill"},
            },
            r"tiny: own-cam\.keep: merged sees other tags than it, so that it has to be kept\.$",
        ),
    ],
)
def test_a_recipe_that_needs_what_is_not_kept(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(WeaksegError, match=message):
        tiny_recipe(**changes)
