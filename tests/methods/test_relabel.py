import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tiny import CRF, SEGMENT, Start, masks, tiny_recipe
from weakseg.data.dataset import load_dataset
from weakseg.data.images import read_photo
from weakseg.data.masks import read_mask
from weakseg.errors import WeaksegError
from weakseg.files import read_json
from weakseg.methods.networks import read_segmenter
from weakseg.recipe import Recipe
from weakseg.refine.crf import CRFSettings, dense_crf, unary_from_probabilities
from weakseg.segment.tta import segment

OWN_MAPS = {"kind": "relabel", "of": "segmenter", "scales": [0.5, 1.0], "keep": False}
SOFT_CRF = {"kind": "crf", "of": "own-maps", "unary": "scores", "kernels": CRF["kernels"]}
LEFT_OUT: dict[str, Any] = dict.fromkeys(("seed", "svm", "svm+crf", "cam+crf"))


def _recipe(**changes: Any) -> Recipe:
    steps = {**LEFT_OUT, **SEGMENT, "own-maps": OWN_MAPS, "relabel": SOFT_CRF}
    return tiny_recipe(**{**steps, **changes})


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
    said = start(photos, again, _recipe(relabel={**SOFT_CRF, **CRF})).said
    anew = {"relabel", "assess", "confidence", "evaluate", "panels"}
    known = {line.split(":")[0] for line in said if line.endswith(": up to date")}
    assert known == set(read_json(out / "run.json")["steps"]) - anew


def test_kept_maps_give_the_same_bytes(
    out: Path, photos: Path, start: Start, tmp_path: Path
) -> None:
    assert not (out / "own-maps").exists()
    again = Path(shutil.copytree(out, tmp_path / "out"))
    shutil.rmtree(again / "relabel")
    start(photos, again, _recipe(**{"own-maps": {**OWN_MAPS, "keep": True}}))
    assert len(list((again / "own-maps").glob("*.safetensors"))) == 10
    kept = {path: its for path, its in masks(again).items() if not path.startswith("own-maps/")}
    assert kept == masks(out)


def test_without_a_network_it_is_one_clear_error() -> None:
    with pytest.raises(WeaksegError, match=r"own-maps\.of: there is no step 'segmenter'"):
        _recipe(segmenter=None, segment=None, **{"segment+tta": None})
