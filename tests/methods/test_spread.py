from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.isotonic import IsotonicRegression

from tiny import CELLS, Start, tiny_recipe
from weakseg.data.dataset import load_dataset
from weakseg.data.masks import read_mask
from weakseg.errors import WeaksegError
from weakseg.files import read_json
from weakseg.localize.levels import count, find_levels
from weakseg.methods.base import Step, task_of
from weakseg.methods.maps import open_class_maps, open_maps
from weakseg.refine.spread import SpreadSettings, spread

CHAIN: dict[str, Any] = {
    **dict.fromkeys(("cam+crf", "seed", "svm", "svm+crf")),
    "spread": {"kind": "spread", "of": "localize", "steps": 2},
    "levels": {**CELLS["levels"], "least_photos": 3},
    "by-masks": {"kind": "levels", "of": ["spread", "spread-mask"], "rule": "masks"},
    "calibrated": CELLS["calibrated"],
    "spread-mask": CELLS["spread-mask"],
}


@pytest.fixture(scope="module")
def steps(photos: Path, tmp_path_factory: pytest.TempPathFactory, start: Start) -> dict[str, Step]:
    out = tmp_path_factory.mktemp("spread") / "out"
    start(photos, out, tiny_recipe(**CHAIN))
    return {step.name: step for step in tiny_recipe(**CHAIN).build(out)}


def test_cams_spread_over_features_of_their_own(photos: Path, steps: dict[str, Step]) -> None:
    dataset = load_dataset(photos, "all")
    task = task_of(dataset.samples[0], dataset.classes)
    given = open_maps(steps["localize"], "features")(task)
    assert given.features is not None
    found = open_maps(steps["spread"])(task).scores
    height, width = found.shape[1:]
    assert (height, width) == tuple(-(-side // 4) for side in given.scores.shape[1:])
    scores, features = (
        np.stack([_block_means(plane, height, width) for plane in planes.astype(np.float32)])
        for planes in (given.scores, given.features)
    )
    expected = spread(scores, features, SpreadSettings(steps=2))
    np.testing.assert_allclose(found, expected, atol=1e-4)


def _block_means(plane: Any, height: int, width: int) -> Any:
    """Of the cells from floor(i h / n) to ceil((i + 1) h / n)."""
    rows, columns = plane.shape
    return np.array(
        [
            [
                plane[
                    i * rows // height : -(-(i + 1) * rows // height),
                    j * columns // width : -(-(j + 1) * columns // width),
                ].mean()
                for j in range(width)
            ]
            for i in range(height)
        ]
    )


def test_levels_are_those_of_a_class_or_of_all(photos: Path, steps: dict[str, Step]) -> None:
    dataset = load_dataset(photos, "all")
    maps = open_class_maps(steps["spread"])
    values: dict[str, list[Any]] = {}
    for sample in dataset.samples:
        found = maps(task_of(sample, dataset.classes)).scores
        for tag, row in zip(sample.tags, found, strict=True):
            values.setdefault(tag, []).append(row.ravel())
    everything = np.concatenate([row for rows in values.values() for row in rows])
    levels = read_json(steps["levels"].folder / "levels.json")
    assert levels.keys() == values.keys()
    assert {len(rows) >= 3 for rows in values.values()} == {True, False}
    for tag, rows in values.items():
        of = np.concatenate(rows) if len(rows) >= 3 else everything
        assert levels[tag] == find_levels(count(of), "otsu")._asdict()


def test_levels_by_masks_are_where_a_third_and_two_of_the_cells_are_a_class_s(
    photos: Path, steps: dict[str, Step]
) -> None:
    dataset = load_dataset(photos, "all")
    maps = open_class_maps(steps["spread"])
    values, belongs = [], []
    for sample in dataset.samples:
        task = task_of(sample, dataset.classes)
        mask = read_mask(steps["spread-mask"].folder / f"{task.id}.png")
        for class_id, row in zip(task.class_ids, maps(task).scores, strict=True):
            for (i, j), value in np.ndenumerate(row):
                y = int((i + 0.5) * mask.shape[0] / row.shape[0])
                x = int((j + 0.5) * mask.shape[1] / row.shape[1])
                values.append(value)
                belongs.append(mask[y, x] == class_id)
    shares = IsotonicRegression().fit(values, np.array(belongs, float))
    levels = read_json(steps["by-masks"].folder / "levels.json")
    assert len({tuple(found.values()) for found in levels.values()}) == 1  # each on few photos
    (found, *_) = levels.values()
    cuts = np.linspace(0, 1, 1001)
    for name, share in (("low", 1 / 3), ("high", 2 / 3)):
        assert found[name] == pytest.approx(cuts[shares.predict(cuts) >= share][0], abs=1 / 64)


@pytest.mark.parametrize(
    ("step", "change", "said"),
    [
        ("levels", {"rule": "masks"}, "`of` names the maps alone"),
        ("by-masks", {"rule": "otsu"}, "give it, or leave out spread-mask"),
    ],
)
def test_masks_and_the_rule_that_reads_them_go_together(
    photos: Path, tmp_path: Path, start: Start, step: str, change: dict[str, str], said: str
) -> None:
    chain = {**CHAIN, step: {**CHAIN[step], **change}}
    with pytest.raises(WeaksegError, match=said):
        start(photos, tmp_path / "out", tiny_recipe(**chain))


def test_calibrated_maps_have_every_class_s_levels_at_a_third_and_two(
    photos: Path, steps: dict[str, Step]
) -> None:
    dataset = load_dataset(photos, "all")
    levels = read_json(steps["levels"].folder / "levels.json")
    for sample in dataset.samples:
        task = task_of(sample, dataset.classes)
        before, after = (open_maps(steps[name])(task).scores for name in ("spread", "calibrated"))
        for tag, raw, calibrated in zip(sample.tags, before, after, strict=True):
            low, high = levels[tag]["low"], levels[tag]["high"]
            assert ((raw < low) == (calibrated < 1 / 3 - 1e-6)).mean() > 0.99
            assert ((raw < high) == (calibrated < 2 / 3 - 1e-6)).mean() > 0.99
            order = raw.ravel().argsort()
            assert (np.diff(calibrated.ravel()[order]) >= 0).all()


def test_maps_without_features_are_refused_before_anything_runs(
    photos: Path, tmp_path: Path, start: Start
) -> None:
    recipe = tiny_recipe(**CHAIN, localize={"feature_stages": []})
    with pytest.raises(WeaksegError, match="spread needs features, and localize has none"):
        start(photos, tmp_path / "out", recipe)
