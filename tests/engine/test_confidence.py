import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tiny import UNKEPT, Start, tiny_recipe
from weakseg.confidence import mask_confidence, mean_margin, probabilities
from weakseg.data.dataset import load_dataset
from weakseg.data.masks import write_mask
from weakseg.engine.confidence import sight_behind, trained_behind
from weakseg.engine.opened import open_run
from weakseg.metrics import ConfusionMatrix
from weakseg.recipe import check_recipe


def test_a_runs_last_masks_get_theirs(finished: Path, photos: Path) -> None:
    run, dataset = open_run(finished), load_dataset(photos)
    content = json.loads((finished / "confidence.json").read_text())
    assert content["step"] == run.masks == "svm+crf"
    assert run.confidence.keys() == {sample.id for sample in dataset.samples}
    tagged = [sample for sample in dataset.samples if sample.tags]
    margin = np.mean([mean_margin(run.maps(sample.id, "svm").scores) for sample in tagged])
    others = ("cam", "cam+crf", "seed", "svm")
    for sample in tagged:
        ids = [dataset.classes.index(tag) + 1 for tag in sample.tags]
        expected = mask_confidence(
            run.mask(sample.id),
            ids,
            [run.mask(sample.id, step) for step in others],
            probabilities(run.maps(sample.id, "svm").scores, float(margin)),
        )
        found = content["photos"][sample.id]["classes"]
        assert found == dict(zip(sample.tags, (round(v, 4) for v in expected), strict=True))
        assert run.confidence[sample.id] == min(found.values())


def test_it_is_measured_against_true_masks(finished: Path, photos: Path) -> None:
    run, dataset = open_run(finished), load_dataset(photos)
    told = run.reliability
    assert told["step"] == "svm+crf" and told["pairs"] > 0
    assert [entry["images"] for entry in told["surer"]] == [10, 9, 8, 7]
    least = sorted(run.confidence, key=lambda photo: (run.confidence[photo], photo))
    for entry in told["surer"]:
        matrix = ConfusionMatrix(dataset.classes)
        for sample in dataset.samples:
            if sample.mask and sample.id in least[10 - entry["images"] :]:
                matrix.update(sample.mask.read(), run.mask(sample.id))
        assert entry["miou"] == pytest.approx(matrix.summary()["miou"])


def test_masks_that_nothing_else_tells_of_have_none(
    photos: Path, start: Start, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    start(photos, out, tiny_recipe(**UNKEPT))
    assert open_run(out).confidence == {} and open_run(out).reliability == {}
    assert json.loads((out / "confidence.json").read_text())["photos"] == {}


def test_true_masks_without_the_tags_classes_tell_nothing_of_it(
    start: Start, tmp_path: Path
) -> None:
    data, given = tmp_path / "data", tmp_path / "given"
    (data / "images").mkdir(parents=True)
    (data / "classes.txt").write_text("cat\ndog\nowl\n")
    (data / "tags.csv").write_text("image,tags\na,cat\nb,dog\n")
    for name in "ab":
        Image.new("RGB", (8, 6)).save(data / "images" / f"{name}.png")
        write_mask(data / "masks" / f"{name}.png", np.full((6, 8), 3, np.uint8))
        write_mask(given / f"{name}.png", np.zeros((6, 8), np.uint8))
    steps = {
        "given": {"kind": "folder", "path": str(given), "holds": "masks"},
        "large": {"kind": "components", "of": "given", "least_share": 0.02},
    }
    start(data, tmp_path / "out", check_recipe({"data": {"split": "all"}, "steps": steps}, "given"))
    run = open_run(tmp_path / "out")
    assert run.confidence.keys() == {"a", "b"}
    assert [row["per_class"]["owl"] for row in run.figures] == [0, 0]
    assert run.reliability == {}


@pytest.mark.parametrize(
    ("maps", "trained", "sight"),
    [
        (["localize"], "classify", None),
        (["localize-imagenet"], None, "localize-imagenet"),
        (["localize-imagenet", "localize"], "classify", None),
    ],
)
def test_a_trained_classifier_behind_masks_is_told_from_imagenets(
    maps: list[str], trained: str | None, sight: str | None, tmp_path: Path
) -> None:
    both = {"kind": "combine", "of": maps, "how": "mean"} if maps[1:] else None
    recipe = tiny_recipe(
        imagenet={"kind": "imagenet", "backbone": {"name": "efficientnet_lite0"}},
        **{"localize-imagenet": {"kind": "cam", "of": "imagenet", "scales": [1.0]}},
        both=both,
        last={"kind": "threshold", "of": "both" if both else maps[0], "background": 0.4},
    )
    masks = next(step for step in recipe.build(tmp_path) if step.name == "last")
    found = [step and step.name for step in (trained_behind(masks), sight_behind(masks))]
    assert found == [trained, sight]
