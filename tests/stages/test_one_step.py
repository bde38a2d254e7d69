"""Masks straight from photos are those of the stages, byte for byte."""

import json
import shutil
from pathlib import Path

import pytest

from tiny import TINY, Start, masks
from weakseg.errors import WeaksegError
from weakseg.files import read_json
from weakseg.recipe import Recipe, check_recipe


def _one_step(**sections: dict | None) -> Recipe:
    localize = {**TINY["localize"], "keep": False}
    return check_recipe({**TINY, "localize": localize, **sections}, "tiny")


@pytest.mark.parametrize(
    ("name", "sections"),
    [
        ("svm+crf", {}),
        ("svm", {"crf": None}),
        ("cam+crf", {"svm": None, "crf": None}),
    ],
)
def test_the_same_bytes_as_by_stages(
    finished: Path, photos: Path, start: Start, tmp_path: Path, name: str, sections: dict
) -> None:
    out = tmp_path / "out"
    start(photos, out, _one_step(**sections))
    by_stages = {
        path: content
        for path, content in masks(finished).items()
        if path.startswith(f"{name}/") and path.endswith(".png")
    }
    assert len(by_stages) == 10
    classifier = "classify/classifier.safetensors"
    assert masks(out) == {**by_stages, classifier: masks(finished)[classifier]}
    rows = read_json(out / "metrics.json")["stages"]
    its = [row for row in read_json(finished / "metrics.json")["stages"] if row["name"] == name]
    assert rows == its
    assert len(list((out / "panels").glob("*.jpg"))) == 2


def test_goes_on_with_what_is_there(photos: Path, start: Start, tmp_path: Path) -> None:
    start(photos, tmp_path / "whole", _one_step())
    cut_off = Path(shutil.copytree(tmp_path / "whole", tmp_path / "cut_off"))
    record = read_json(cut_off / "run.json")
    record["stages"]["svm+crf"]["finished"] = False
    (cut_off / "run.json").write_text(json.dumps(record))
    for path in sorted((cut_off / "svm+crf").iterdir())[3:]:
        path.unlink()
    said = start(photos, cut_off, _one_step()).said
    assert "svm+crf: 3 of 10 done before" in said
    assert masks(cut_off) == masks(tmp_path / "whole")


def test_keeping_cams_starts_with_them(photos: Path, start: Start, tmp_path: Path) -> None:
    start(photos, tmp_path, _one_step())
    said = start(photos, tmp_path, check_recipe(TINY, "tiny")).said
    assert "classify: up to date" in said
    assert (tmp_path / "localize").is_dir() and "svm+crf: up to date" not in said


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"svm": None, "crf": None, "cam_crf": None}, "made by svm or cam_crf"),
        ({"separate": {"class_name": "car", "masks": "svm"}}, "leave localize.keep true"),
        (
            {
                "segment": {
                    "masks": "cam+crf",
                    "backbone": TINY["backbone"],
                    "epochs": 1,
                    "batch_size": 2,
                    "optimizer": TINY["classify"]["optimizer"],
                }
            },
            "this recipe makes svm\\+crf",
        ),
    ],
)
def test_a_recipe_that_needs_what_is_not_kept(sections: dict, message: str) -> None:
    with pytest.raises(WeaksegError, match=message):
        _one_step(**sections)
