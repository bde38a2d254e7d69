import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from tiny import CRF, SEGMENT, TINY, Start
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
        "segment": SEGMENT,
        "relabel": SOFT_CRF,
    }
    return check_recipe(values | sections, "tiny")


@pytest.fixture(scope="module")
def out(photos: Path, tmp_path_factory: pytest.TempPathFactory, start: Start) -> Path:
    folder = tmp_path_factory.mktemp("run") / "out"
    start(photos, folder, _recipe())
    return folder


def test_the_networks_masks_keep_to_the_tags(out: Path, photos: Path) -> None:
    dataset = load_dataset(photos)
    network, _ = read_segmenter(out / "segmenter" / "segmenter.safetensors", torch.device("cpu"))
    same = total = 0
    for sample in dataset.samples:
        photo = read_photo(sample.image)
        image = torch.from_numpy(photo).permute(2, 0, 1)[None].float() / 255
        ids = [0, *sorted(dataset.classes.index(tag) + 1 for tag in sample.tags)]
        own = segment(network, image, (0.5, 1.0), flip=True)[0].numpy()[ids]
        unary = unary_from_probabilities(own / own.sum(axis=0))
        expected = dense_crf(photo, unary, CRFSettings(**CRF["kernels"])).argmax(axis=0)
        found = read_mask(out / "relabel" / f"{sample.id}.png")
        assert set(np.unique(found)) <= set(ids)
        same += int((found == np.array(ids)[expected]).sum())
        total += found.size
    assert same / total > 0.999


def test_they_are_measured_on_the_photos_learned_from(out: Path) -> None:
    rows = {row["name"]: row for row in read_json(out / "metrics.json")["stages"]}
    assert rows["relabel"]["images"] == 10
    assert rows["relabel"]["protocol"] == {
        "masks": "cam",
        "tta": "flip x 0.5, 1",
        "crf": True,
        "ignore": 255,
    }


def test_another_crf_redoes_nothing_else(
    out: Path, photos: Path, start: Start, tmp_path: Path
) -> None:
    again = Path(shutil.copytree(out, tmp_path / "out"))
    said = start(photos, again, _recipe(relabel=CRF)).said
    anew = {"relabel", "assess", "evaluate", "panels"}
    known = {line.split(":")[0] for line in said if line.endswith(": up to date")}
    assert known == set(read_json(out / "run.json")["stages"]) - anew


def test_without_a_network_it_is_one_clear_error() -> None:
    with pytest.raises(WeaksegError, match="relabel takes the network that segment trains"):
        _recipe(segment=None)
