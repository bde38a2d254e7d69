import shutil
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import torch

from tiny import CRF, TINY, Lines, Start, masks
from weakseg.data.dataset import load_dataset
from weakseg.data.masks import read_mask
from weakseg.errors import WeaksegError
from weakseg.files import read_json
from weakseg.localize.cam import grid_size
from weakseg.recipe import Recipe, check_recipe
from weakseg.stages import runner
from weakseg.stages.executor import InProcessExecutor


def _recipe(start: str = "cam", **irn: object) -> Recipe:
    section = {
        "start": start,
        "foreground_threshold": 0.5,
        "background_threshold": 0.2,
        "crf": CRF,
        "backbone": {"name": "test_efficientnet", "weights": "none", "output_stride": 16},
        "epochs": 2,
        "batch_size": 4,
        "long_side": [48, 80],
        "crop": 48,
        "optimizer": TINY["classify"]["optimizer"],
        "walk": {"steps": 16},
        "threshold": 0.4,
    }
    values = {**TINY, "cam_crf": None, "irn": section | irn, "irn_crf": CRF}
    return check_recipe(values, "tiny")


@pytest.fixture(scope="module")
def finished(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run") / "out"
    runner.run(_recipe(), photos, out, InProcessExecutor(), Lines(), torch.device("cpu"))
    return out


def test_walked_maps_are_on_the_grid_and_peak_at_one(finished: Path, photos: Path) -> None:
    for sample in load_dataset(photos).samples:
        maps = safetensors.numpy.load_file(finished / "irn" / f"{sample.id}.safetensors")["maps"]
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
    assert rows["irn"]["protocol"]["start"] == "cam"
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
    kept = _up_to_date(start(photos, out, _recipe(threshold=0.5)).said)
    assert {"irn-labels", "irnet", "svm+crf"} < kept
    assert not {"irn", "irn+crf"} & kept


@pytest.mark.parametrize("name", ["seed", "svm+crf"])
def test_masks_of_any_stage_can_walk(
    finished: Path, photos: Path, start: Start, tmp_path: Path, name: str
) -> None:
    out = Path(shutil.copytree(finished, tmp_path / "out"))
    kept = _up_to_date(start(photos, out, _recipe(name, crf=None)).said)
    assert "svm+crf" in kept
    assert "irnet" not in kept
    walked = masks(out)
    assert any(walked[path] != masks(finished)[path] for path in walked if path.startswith("irn/"))


def test_a_confidence_that_no_photo_has_is_one_clear_error(
    finished: Path, photos: Path, start: Start, tmp_path: Path
) -> None:
    out = Path(shutil.copytree(finished, tmp_path / "out"))
    with pytest.raises(WeaksegError, match=r"Lower irn\.min_confidence"):
        start(photos, out, _recipe(min_confidence=1.0))


@pytest.mark.parametrize(
    ("irn", "message"),
    [
        ({"start": "cam+crf"}, "irn.start is 'cam\\+crf'; this recipe makes cam, seed, svm"),
        ({"start": "irn"}, "irn.start is 'irn'"),
        ({"crf": None}, "IRNet's labels need the section crf"),
        ({"background_threshold": 0.6}, "background_threshold is 0.6"),
        ({"walk": {"beta": -1}}, "beta is -1"),
    ],
)
def test_what_cant_be_is_one_clear_error(irn: dict, message: str) -> None:
    with pytest.raises(WeaksegError, match=message):
        _recipe(**irn)
