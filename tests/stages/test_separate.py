from pathlib import Path

import numpy as np
import pytest

from tiny import TINY, Start
from weakseg.data.dataset import load_dataset
from weakseg.data.masks import read_mask
from weakseg.errors import WeaksegError
from weakseg.files import read_json
from weakseg.recipe import Recipe, check_recipe


def _recipe(class_name: str, masks: str = "cam+crf", **sections: object) -> Recipe:
    values = {
        **TINY,
        "svm": None,
        "crf": None,
        "data": {"split": "all", "drop_classes": [class_name]},
        "separate": {"class_name": class_name, "masks": masks},
    }
    return check_recipe(values | sections, "tiny")


def test_a_dropped_class_comes_back_where_others_leave_background(
    photos: Path, start: Start, tmp_path: Path
) -> None:
    dataset = load_dataset(photos)
    name = "flower"
    assert any(name in s.tags and len(s.tags) > 1 for s in dataset.samples)
    start(photos, tmp_path, _recipe(name))
    class_id = dataset.classes.index(name) + 1
    filled = 0
    for sample in dataset.samples:
        if not set(sample.tags) - {name}:
            assert not (tmp_path / "merged" / f"{sample.id}.png").exists()
            continue
        base = read_mask(tmp_path / "cam+crf" / f"{sample.id}.png")
        merged = read_mask(tmp_path / "merged" / f"{sample.id}.png")
        own = tmp_path / "separate" / "cam+crf" / f"{sample.id}.png"
        expected = base.copy()
        assert own.exists() == (name in sample.tags)
        if own.exists():
            expected[(base == 0) & (read_mask(own) != 0)] = class_id
        np.testing.assert_array_equal(merged, expected)
        assert class_id not in base
        filled += int((merged == class_id).sum())
    assert filled > 0
    rows = {row["name"]: row for row in read_json(tmp_path / "metrics.json")["stages"]}
    assert rows["merged"]["protocol"]["separate"] == name
    assert rows["merged"]["per_class"][name] > rows["cam+crf"]["per_class"][name] == 0


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"masks": "svm"}, "separate.masks is 'svm'; this recipe makes cam, cam\\+crf"),
        ({"masks": "merged"}, "separate.masks is 'merged'"),
        ({"cam_crf": None, "masks": "cam"}, "separate needs the section cam_crf"),
    ],
)
def test_what_cant_be_merged_is_one_clear_error(values: dict, message: str) -> None:
    with pytest.raises(WeaksegError, match=message):
        _recipe("cat", **values)
