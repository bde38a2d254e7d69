import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tiny import UNKEPT, Lines, Start, tiny_recipe
from weakseg.cli import main
from weakseg.data.dataset import Dataset, Sample, load_dataset
from weakseg.data.masks import read_mask, write_mask
from weakseg.data.synth import generate
from weakseg.engine import assess
from weakseg.engine.context import Context
from weakseg.engine.executor import InProcessExecutor
from weakseg.engine.opened import open_run
from weakseg.files import write_json
from weakseg.tables import class_cells

SIDE = 20


def entries(run: Path) -> dict[str, dict[str, Any]]:
    return {e["name"]: e for e in json.loads((run / "assessment.json").read_text())["classes"]}


def square(class_id: int, share: float, at: int = 0) -> np.ndarray:
    """A mask whose first rows from `at` on are of a class."""
    mask = np.zeros((SIDE, SIDE), np.uint8)
    mask[at : at + round(share * SIDE)] = class_id
    return mask


@pytest.fixture
def context(tmp_path: Path) -> Context:
    """Twelve photos of a class each, four photos a class; a classifier that knows them all."""
    classes = ("cat", "dog", "owl")
    tags = [classes[i % 3] for i in range(12)]
    samples = tuple(Sample(str(i), Path(f"{i}.jpg"), (tag,), None) for i, tag in enumerate(tags))
    dataset = Dataset(tmp_path, "test", classes, samples, (), ())
    for step in ("cam", "seed", "svm+crf"):
        for sample in samples:
            mask = square(classes.index(sample.tags[0]) + 1, 0.5)
            write_mask(tmp_path / step / f"{sample.id}.png", mask)
    set_scores(tmp_path, classes, precision=0.9)
    recipe = tiny_recipe()
    return Context(
        folder=tmp_path,
        recipe=recipe,
        steps=recipe.build(tmp_path),
        dataset=dataset,
        held_out=dataset,
        cpu=InProcessExecutor(),
        network=InProcessExecutor(),
        progress=Lines(),
        device=torch.device("cpu"),
    )


def set_scores(run: Path, classes: tuple[str, ...], precision: float | None) -> None:
    figures = {"average_precision": precision, "base_rate": precision and 1 / 3}
    per_class = {name: dict.fromkeys(classes, value) for name, value in figures.items()}
    write_json(run / "classify" / "scores.json", {"per_class": per_class})


def assessed(context: Context) -> dict[str, dict[str, Any]]:
    assess.run(context)
    return entries(context.folder)


def remarks(context: Context, name: str) -> list[str]:
    """What is said of a class beside that it has few photos."""
    return [r for r in assessed(context)[name]["remarks"] if not r.startswith("on ")]


def test_figures_are_those_of_a_plain_loop_over_the_files(finished: Path, photos: Path) -> None:
    scores = json.loads((finished / "classify" / "scores.json").read_text())["per_class"]
    dataset = load_dataset(photos)
    found = entries(finished)
    assert set(found) == {tag for sample in dataset.samples for tag in sample.tags}
    for name, entry in found.items():
        class_id = dataset.classes.index(name) + 1
        covers, agrees, unseeded = [], [], 0
        for sample in dataset.samples:
            if name in sample.tags:
                mask, cam, seed = (
                    read_mask(finished / step / f"{sample.id}.png") == class_id
                    for step in ("svm+crf", "cam", "seed")
                )
                covers.append(mask.sum() / mask.size)
                if covers[-1] >= 0.005:
                    agrees.append((mask & cam).sum() / (mask | cam).sum())
                unseeded += not seed.any()
        assert entry["photos"] == entry["masks"] == len(covers)
        assert entry["coverage"] == pytest.approx(np.median(covers))
        agreement = pytest.approx(np.median(agrees)) if agrees else None
        assert entry["cam_agreement"] == agreement
        assert entry["nearly_empty"] == sum(share < 0.005 for share in covers)
        assert entry["nearly_full"] == sum(share > 0.9 for share in covers)
        assert entry["without_seeds"] == unseeded
        for figure in ("average_precision", "base_rate"):
            assert entry[figure] == scores[figure][name]


def test_good_masks_get_no_remark(context: Context) -> None:
    found = assessed(context)
    assert [entry["remarks"] for entry in found.values()] == [["on 4 photos"]] * 3
    assert found["owl"]["coverage"] == 0.5
    assert found["owl"]["cam_agreement"] == 1.0


@pytest.mark.parametrize(
    ("step", "mask", "remark"),
    [
        ("svm+crf", square(2, 0), "often nearly empty"),
        ("svm+crf", square(2, 1), "often nearly the whole photo"),
        ("seed", square(1, 1), "often without seeds"),
    ],
)
def test_one_photo_in_four_is_often(
    context: Context, step: str, mask: np.ndarray, remark: str
) -> None:
    write_mask(context.folder / step / "1.png", mask)
    assert remarks(context, "dog") == [remark]
    assert remarks(context, "cat") == []


def test_a_mask_elsewhere_than_its_cam_is_remarked_on(context: Context) -> None:
    for number in (1, 4, 7):
        write_mask(context.folder / "svm+crf" / f"{number}.png", square(2, 0.5, at=10))
    assert remarks(context, "dog") == ["elsewhere than its CAM"]


@pytest.mark.parametrize(("precision", "guesses"), [(1 / 3, True), (0.4, True), (0.5, False)])
def test_a_classifier_that_guesses_is_remarked_on(
    context: Context, precision: float, guesses: bool
) -> None:
    set_scores(context.folder, context.dataset.classes, precision)
    assert ("the classifier guesses" in remarks(context, "owl")) == guesses


def test_what_nobody_knows_is_no_figure_and_no_remark(context: Context) -> None:
    set_scores(context.folder, context.dataset.classes, None)
    cams = tiny_recipe(**dict.fromkeys(("cam+crf", "seed", "svm", "svm+crf")))
    found = assessed(replace(context, steps=cams.build(context.folder)))["cat"]
    assert found["average_precision"] is found["base_rate"] is found["cam_agreement"] is None
    cells = dict(zip(("name", "photos", "ap"), class_cells([found])[0], strict=False))
    assert cells == {"name": "cat", "photos": "4", "ap": "- (-)"}


def test_a_tag_on_every_photo_and_tags_that_come_together_are_remarked_on(
    context: Context,
) -> None:
    samples = tuple(
        replace(sample, tags=("dog", "owl") if i < 11 else ("dog",))
        for i, sample in enumerate(context.dataset.samples)
    )
    dataset = replace(context.dataset, samples=samples)
    found = assessed(replace(context, dataset=dataset, held_out=dataset))
    assert found["dog"]["remarks"][0] == "on 12 of 12 photos"
    assert found["owl"]["remarks"][0] == "on 11 of 12 photos"
    assert "cat" not in found


def test_a_run_that_keeps_no_cams_is_assessed_by_its_masks(
    photos: Path, start: Start, tmp_path: Path
) -> None:
    start(photos, tmp_path / "out", tiny_recipe(**UNKEPT))
    for entry in entries(tmp_path / "out").values():
        assert entry["without_seeds"] is None
        assert entry["cam_agreement"] is None
        assert 0 <= entry["coverage"] <= 1


@pytest.fixture(scope="module")
def badly_tagged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos of which all but one have one tag, and two other tags always come together."""
    folder = tmp_path_factory.mktemp("tagged") / "data"
    generate(folder, images=24, seed=5)
    tags = [f"{n:06},skin{';left;right' if n % 2 else ''}" for n in range(1, 24)]
    (folder / "tags.csv").write_text("\n".join(["image,tags", "000000,", *tags]) + "\n")
    (folder / "classes.txt").write_text("skin\nleft\nright\n")
    return folder


def test_data_check_says_what_tags_cant_teach(
    badly_tagged: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["weakseg", "data", "check", str(badly_tagged)])
    with pytest.raises(SystemExit) as end:
        main()
    assert not end.value.code
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    (skin,) = [line for line in lines if line.startswith("'skin' is on 23 of 24 photos")]
    assert "Add photos without it" in skin
    (pair,) = [line for line in lines if line.startswith("'left' and 'right' come together")]
    assert "no photo with one of them alone" in pair
    assert "left: 12 of its 12 photos have right; no photo with one of them alone" in lines


def test_a_run_says_it_at_its_start_and_of_its_masks(
    badly_tagged: Path, start: Start, tmp_path: Path
) -> None:
    said = start(badly_tagged, tmp_path / "out").said
    warned = [place for place, line in enumerate(said) if line.startswith("tags: ")]
    assert [said[place].split("'")[1] for place in warned] == ["skin", "left"]
    assert max(warned) < said.index("inspect: 0 of 24 done before")
    found = entries(tmp_path / "out")
    assert found["skin"]["remarks"][0] == "on 23 of 24 photos"
    assert found["skin"]["coverage"] == 0 < found["left"]["coverage"]
    assert found["left"]["remarks"][0] == "with right"
    assert found["right"]["remarks"][0] == "with left"


@pytest.mark.parametrize("head", ["linear", "extra_convolutions"])
def test_a_tag_that_is_not_learned_has_maps_of_zeros(
    badly_tagged: Path, start: Start, tmp_path: Path, head: str
) -> None:
    steps = dict.fromkeys(("cam+crf", "seed", "svm", "svm+crf"))
    start(badly_tagged, tmp_path, tiny_recipe(classify={"head": head}, **steps))
    run = open_run(tmp_path)
    for photo in run.photos("localize"):
        for tag, scores in zip(run.tags()[photo], run.maps(photo, "localize").scores, strict=True):
            assert tag != "skin" or not scores.any()
