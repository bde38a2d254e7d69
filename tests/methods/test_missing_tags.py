import csv
import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import safetensors.numpy
import safetensors.torch
import torch

from tiny import BACKBONE, POOLED, STEPS, Lines, Start, masks, tiny_recipe
from weakseg.data.balance import Balance
from weakseg.data.dataset import Sample
from weakseg.engine import runner
from weakseg.engine.executor import InProcessExecutor
from weakseg.errors import WeaksegError
from weakseg.methods import classifier, missing_tags
from weakseg.methods.base import Photos, Step, Tools
from weakseg.methods.networks import build_classifier, read_classifier, write_classifier
from weakseg.methods.settings import BackboneSection
from weakseg.names import Head
from weakseg.recipe import Recipe

CLASSES = ("cat", "dog", "owl")
ON_FEATURES = {"epochs": 1, **{k: STEPS["classify"][k] for k in ("batch_size", "optimizer")}}
ON_PHOTOS = {
    **{k: v for k, v in STEPS["classify"].items() if k not in ("kind", "validation_fraction")},
    "epochs": 1,
    "head": "extra_convolutions",
}


def recipe(
    action: str | None,
    confidence: float = 0.01,
    screen: dict[str, Any] | None = None,
    training: dict[str, Any] | None = None,
) -> Recipe:
    """Classifiers of one `training`, on pooled features or, with a backbone in it, on photos.

    The step `screen` is there if it has an action, and read if it does more than list.
    """
    training = {**ON_FEATURES, **(training or {})}
    classify: dict[str, Any] = {**dict.fromkeys(STEPS["classify"], ...), **training}
    classify |= {"kind": "classifier", "validation_fraction": 0.25}
    features = [] if "backbone" in training else ["pool"]
    steps: dict[str, Any] = {"pool": POOLED["pool"]} if features else {}
    seen = ["screen"] if action in ("add", "mask") else []
    if action:
        found = {"action": action, "confidence": confidence, "folds": 2}
        if seen:
            own = {key: value for key, value in classify.items() if value is not ...}
            steps["first"] = {**own, "of": features}
        steps["screen"] = {
            "kind": "missing_tags",
            "of": "first" if seen else "classify",
            **found,
            **(screen or {}),
        }
    return tiny_recipe(**steps, classify={**classify, "of": features + seen})


def listed(run: Path) -> list[dict[str, str]]:
    with (run / "screen" / "missing_tags.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def maps_of(run: Path, image: str) -> np.ndarray:
    return safetensors.numpy.load_file(run / "localize" / f"{image}.safetensors")["scores"]


def network_of(run: Path) -> dict[str, torch.Tensor]:
    return safetensors.torch.load_file(run / "classify" / "classifier.safetensors")


class Screened(NamedTuple):
    step: Step
    tools: Tools

    def found_tags(self, **changes: Any) -> dict[str, Sample]:
        """What readers of the step see, with changes of its settings."""
        settings = self.step.settings.model_copy(update=changes)
        seen = missing_tags.with_found_tags(
            replace(self.step, settings=settings), self.tools.photos
        )
        return {sample.id: sample for sample in seen.samples}


@pytest.fixture(scope="module")
def screened(tmp_path_factory: pytest.TempPathFactory) -> Screened:
    """Photos whose pooled features say plainly what is in them; two lack a tag."""
    folder = tmp_path_factory.mktemp("screen")
    sgd = {"name": "sgd", "lr": 1.0, "head_lr": 1.0, "momentum": 0.9, "weight_decay": 0}
    made = recipe("list", 0.8, training={"epochs": 40, "optimizer": sgd})
    step = next(step for step in made.build(folder) if step.name == "screen")
    depth = build_classifier(classifier.backbone_of(step["classifier"]), 1).backbone.final.channels
    generator = torch.Generator().manual_seed(0)
    samples = []
    for number in range(48):
        there = {CLASSES[number % 3], CLASSES[(number // 3) % 3]} if number % 8 else set()
        pooled = 0.1 * torch.randn(2, depth, generator=generator)
        pooled[:, 0] += 2
        for i, name in enumerate(CLASSES):
            pooled[:, i + 1] += 4.0 * (name in there)
        features = _made(step["classifier"]["features"].folder) / f"{number}.safetensors"
        safetensors.torch.save_file({"pooled": pooled}, features)
        lost = {7: "owl", 29: "cat"}.get(number)
        assert lost is None or lost in there
        tags = tuple(name for name in CLASSES if name in there - {lost})
        samples.append(Sample(str(number), Path(f"{number}.jpg"), tags, None))
    photos = Photos(CLASSES, tuple(samples), CLASSES, Balance())
    executor = InProcessExecutor()
    tools = Tools(photos, executor, executor, Lines(), torch.device("cpu"))
    _made(step.folder)
    missing_tags.run(step, tools)
    return Screened(step, tools)


def _made(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    return folder


def test_tags_that_were_taken_away_are_found(screened: Screened) -> None:
    rows = listed(screened.step.folder.parent)
    assert {(row["image"], row["tag"]) for row in rows} == {("7", "owl"), ("29", "cat")}
    scores = [float(row["confidence"]) for row in rows]
    assert scores == sorted(scores, reverse=True)
    assert all(0.8 < score <= 1 for score in scores)
    progress = screened.tools.progress
    assert isinstance(progress, Lines)
    assert any("2 tags seem to be missing, in 2 of 48" in line for line in progress.said)


def test_what_was_found_is_left_added_or_doubtful(screened: Screened) -> None:
    before = {sample.id: sample for sample in screened.tools.photos.samples}
    assert screened.found_tags(action="list") == before
    added, masked = screened.found_tags(action="add"), screened.found_tags(action="mask")
    assert list(added) == list(masked) == list(before)
    assert added["7"].tags == tuple(n for n in CLASSES if n in (*before["7"].tags, "owl"))
    assert added["7"].doubtful == ()
    assert (masked["7"].tags, masked["7"].doubtful) == (before["7"].tags, ("owl",))
    for number in before.keys() - {"7", "29"}:
        assert added[number] == masked[number] == before[number]


def test_a_finished_fold_is_not_judged_anew(
    screened: Screened, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step, tools = screened
    again = replace(step, folder=Path(shutil.copytree(step.folder, tmp_path / "screen")))
    (again.folder / "missing_tags.csv").unlink()
    shutil.rmtree(again.folder / "fold-1")
    trained = []
    original = classifier.train_classifier

    def train(step: Step, tools: Tools, name: str, folder: Path, samples: Sequence[Sample]) -> None:
        trained.append(name)
        original(step, tools, name, folder, samples)

    monkeypatch.setattr(classifier, "train_classifier", train)
    missing_tags.run(again, tools)
    assert trained == ["screen 2/2"]
    assert listed(tmp_path) == listed(step.folder.parent)


@pytest.mark.slow
def test_no_photo_is_judged_by_a_network_that_learned_from_it(
    screened: Screened, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learned: dict[Path, set[str]] = {}
    judged: dict[Path, set[str]] = {}

    def train(step: Step, tools: Tools, name: str, folder: Path, samples: Sequence[Sample]) -> None:
        learned[folder] = {sample.id for sample in samples}

    def judge(
        step: Step, tools: Tools, name: str, folder: Path, fold: Sequence[Sample]
    ) -> list[missing_tags.Found]:
        judged[folder] = {sample.id for sample in fold}
        return []

    monkeypatch.setattr(classifier, "train_classifier", train)
    monkeypatch.setattr(missing_tags, "_judge", judge)
    step, tools = screened
    missing_tags.run(replace(step, folder=_made(tmp_path / "screen")), tools)
    everything = {sample.id for sample in tools.photos.samples}
    assert set().union(*judged.values()) == everything
    for folder, ids in judged.items():
        assert learned[folder] == everything - ids
    assert listed(tmp_path) == []


def test_a_list_that_is_not_whole_is_one_clear_error(screened: Screened, tmp_path: Path) -> None:
    broken = screened._replace(step=replace(screened.step, folder=_made(tmp_path / "screen")))
    for text in ("image,tag\na,b\n", "image,tag,confidence\na,b,c\n", None):
        path = tmp_path / "screen" / "missing_tags.csv"
        path.unlink(missing_ok=True) if text is None else path.write_text(text)
        with pytest.raises(WeaksegError, match=r"missing_tags\.csv can't be read: .*makes anew"):
            broken.found_tags(action="add")


@pytest.fixture(scope="module")
def plain(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("plain") / "out"
    runner.run(recipe(None), photos, out, InProcessExecutor(), Lines(), torch.device("cpu"))
    return out


def test_listing_runs_nothing_but_the_list(
    plain: Path, photos: Path, start: Start, tmp_path: Path
) -> None:
    out = Path(shutil.copytree(plain, tmp_path / "out"))
    before = masks(out)
    said = start(photos, out, recipe("list")).said
    steps = list(json.loads((out / "run.json").read_text())["steps"])
    assert {f"{name}: up to date" for name in steps if name != "screen"} <= set(said)
    assert listed(out)
    kept = {name: content for name, content in masks(out).items() if "screen" not in name}
    assert kept == before


def test_added_tags_are_localized(plain: Path, photos: Path, start: Start, tmp_path: Path) -> None:
    out = tmp_path / "out"
    start(photos, out, recipe("add"))
    rows = listed(out)
    for photo in (photos / "JPEGImages").iterdir():
        more = sum(row["image"] == photo.stem for row in rows)
        maps = [maps_of(run, photo.stem) for run in (plain, out)]
        assert len(maps[1]) == len(maps[0]) + more
    assert rows


def test_masked_tags_are_not_learned_to_be_absent(
    plain: Path, photos: Path, start: Start, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    start(photos, out, recipe("mask"))
    found = {(row["image"], row["tag"]) for row in listed(out)}
    assert len(found) > 10  # at this confidence all that was not given
    cams = [maps_of(run, "000000") for run in (plain, out)]
    assert len(cams[0]) == len(cams[1])
    before, after = network_of(plain)["head.weight"], network_of(out)["head.weight"]
    assert not torch.equal(before, after)
    said = start(photos, out, recipe("add")).said
    assert "screen: up to date" in said
    assert "classify: up to date" not in said


@pytest.mark.parametrize("change", [{"folds": 3}, {"confidence": 0.99}])
def test_what_was_found_decides_what_is_up_to_date(
    photos: Path, start: Start, tmp_path: Path, change: dict[str, Any]
) -> None:
    out = tmp_path / "out"
    start(photos, out, recipe("mask"))
    said = start(photos, out, recipe("mask", screen=change)).said
    assert "pool: up to date" in said
    assert not {"screen: up to date", "classify: up to date"} & set(said)


def test_a_backbone_that_is_trained_judges_whole_photos(
    photos: Path, tmp_path: Path, start: Start
) -> None:
    out = tmp_path / "out"
    start(photos, out, recipe("mask", training={**ON_PHOTOS, "augmentation": "strong"}))
    assert not (out / "pool").exists()
    assert listed(out)
    network = read_classifier(out / "classify" / "classifier.safetensors", torch.device("cpu"))
    assert len(network.extra) == 6


@pytest.mark.parametrize("head", ["linear", "extra_convolutions"])
def test_a_classifier_is_read_as_it_was_written(tmp_path: Path, head: Head) -> None:
    section = BackboneSection.model_validate(BACKBONE)
    network = build_classifier(section, 3, head).eval()
    torch.nn.init.normal_(network.head.weight)
    write_classifier(tmp_path / "a.safetensors", network, section, head, CLASSES)
    restored = read_classifier(tmp_path / "a.safetensors", torch.device("cpu"))
    images = torch.rand(1, 3, 40, 50)
    with torch.no_grad():
        torch.testing.assert_close(restored(images), network(images))


def test_a_frozen_backbone_under_extra_convolutions_sees_crops(
    photos: Path, tmp_path: Path, start: Start
) -> None:
    out = tmp_path / "out"
    frozen = POOLED["pool"]["backbone"]
    start(photos, out, recipe(None, training={**ON_PHOTOS, "backbone": frozen}))
    assert not (out / "pool").exists()
    assert (out / "svm+crf").is_dir()
    with pytest.raises(WeaksegError, match="classify: head is for training on photos; name a"):
        recipe(None, training={"head": "extra_convolutions"})
