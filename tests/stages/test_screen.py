import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.torch
import torch

from tiny import Lines, Start, masks, tiny_recipe
from weakseg.data.dataset import Dataset, Sample
from weakseg.errors import WeaksegError
from weakseg.recipe import Recipe
from weakseg.stages import classify, localize, pool, runner, screen
from weakseg.stages.base import Context
from weakseg.stages.executor import InProcessExecutor
from weakseg.stages.networks import build_classifier, read_classifier, write_classifier

CLASSES = ("cat", "dog", "owl")
FROZEN = {"name": "test_efficientnet", "weights": "none", "frozen_stages": -1}
FAST = {"epochs": 1}


def recipe(action: str | None, confidence: float = 0.01, **sections: dict) -> Recipe:
    section = {"action": action, "confidence": confidence, "folds": 2}
    missing = {"missing_tags": section} if action else {}
    return tiny_recipe(**{"backbone": FROZEN, "classify": FAST, **missing, **sections})


def listed(run: Path) -> list[dict[str, str]]:
    with (run / "screen" / "missing_tags.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def network_of(run: Path) -> dict[str, torch.Tensor]:
    return safetensors.torch.load_file(run / "classify" / "classifier.safetensors")


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> Context:
    """Photos whose pooled features say plainly what is in them; two lack a tag."""
    folder = tmp_path_factory.mktemp("screen")
    sgd = {"name": "sgd", "lr": 1.0, "head_lr": 1.0, "momentum": 0.9, "weight_decay": 0}
    made = recipe("list", 0.8, classify={"epochs": 40, "optimizer": sgd})
    depth = build_classifier(made.backbone, 1).backbone.final.channels
    generator = torch.Generator().manual_seed(0)
    samples = []
    for number in range(48):
        there = {CLASSES[number % 3], CLASSES[(number // 3) % 3]} if number % 8 else set()
        pooled = 0.1 * torch.randn(2, depth, generator=generator)
        pooled[:, 0] += 2
        for i, name in enumerate(CLASSES):
            pooled[:, i + 1] += 4.0 * (name in there)
        safetensors.torch.save_file(
            {"pooled": pooled}, _made(folder / pool.NAME) / f"{number}.safetensors"
        )
        lost = {7: "owl", 29: "cat"}.get(number)
        assert lost is None or lost in there
        tags = tuple(name for name in CLASSES if name in there - {lost})
        samples.append(Sample(str(number), Path(f"{number}.jpg"), tags, None))
    dataset = Dataset(folder, "test", CLASSES, tuple(samples), (), ())
    context = Context(
        folder=folder,
        recipe=made,
        dataset=dataset,
        held_out=dataset,
        executor=InProcessExecutor(),
        progress=Lines(),
        device=torch.device("cpu"),
    )
    _made(folder / screen.NAME)
    screen.run(context)
    return context


def _made(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    return folder


def test_tags_that_were_taken_away_are_found(context: Context) -> None:
    rows = listed(context.folder)
    assert {(row["image"], row["tag"]) for row in rows} == {("7", "owl"), ("29", "cat")}
    scores = [float(row["confidence"]) for row in rows]
    assert scores == sorted(scores, reverse=True)
    assert all(0.8 < score <= 1 for score in scores)
    assert any("2 tags seem to be missing, in 2 of 48" in line for line in context.progress.said)


def test_what_was_found_is_left_added_or_doubtful(context: Context) -> None:
    def seen(action: str) -> dict[str, Sample]:
        changed = replace(context, recipe=recipe(action))
        return {sample.id: sample for sample in screen.with_found_tags(changed).dataset.samples}

    before = {sample.id: sample for sample in context.dataset.samples}
    assert seen("list") == before
    added, masked = seen("add"), seen("mask")
    assert list(added) == list(masked) == list(before)
    assert added["7"].tags == tuple(n for n in CLASSES if n in (*before["7"].tags, "owl"))
    assert added["7"].doubtful == ()
    assert (masked["7"].tags, masked["7"].doubtful) == (before["7"].tags, ("owl",))
    for number in before.keys() - {"7", "29"}:
        assert added[number] == masked[number] == before[number]


def test_a_finished_fold_is_not_judged_anew(
    context: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = listed(context.folder)
    shutil.copytree(context.folder, tmp_path / "run")
    again = replace(context, folder=tmp_path / "run")
    (tmp_path / "run" / "screen" / "missing_tags.csv").unlink()
    shutil.rmtree(tmp_path / "run" / "screen" / "fold-1")
    trained = []
    original = classify.train_classifier

    def train(context: Context, name: str, folder: Path, samples: list[Sample]) -> None:
        trained.append(name)
        original(context, name, folder, samples)

    monkeypatch.setattr(classify, "train_classifier", train)
    screen.run(again)
    assert trained == ["screen 2/2"]
    assert listed(tmp_path / "run") == whole


def test_no_photo_is_judged_by_a_network_that_learned_from_it(
    context: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learned: dict[Path, set[str]] = {}
    judged: dict[Path, set[str]] = {}

    def train(context: Context, name: str, folder: Path, samples: list[Sample]) -> None:
        learned[folder] = {sample.id for sample in samples}

    def judge(context: Context, name: str, folder: Path, fold: list[Sample]) -> list[screen.Found]:
        judged[folder] = {sample.id for sample in fold}
        return []

    monkeypatch.setattr(classify, "train_classifier", train)
    monkeypatch.setattr(screen, "_judge", judge)
    _made(tmp_path / "screen")
    screen.run(replace(context, folder=tmp_path))
    everything = {sample.id for sample in context.dataset.samples}
    assert set().union(*judged.values()) == everything
    for folder, ids in judged.items():
        assert learned[folder] == everything - ids
    assert listed(tmp_path) == []


def test_a_list_that_is_not_whole_is_one_clear_error(context: Context, tmp_path: Path) -> None:
    for text in ("image,tag\na,b\n", "image,tag,confidence\na,b,c\n", None):
        path = _made(tmp_path / "screen") / "missing_tags.csv"
        path.unlink(missing_ok=True) if text is None else path.write_text(text)
        broken = replace(context, folder=tmp_path, recipe=recipe("add"))
        with pytest.raises(WeaksegError, match=r"missing_tags\.csv can't be read: .*makes anew"):
            screen.with_found_tags(broken)


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
    stages = list(json.loads((out / "run.json").read_text())["stages"])
    assert {f"{name}: up to date" for name in stages if name != "screen"} <= set(said)
    assert listed(out)
    kept = {name: content for name, content in masks(out).items() if "screen" not in name}
    assert kept == before


def test_added_tags_are_localized(plain: Path, photos: Path, start: Start, tmp_path: Path) -> None:
    out = tmp_path / "out"
    start(photos, out, recipe("add"))
    rows = listed(out)
    for photo in (photos / "JPEGImages").iterdir():
        more = sum(row["image"] == photo.stem for row in rows)
        maps = [localize.read_localization(r / "localize", photo.stem).cam for r in (plain, out)]
        assert len(maps[1]) == len(maps[0]) + more
    assert rows


def test_masked_tags_are_not_learned_to_be_absent(
    plain: Path, photos: Path, start: Start, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    start(photos, out, recipe("mask"))
    found = {(row["image"], row["tag"]) for row in listed(out)}
    assert len(found) > 10  # at this confidence all that was not given
    cams = [localize.read_localization(r / "localize", "000000").cam for r in (plain, out)]
    assert len(cams[0]) == len(cams[1])
    before, after = network_of(plain)["head.weight"], network_of(out)["head.weight"]
    assert not torch.equal(before, after)
    said = start(photos, out, recipe("add")).said
    assert "screen: up to date" in said
    assert "classify: up to date" not in said


@pytest.mark.parametrize(
    ("section", "values"), [("classify", {"epochs": 2}), ("missing_tags", {"confidence": 0.99})]
)
def test_what_was_found_decides_what_is_up_to_date(
    photos: Path, start: Start, tmp_path: Path, section: str, values: dict
) -> None:
    out = tmp_path / "out"
    start(photos, out, recipe("mask"))
    changed = recipe("mask").model_dump()
    changed[section] |= values
    said = start(photos, out, Recipe.model_validate(changed)).said
    assert "pool: up to date" in said
    assert not {"screen: up to date", "classify: up to date"} & set(said)


def test_a_backbone_that_is_trained_judges_whole_photos(
    photos: Path, tmp_path: Path, start: Start
) -> None:
    out = tmp_path / "out"
    made = recipe(
        "mask",
        backbone={"frozen_stages": 1},
        classify={**FAST, "head": "extra_convolutions", "augmentation": "strong"},
    )
    start(photos, out, made)
    assert not (out / "pool").exists()
    assert listed(out)
    network = read_classifier(out / "classify" / "classifier.safetensors", torch.device("cpu"))
    assert len(network.extra) == 6


@pytest.mark.parametrize("head", ["linear", "extra_convolutions"])
def test_a_classifier_is_read_as_it_was_written(tmp_path: Path, head: str) -> None:
    section = recipe(None).backbone
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
    start(photos, out, recipe(None, classify={**FAST, "head": "extra_convolutions"}))
    assert not (out / "pool").exists()
    assert (out / "svm+crf").is_dir()
