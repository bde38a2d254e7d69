import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from tiny import CRF, SEGMENT, TINY, Start, masks
from weakseg.data.dataset import load_dataset
from weakseg.data.images import read_photo
from weakseg.data.masks import read_mask
from weakseg.errors import WeaksegError
from weakseg.files import read_json
from weakseg.recipe import Recipe, check_recipe
from weakseg.refine.crf import CRFSettings, dense_crf, unary_from_probabilities
from weakseg.segment.tta import segment
from weakseg.stages.networks import read_segmenter

SOFT_CRF = {"unary": "scores", "kernels": CRF["kernels"]}


def _recipe(**sections: object) -> Recipe:
    values = {
        **TINY,
        "svm": None,
        "crf": None,
        "cam_crf": None,
        "self_training": {"masks": "cam", "crf": SOFT_CRF},
        "segment": {**SEGMENT, "masks": "self-trained"},
    }
    return check_recipe(values | sections, "tiny")


@pytest.fixture(scope="module")
def out(photos: Path, tmp_path_factory: pytest.TempPathFactory, start: Start) -> Path:
    folder = tmp_path_factory.mktemp("run") / "out"
    start(photos, folder, _recipe())
    return folder


def test_the_teachers_masks_keep_to_the_tags(out: Path, photos: Path) -> None:
    dataset = load_dataset(photos)
    network, _ = read_segmenter(out / "teacher" / "segmenter.safetensors", torch.device("cpu"))
    same = total = 0
    for sample in dataset.samples:
        photo = read_photo(sample.image)
        image = torch.from_numpy(photo).permute(2, 0, 1)[None].float() / 255
        ids = [0, *sorted(dataset.classes.index(tag) + 1 for tag in sample.tags)]
        own = segment(network, image, (0.5, 1.0), flip=True)[0].numpy()[ids]
        unary = unary_from_probabilities(own / own.sum(axis=0))
        expected = dense_crf(photo, unary, CRFSettings(**CRF["kernels"])).argmax(axis=0)
        found = read_mask(out / "self-trained" / f"{sample.id}.png")
        assert set(np.unique(found)) <= set(ids)
        same += int((found == np.array(ids)[expected]).sum())
        total += found.size
    assert same / total > 0.999


def test_the_last_network_learns_them(out: Path) -> None:
    judged_by = [
        read_json(out / name / "scores.json")["miou_against"] for name in ("teacher", "segmenter")
    ]
    assert judged_by == ["held-out masks of cam", "held-out masks of self-trained"]
    rows = {row["name"]: row for row in read_json(out / "metrics.json")["stages"]}
    assert rows["self-trained"]["protocol"] == {"masks": "cam", "crf": True, "ignore": 255}
    assert rows["segment"]["protocol"]["masks"] == "self-trained"


def test_another_crf_keeps_the_teacher(
    out: Path, photos: Path, start: Start, tmp_path: Path
) -> None:
    again = Path(shutil.copytree(out, tmp_path / "out"))
    said = start(photos, again, _recipe(self_training={"masks": "cam", "crf": CRF})).said
    assert "teacher: up to date" in said
    assert not {"self-trained: up to date", "segmenter: up to date"} & set(said)


def test_masks_made_in_one_step_teach_as_well(photos: Path, start: Start, tmp_path: Path) -> None:
    sections = {"cam_crf": CRF, "self_training": {"masks": "cam+crf", "crf": SOFT_CRF}}
    start(photos, tmp_path / "by stages", _recipe(**sections))
    one_step = {**TINY["localize"], "keep": False}
    start(photos, tmp_path / "in one", _recipe(localize=one_step, **sections))
    by_stages, in_one = (
        {
            name: content
            for name, content in masks(tmp_path / run).items()
            if name.startswith(("self-trained", "segmenter"))
        }
        for run in ("by stages", "in one")
    )
    assert by_stages == in_one


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"segment": None}, "self_training trains a network as segment says; add segment"),
        (
            {"self_training": {"masks": "self-trained", "crf": CRF}},
            "self_training.masks is 'self-trained'; this recipe makes cam",
        ),
        (
            {"self_training": {"masks": "svm", "crf": CRF}},
            "self_training.masks is 'svm'; this recipe makes cam",
        ),
    ],
)
def test_what_cant_teach_is_one_clear_error(sections: dict, message: str) -> None:
    with pytest.raises(WeaksegError, match=message):
        _recipe(**sections)
