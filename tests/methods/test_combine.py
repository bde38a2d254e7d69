"""Several maps or masks as one, and a class that is left out and comes back by its own steps."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from numpy.typing import NDArray

from tiny import CRF, NETWORK, STEPS, Start, tiny_recipe
from weakseg.data.dataset import Sample, load_dataset
from weakseg.data.masks import IGNORE, read_mask, write_mask
from weakseg.errors import WeaksegError
from weakseg.files import read_json
from weakseg.methods import combine
from weakseg.methods.base import PhotoMaps, PhotoMask, PhotoTask
from weakseg.recipe import Recipe

NAME = "flower"


def _recipe(**changes: Any) -> Recipe:
    """A class is left out of the tags, and its own masks fill the background of the others'."""
    own: dict[str, Any] = {
        "own-tags": {"kind": "tags", "only": [NAME]},
        "own-classify": {**STEPS["classify"], "of": "own-tags"},
        "own-localize": {"kind": "cam", "of": "own-classify", "scales": [0.5, 1.0]},
        "own-cam": {**STEPS["cam"], "of": "own-localize"},
        "own-cam+crf": {"kind": "crf", "of": "own-cam", **CRF},
        "merged": {"kind": "combine", "of": ["cam+crf", "own-cam+crf"], "how": "fill"},
    }
    return tiny_recipe(
        data={"drop_classes": [NAME]},
        **{"seed": None, "svm": None, "svm+crf": None, **own, **changes},
    )


def test_a_dropped_class_comes_back_where_others_leave_background(
    photos: Path, start: Start, tmp_path: Path
) -> None:
    dataset = load_dataset(photos)
    assert any(NAME in s.tags and len(s.tags) > 1 for s in dataset.samples)
    start(photos, tmp_path, _recipe())
    class_id = dataset.classes.index(NAME) + 1
    filled = 0
    for sample in dataset.samples:
        if not set(sample.tags) - {NAME}:
            assert not (tmp_path / "merged" / f"{sample.id}.png").exists()
            continue
        base, own, merged = (
            read_mask(tmp_path / step / f"{sample.id}.png")
            for step in ("cam+crf", "own-cam+crf", "merged")
        )
        assert set(np.unique(own)) <= ({0, class_id} if NAME in sample.tags else {0})
        expected = base.copy()
        expected[(base == 0) & (own != 0)] = class_id
        np.testing.assert_array_equal(merged, expected)
        assert class_id not in base
        filled += int((merged == class_id).sum())
    assert filled > 0
    rows = {row["name"]: row for row in read_json(tmp_path / "metrics.json")["stages"]}
    assert rows["merged"]["protocol"]["of"] == ["cam+crf", "own-cam+crf"]
    assert rows["merged"]["per_class"][NAME] > rows["cam+crf"]["per_class"][NAME] == 0
    learned = read_json(tmp_path / "own-classify" / "scores.json")["per_class"]
    assert all(list(figures) == [NAME] for figures in learned.values())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"of": ["svm", "own-cam+crf"]}, r"merged\.of: there is no step 'svm'"),
        ({"of": ["cam+crf", "merged"]}, "merged: each waits for another of them, or for itself"),
        ({"of": "cam+crf"}, r"merged\.of: kind combine takes two or more of maps or masks, and"),
        ({"of": ["cam+crf", "classify"]}, r"merged\.of: kind combine .* classify"),
    ],
)
def test_what_cant_be_merged_is_one_clear_error(change: dict[str, Any], message: str) -> None:
    with pytest.raises(WeaksegError, match=message):
        _recipe(merged={"kind": "combine", "how": "fill", **change})


def test_maps_without_a_background_fill_nothing(photos: Path, start: Start, tmp_path: Path) -> None:
    bare = {"kind": "combine", "how": "fill", "of": ["cam+crf", "own-localize"]}
    with pytest.raises(WeaksegError, match="merged: own-localize has no background, where others"):
        start(photos, tmp_path, _recipe(merged=bare))


def test_a_class_that_there_is_not_is_one_clear_error(
    photos: Path, start: Start, tmp_path: Path
) -> None:
    with pytest.raises(WeaksegError, match="Unknown class 'flowers'"):
        start(photos, tmp_path, _recipe(**{"own-tags": {"kind": "tags", "only": ["flowers"]}}))


TASK = PhotoTask(Sample("a", Path("a.png"), ("cat", "dog"), None), (2, 5))
IDS = (0, 2, 5)


def _combined(
    folder: Path, settings: Mapping[str, Any], **inputs: NDArray[np.generic]
) -> PhotoMaps | PhotoMask:
    """What a photo's maps and masks are together, by the names of the steps that give them."""
    coarse = {"kind": "cam", "of": "classify", "scales": [1.0]}
    both = {"kind": "combine", "of": list(inputs), **settings}
    built = tiny_recipe(coarse=coarse, both=both).build(folder)
    steps = {step.name: step for step in built}
    for name, given in inputs.items():
        steps[name].folder.mkdir()
        if given.ndim == 2:
            write_mask(steps[name].folder / "a.png", given.astype(np.uint8))
        else:
            safetensors.numpy.save_file({"scores": given}, steps[name].folder / "a.safetensors")
    return combine.work(steps["both"])(TASK)


def _masks(count: int) -> list[NDArray[np.uint8]]:
    rng = np.random.default_rng(0)
    return [rng.choice(np.array([*IDS, IGNORE], np.uint8), (20, 30)) for _ in range(count)]


@pytest.mark.parametrize("how", ["agreement", "fill", "first"])
def test_masks_are_joined_pixel_by_pixel(tmp_path: Path, how: str) -> None:
    names = ("seed", "cam+crf", "svm+crf")
    masks = _masks(3)
    found = _combined(tmp_path, {"how": how}, **dict(zip(names, masks, strict=True)))
    assert isinstance(found, PhotoMask)
    for y, x in np.ndindex(found.ids.shape):
        first, *others = (int(mask[y, x]) for mask in masks)
        if how == "agreement":
            expected = first if set(others) == {first} else IGNORE
        elif how == "first":
            expected = next((one for one in (first, *others) if one != IGNORE), IGNORE)
        else:
            sure = [one for one in others if one not in (0, IGNORE)]
            expected = first or (sure[0] if sure else 0)
        assert found.ids[y, x] == expected


@pytest.mark.parametrize("how", ["mean", "maximum"])
def test_maps_and_masks_are_joined_score_by_score(tmp_path: Path, how: str) -> None:
    rng = np.random.default_rng(1)
    scores = rng.normal(size=(3, 20, 30)).astype(np.float32)
    (mask,) = _masks(1)
    found = _combined(tmp_path, {"how": how}, svm=scores, seed=mask)
    assert isinstance(found, PhotoMaps) and found.scores.dtype == np.float32
    for k, y, x in np.ndindex(scores.shape):
        of_mask = 1 / 3 if mask[y, x] == IGNORE else float(mask[y, x] == IDS[k])
        both = [float(scores[k, y, x]), of_mask]
        expected = sum(both) / 2 if how == "mean" else max(both)
        assert found.scores[k, y, x] == pytest.approx(expected, abs=1e-6)


def test_a_mean_counts_each_input_by_its_weight(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    first, second = rng.normal(size=(2, 2, 4, 6)).astype(np.float32)
    settings = {"how": "mean", "weights": [0.5, 2.0]}
    found = _combined(tmp_path, settings, localize=first, coarse=second)
    assert isinstance(found, PhotoMaps) and found.scores.dtype == np.float32
    for place in np.ndindex(first.shape):
        expected = (0.5 * float(first[place]) + 2.0 * float(second[place])) / 2.5
        assert found.scores[place] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    "merged, message",
    [
        (
            {"how": "maximum", "weights": [1, 2]},
            "merged: weights are for how: mean, not maximum",
        ),
        (
            {"how": "mean", "weights": [1, 2, 3]},
            r"merged\.weights has 3 numbers for 2 inputs: give one for each",
        ),
        ({"how": "mean", "weights": [1, 0]}, r"merged\.weights\.1"),
        ({"how": "mean", "weights": []}, r"merged\.weights has 0 numbers for 2 inputs"),
    ],
)
def test_weights_that_fit_no_mean_are_refused(
    photos: Path, start: Start, tmp_path: Path, merged: dict[str, Any], message: str
) -> None:
    of = ["cam+crf", "own-cam+crf"]
    with pytest.raises(WeaksegError, match=message):
        start(photos, tmp_path / "out", _recipe(merged={"kind": "combine", "of": of, **merged}))


def test_maps_are_brought_to_the_grid_of_the_first(tmp_path: Path) -> None:
    first, second = np.zeros((2, 4, 6), np.float32), np.full((2, 1, 1), 0.5, np.float32)
    found = _combined(tmp_path, {"how": "mean"}, localize=first, coarse=second)
    assert isinstance(found, PhotoMaps)
    np.testing.assert_array_equal(found.scores, np.full((2, 4, 6), 0.25, np.float32))


def test_maps_of_other_classes_are_not_combined(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="maps of 1 and of 2 classes can't be combined"):
        _combined(tmp_path, {"how": "mean"}, localize=np.ones((2, 1, 1)), coarse=np.ones((1, 1, 1)))


@pytest.mark.parametrize(
    "reader",
    [
        {"kind": "combine", "of": ["cam", "own-cam"], "how": "mean"},
        {"kind": "components", "of": ["cam+crf", "own-localize"], "threshold": 0.5},
        {"kind": "walk", "of": ["irnet", "own-localize"], "threshold": 0.5},
    ],
)
def test_maps_of_other_tags_are_refused_before_anything_runs(
    photos: Path, start: Start, tmp_path: Path, reader: dict[str, Any]
) -> None:
    irnet = {"kind": "irnet", "of": "cam", **NETWORK}
    with pytest.raises(WeaksegError, match=r"the maps of own-.*, which sees other tags"):
        start(photos, tmp_path / "out", _recipe(irnet=irnet, reader=reader))
    assert not (tmp_path / "out").exists()
