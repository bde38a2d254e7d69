import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import torch
from PIL import Image

from tiny import CRF, IRN, Lines, Start, masks, tiny_recipe
from weakseg.data.dataset import load_dataset
from weakseg.data.masks import VOC_PALETTE, read_mask, write_mask
from weakseg.engine import runner
from weakseg.engine.executor import InProcessExecutor
from weakseg.errors import WeaksegError
from weakseg.files import read_json
from weakseg.grid import grid_size
from weakseg.metrics import best_overlaps
from weakseg.networks.irnet import PhotoRelations
from weakseg.recipe import Recipe

STEPS: dict[str, dict[str, Any]] = {
    **IRN,
    "irn-labels": {**IRN["irn-labels"], "foreground_threshold": 0.5, "background_threshold": 0.2},
    "irn": {**IRN["irn"], "walk": {"steps": 16}, "threshold": 0.4},
    "irn+crf": {"kind": "crf", "of": "irn", **CRF},
}
INSTANCES = {"kind": "instances", "of": ["irnet", "irn"]}


def _recipe(**changes: Any) -> Recipe:
    steps: dict[str, Any] = {name: dict(step) for name, step in STEPS.items()}
    for name, change in changes.items():
        steps[name] = change and {**steps.get(name, {}), **change}
    return tiny_recipe(**{"cam+crf": None, **steps})


@pytest.fixture(scope="module")
def finished(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run") / "out"
    runner.run(_recipe(), photos, out, InProcessExecutor(), Lines(), torch.device("cpu"))
    return out


def test_walked_maps_are_on_the_grid_and_peak_at_one(finished: Path, photos: Path) -> None:
    for sample in load_dataset(photos).samples:
        maps = safetensors.numpy.load_file(finished / "irn" / f"{sample.id}.safetensors")["scores"]
        mask = read_mask(finished / "irn" / f"{sample.id}.png")
        assert maps.shape == (len(sample.tags), *grid_size(*mask.shape))
        assert maps.min() >= 0
        assert maps.max() == pytest.approx(1)


def test_labels_are_those_on_which_both_thresholds_agree(finished: Path, photos: Path) -> None:
    dataset = load_dataset(photos)
    seen = set()
    for sample in dataset.samples:
        labels = read_mask(finished / "irn-labels" / f"{sample.id}.png")
        ids = {dataset.classes.index(tag) + 1 for tag in sample.tags}
        assert set(np.unique(labels)) <= {0, 255, *ids}
        seen |= set(np.unique(labels))
    assert {0, 255} < seen


def test_a_row_says_what_walked(finished: Path) -> None:
    rows = {row["name"]: row for row in read_json(finished / "metrics.json")["stages"]}
    assert rows["irn"]["protocol"]["start"] == "localize"
    assert rows["irn"]["protocol"]["threshold"] == 0.4
    assert rows["irn+crf"]["protocol"]["crf"]
    epochs = read_json(finished / "irnet" / "scores.json")["epochs"]
    assert [row["epoch"] for row in epochs] == [1, 2]
    assert {"loss", "affinity", "displacement"} < set(epochs[0])


def _up_to_date(said: list[str]) -> set[str]:
    return {line.split(":")[0] for line in said if line.endswith(": up to date")}


def test_another_threshold_walks_again_and_trains_nothing(
    finished: Path, photos: Path, start: Start, tmp_path: Path
) -> None:
    out = Path(shutil.copytree(finished, tmp_path / "out"))
    kept = _up_to_date(start(photos, out, _recipe(irn={"threshold": 0.5})).said)
    assert {"irn-labels", "irnet", "svm+crf"} < kept
    assert not {"irn", "irn+crf"} & kept


def test_instances_are_the_objects_of_the_walked_masks(
    finished: Path,
    photos: Path,
    start: Start,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = Path(shutil.copytree(finished, tmp_path / "out"))
    monkeypatch.setattr("weakseg.networks.irnet.relate", _towards_the_nearer_side)
    assert not (out / "instances").exists()
    kept = _up_to_date(start(photos, out, _recipe(instances=INSTANCES)).said)
    assert {"irn-labels", "irnet", "irn", "irn+crf"} < kept
    best = []
    for sample in load_dataset(photos).samples:
        walked = read_mask(out / "irn" / f"{sample.id}.png")
        found = read_mask(out / "instances" / f"{sample.id}.png")
        width, cells = walked.shape[1], grid_size(*walked.shape)[1]
        right = (np.arange(width) + 0.5) * cells // width >= cells / 2
        assert ((found > 0) == (walked > 0)).all()
        halves = [walked * right, walked * ~right]
        assert found.max() == sum(len(np.unique(half[half > 0])) for half in halves)
        for number in range(1, found.max() + 1):
            assert sum(len(np.unique(half[(found == number) & (half > 0)])) for half in halves) == 1
        with Image.open(out / "instances" / f"{sample.id}.png") as image:
            assert image.mode == "P" and image.getpalette() == VOC_PALETTE.ravel().tolist()
        assert sample.objects
        best += best_overlaps(sample.objects.read(), found).tolist()
    row = read_json(out / "metrics.json")["stages"][-1]
    assert (row["name"], row["split"], row["images"]) == ("instances", "all", 10)
    assert row["abo"] == pytest.approx(np.mean(best)) and row["objects"] == len(best)


def _towards_the_nearer_side(network: object, photo: np.ndarray) -> PhotoRelations:
    """Two instances: the left half of a photo, and the right one."""
    height, width = grid_size(*photo.shape[:2])
    x = np.arange(width, dtype=np.float32)
    displacement = np.zeros((2, height, width), np.float32)
    displacement[1] = np.where(x < width / 2, -x, width - 1 - x)
    return PhotoRelations(np.zeros((height, width), np.float32), displacement)


def test_without_true_objects_the_instances_are_the_same_bytes(
    finished: Path, photos: Path, start: Start, tmp_path: Path
) -> None:
    bare = Path(shutil.copytree(photos, tmp_path / "bare", copy_function=shutil.copy2))
    shutil.rmtree(bare / "SegmentationObject")
    with_objects = Path(shutil.copytree(finished, tmp_path / "with"))
    without = Path(shutil.copytree(finished, tmp_path / "without"))
    start(photos, with_objects, _recipe(instances=INSTANCES))
    start(bare, without, _recipe(instances=INSTANCES))
    assert masks(without) == masks(with_objects)
    names = [row["name"] for row in read_json(without / "metrics.json")["stages"]]
    assert "irn" in names and "instances" not in names


def test_true_objects_that_cant_be_used_are_left_out(
    finished: Path, photos: Path, start: Start, tmp_path: Path
) -> None:
    data = Path(shutil.copytree(photos, tmp_path / "data", copy_function=shutil.copy2))
    unreadable, sized, *_ = sorted((data / "SegmentationObject").iterdir())
    unreadable.write_bytes(b"no mask")
    write_mask(sized, np.zeros((3, 5), np.uint8))
    out = Path(shutil.copytree(finished, tmp_path / "out"))
    kept = _up_to_date(start(data, out, _recipe(instances=INSTANCES)).said)
    assert "irn+crf" in kept and "evaluate" not in kept
    row = read_json(out / "metrics.json")["stages"][-1]
    assert (row["images"], row["left_out"]) == (8, 2)
    os.utime(sized, ns=(0, 0))
    kept = _up_to_date(start(data, out, _recipe(instances=INSTANCES)).said)
    assert "instances" in kept and "evaluate" not in kept


def test_objects_left_out_are_named(
    finished: Path,
    photos: Path,
    start: Start,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("weakseg.networks.irnet.relate", _towards_the_nearer_side)
    monkeypatch.setattr("weakseg.refine.instances.MAX_OBJECTS", 1)
    out = Path(shutil.copytree(finished, tmp_path / "out"))
    said = start(photos, out, _recipe(instances=INSTANCES)).said
    assert any("left out 1 objects" in line for line in said)


@pytest.mark.parametrize("name", ["seed", "svm+crf"])
def test_masks_of_any_step_can_walk(
    finished: Path, photos: Path, start: Start, tmp_path: Path, name: str
) -> None:
    out = Path(shutil.copytree(finished, tmp_path / "out"))
    taught: dict[str, Any] = {"irn-labels": None, "irnet": {"of": name}}
    kept = _up_to_date(start(photos, out, _recipe(**taught, irn={"of": ["irnet", name]})).said)
    assert "svm+crf" in kept
    assert "irnet" not in kept
    walked = masks(out)
    assert any(walked[path] != masks(finished)[path] for path in walked if path.startswith("irn/"))


def test_a_confidence_that_no_photo_has_is_one_clear_error(
    finished: Path, photos: Path, start: Start, tmp_path: Path
) -> None:
    out = Path(shutil.copytree(finished, tmp_path / "out"))
    with pytest.raises(WeaksegError, match=r"Lower irnet\.min_confidence"):
        start(photos, out, _recipe(irnet={"min_confidence": 1.0}))


@pytest.mark.parametrize("of", ["irn-labels", ["irn-labels", "svm"]])
def test_a_confidence_that_no_classifier_gives_is_one_clear_error(
    photos: Path, start: Start, tmp_path: Path, of: str | list[str]
) -> None:
    with pytest.raises(WeaksegError, match=r"irnet\.min_confidence needs a classifier's"):
        start(photos, tmp_path / "out", _recipe(irnet={"of": of, "min_confidence": 0.5}))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("step", "change", "message"),
    [
        ("irn", {"of": ["irnet", "cam+crf"]}, r"irn\.of: there is no step 'cam\+crf'"),
        ("irn", {"of": ["irnet", "irn"]}, r"irn, irn\+crf: each waits for another of them, or for"),
        ("irn-labels", {"kernels": ...}, r"irn-labels\.kernels: Field required"),
        ("irn-labels", {"background_threshold": 0.6}, "background_threshold is 0.6"),
        ("irn", {"walk": {"beta": -1}}, r"irn\.walk\.beta: .* given -1"),
    ],
)
def test_what_cant_be_is_one_clear_error(step: str, change: dict[str, Any], message: str) -> None:
    with pytest.raises(WeaksegError, match=message):
        _recipe(**{step: change})
