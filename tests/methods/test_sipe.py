from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import torch

from tiny import EVERY_KIND, Lines, Start, masks, tiny_recipe
from weakseg.data.dataset import load_dataset
from weakseg.data.masks import read_mask
from weakseg.engine import runner
from weakseg.engine.executor import InProcessExecutor
from weakseg.errors import WeaksegError
from weakseg.files import read_json
from weakseg.grid import grid_size, upsample
from weakseg.recipe import Recipe

STEPS: dict[str, Any] = {
    "classify": None,
    "cam+crf": None,
    "taught": EVERY_KIND["taught"],
    "is-cam": EVERY_KIND["is-cam"],
    "localize": {"of": "taught"},
    "svm": {"of": ["is-cam", "localize"]},
}
"""Changes for `tiny_recipe`: SIPE's maps in place of a classifier's CAMs."""


def _recipe(**changes: Any) -> Recipe:
    return tiny_recipe(**{**STEPS, **changes})


@pytest.fixture(scope="module")
def finished(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run") / "out"
    runner.run(_recipe(), photos, out, InProcessExecutor(), Lines(), torch.device("cpu"))
    return out


def test_masks_are_the_highest_of_maps_with_a_background(finished: Path, photos: Path) -> None:
    dataset = load_dataset(photos)
    seen = set()
    for sample in dataset.samples:
        file = finished / "is-cam" / f"{sample.id}.safetensors"
        scores = safetensors.numpy.load_file(file)["scores"]
        mask = read_mask(finished / "is-cam" / f"{sample.id}.png")
        assert scores.shape == (len(sample.tags) + 1, *grid_size(*mask.shape))
        assert scores.min() >= 0 and scores.max() <= 1
        ids = [0, *sorted(dataset.classes.index(tag) + 1 for tag in sample.tags)]
        highest = upsample(scores, *mask.shape).argmax(axis=0)
        assert (mask == np.array(ids, np.uint8)[highest]).all()
        seen |= set(np.unique(mask))
    assert {0} < seen


def test_the_network_is_a_classifier_as_well(finished: Path) -> None:
    rows = {row["name"]: row for row in read_json(finished / "metrics.json")["stages"]}
    assert {"is-cam", "cam", "cam-oracle", "svm", "svm+crf"} <= set(rows)
    assert rows["is-cam"]["protocol"]["crf"] is False
    scores = read_json(finished / "taught" / "scores.json")
    assert {"f1", "map", "per_class"} < set(scores)
    assert [row["epoch"] for row in scores["epochs"]] == [1, 2, 3]
    assert {"loss", "tags", "consistency", "f1"} < set(scores["epochs"][0])


def test_a_cut_off_training_gives_the_same_network(
    finished: Path, photos: Path, start: Start, tmp_path: Path
) -> None:
    class Cut(Lines):
        def say(self, text: str) -> None:
            super().say(text)
            if "epoch 2/3" in text:
                raise KeyboardInterrupt

    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        runner.run(_recipe(), photos, out, InProcessExecutor(), Cut(), torch.device("cpu"))
    assert (out / "taught" / "last.ckpt").exists()
    start(photos, out, _recipe())
    whole = masks(finished)
    assert masks(out) == whole
    assert "taught/sipe.safetensors" in whole


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"is-cam": {"of": "first"}, "first": EVERY_KIND["first"]}, "kind is_cam takes side conv"),
        ({"taught": {"consistency": -1}}, r"taught\.consistency"),
        ({"taught": {"gradient_norm": 0}}, r"taught\.gradient_norm"),
        ({"taught": {"backbone": ...}}, r"taught\.backbone: Field required"),
    ],
)
def test_what_cant_be_is_one_clear_error(changes: dict[str, Any], message: str) -> None:
    merged = {name: {**(STEPS.get(name) or {}), **change} for name, change in changes.items()}
    with pytest.raises(WeaksegError, match=message):
        _recipe(**merged)


def test_missing_tags_are_found_by_classifiers_alone(
    photos: Path, start: Start, tmp_path: Path
) -> None:
    recipe = _recipe(screen={"kind": "missing_tags", "of": "taught"})
    with pytest.raises(WeaksegError, match="of kind classifier alone, and taught is of kind sipe"):
        start(photos, tmp_path / "out", recipe)
    assert not (tmp_path / "out").exists()


def test_levels_are_normalized_where_the_recipe_says_so(
    finished: Path, photos: Path, start: Start, tmp_path: Path
) -> None:
    start(photos, tmp_path / "out", _recipe(taught=EVERY_KIND["taught"] | {"normalized": True}))
    sides = safetensors.numpy.load_file(tmp_path / "out/taught/sipe.safetensors")
    assert all(sides[f"normalizations.{level}.running_var"].all() for level in range(4))
    maps = [
        {name: file for name, file in masks(out).items() if name.startswith("is-cam/")}
        for out in (finished, tmp_path / "out")
    ]
    assert maps[0].keys() == maps[1].keys() and maps[0] != maps[1]
