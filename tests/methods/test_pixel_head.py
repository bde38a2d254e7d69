import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tiny import CELLS, CutOff, Cutting, Start, masks, tiny_recipe
from weakseg.data.dataset import load_dataset
from weakseg.data.images import photo_size, read_photo
from weakseg.data.masks import read_mask, write_mask
from weakseg.engine import runner
from weakseg.engine.executor import InProcessExecutor
from weakseg.engine.reviewed import Reviewed
from weakseg.errors import WeaksegError
from weakseg.files import read_json
from weakseg.methods.base import PhotoTask, task_of
from weakseg.methods.features import open_cells
from weakseg.methods.maps import open_maps
from weakseg.methods.networks import read_segmenter
from weakseg.methods.pixel_head import fold_of
from weakseg.networks.pixel_head import PixelSegmenter
from weakseg.recipe import Recipe

LEFT_OUT: dict[str, Any] = dict.fromkeys(
    ("classify", "localize", "cam", "cam+crf", "seed", "svm", "svm+crf")
)


def _recipe(**changes: Any) -> Recipe:
    return tiny_recipe(**{**LEFT_OUT, **CELLS, **changes})


@pytest.fixture(scope="module")
def out(photos: Path, tmp_path_factory: pytest.TempPathFactory, start: Start) -> Path:
    folder = tmp_path_factory.mktemp("pixels") / "out"
    start(photos, folder, _recipe())
    return folder


def _task(photos: Path) -> PhotoTask:
    dataset = load_dataset(photos, "all")
    return task_of(dataset.samples[0], dataset.classes)


def test_a_photo_of_its_own_is_scored_as_its_kept_features_are(out: Path, photos: Path) -> None:
    task = _task(photos)
    steps = {step.name: step for step in _recipe().build(out)}
    device = torch.device("cpu")
    network, card = read_segmenter(steps["pixels"].folder / "segmenter.safetensors", device)
    assert isinstance(network, PixelSegmenter)
    assert card.classes == load_dataset(photos, "all").classes
    photo = read_photo(task.sample.image)
    image = torch.from_numpy(photo).permute(2, 0, 1)[None].float() / 255
    with torch.inference_mode():
        kept = network.head.score(open_cells(steps["features"], "final-2")(task))
        found = network(image)
        upsampled = torch.nn.functional.interpolate(
            kept[None], size=photo.shape[:2], mode="bilinear", align_corners=False
        )
    assert found.shape == (1, len(card.classes) + 1, *photo.shape[:2])
    torch.testing.assert_close(found, upsampled, atol=2e-3, rtol=2e-3)


def test_a_photo_is_labelled_by_the_head_that_did_not_learn_of_it(out: Path, photos: Path) -> None:
    task = _task(photos)
    steps = {step.name: step for step in _recipe().build(out)}
    found = open_maps(steps["pixel-masks"])(task).scores
    folder = steps["pixels"].folder
    network, _ = read_segmenter(folder / "segmenter.safetensors", torch.device("cpu"))
    assert isinstance(network, PixelSegmenter)
    cells = open_cells(steps["features"], "final-2")(task)
    scores = {}
    for fold in (0, 1):
        path = folder / f"fold-{fold}.safetensors"
        network.head.load_state_dict(load_file(path))
        with torch.inference_mode():
            scores[fold] = network.head.score(cells)[[0, *task.class_ids]].numpy()
    fold = fold_of(task.id, 2)
    np.testing.assert_array_equal(found, scores[fold])
    assert not np.array_equal(found, scores[1 - fold])
    figures = read_json(folder / "scores.json")
    whole, *parts = (figures[name]["cells"] for name in ("pixels", "pixels-0", "pixels-1"))
    assert sum(parts) == whole and all(parts)


def test_a_run_gives_the_same_masks_again(
    out: Path, photos: Path, tmp_path: Path, start: Start
) -> None:
    start(photos, tmp_path / "again", _recipe())
    assert masks(tmp_path / "again") == masks(out)


@pytest.mark.parametrize("cut_off_in", ["pixels", "pixels-0", "pixels-1"])
def test_each_head_goes_on_from_its_own_training(
    out: Path, photos: Path, tmp_path: Path, start: Start, cut_off_in: str
) -> None:
    cutting, cpu = Cutting(f"{cut_off_in}: epoch 2"), torch.device("cpu")
    with pytest.raises(CutOff):
        runner.run(_recipe(), photos, tmp_path / "out", InProcessExecutor(), cutting, cpu)
    assert (tmp_path / "out" / "pixels" / cut_off_in / "last.ckpt").is_file()
    start(photos, tmp_path / "out", _recipe())
    assert masks(tmp_path / "out") == masks(out)
    assert not list(tmp_path.rglob("*.ckpt"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"features": {"scales": [1.0]}},
            r"the final map at the scales \[2.0\], and features",
        ),
        ({"features": {"stages": []}}, "spread needs features, and features has none"),
        ({"features": {"stages": [0, 9]}}, r"features.stages has \[9\]; test_efficientnet has"),
        (
            {"other": CELLS["features"], "pixel-masks": {"of": ["pixels", "other"]}},
            "reads the features of other, from which pixels did not learn",
        ),
        ({"heads-cam": {"feature_stages": [0]}}, "have the classifier read features"),
        ({"heads-cam": {"merging": {"flip": "maximum"}}}, "merging.flip is maximum, and features"),
    ],
)
def test_features_that_do_not_serve_are_refused_before_anything_runs(
    photos: Path, tmp_path: Path, start: Start, changes: dict[str, Any], message: str
) -> None:
    merged = {name: {**CELLS.get(name, {}), **change} for name, change in changes.items()}
    with pytest.raises(WeaksegError, match=message):
        start(photos, tmp_path / "out", _recipe(**merged))


def test_masks_without_a_certain_pixel_teach_nothing(
    photos: Path, tmp_path: Path, start: Start
) -> None:
    given = tmp_path / "masks"
    given.mkdir()
    for sample in load_dataset(photos, "all").samples:
        write_mask(given / f"{sample.id}.png", np.full(photo_size(sample.image), 255, np.uint8))
    steps = {
        "given": {"kind": "folder", "path": str(given), "holds": "masks"},
        "pixels": {**CELLS["pixels"], "of": ["features", "given"]},
    }
    with pytest.raises(WeaksegError, match="no mask of given has a pixel that is certain"):
        start(photos, tmp_path / "out", _recipe(**steps))


def test_a_photo_without_tags_is_background_all_the_way(
    photos: Path, tmp_path: Path, start: Start
) -> None:
    data = tmp_path / "data"
    shutil.copytree(photos, data)
    first, *others = (data / "tags.csv").read_text().splitlines()[1:]
    untagged = first.split(",")[0]
    (data / "tags.csv").write_text("\n".join(["image,tags", f"{untagged},", *others]) + "\n")
    start(data, tmp_path / "out", _recipe())
    assert not read_mask(tmp_path / "out" / "pixel-masks" / f"{untagged}.png").any()


def test_an_accepted_mask_takes_the_place_of_a_pseudo_mask(
    out: Path, photos: Path, start: Start, tmp_path: Path
) -> None:
    again = tmp_path / "out"
    shutil.copytree(out, again)
    task, reviewed = _task(photos), Reviewed.of(again)
    before = (again / "pixels" / "segmenter.safetensors").read_bytes()
    mask = read_mask(again / "spread-mask" / f"{task.id}.png")
    reviewed.accept(task.id, np.full_like(mask, task.class_ids[0]))
    lines = start(photos, again, _recipe())
    assert "spread-mask: up to date" in lines.said
    assert "pixels: up to date" not in lines.said
    assert (again / "pixels" / "segmenter.safetensors").read_bytes() != before
    assert "pixels: up to date" in start(photos, again, _recipe()).said
    reviewed.reopen(task.id)
    start(photos, again, _recipe())
    assert (again / "pixels" / "segmenter.safetensors").read_bytes() == before
