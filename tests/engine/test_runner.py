import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import load_file

import tiny
from tiny import CELLS, Lines, Start, masks, tiny_recipe
from weakseg.data.dataset import load_dataset
from weakseg.data.masks import read_mask, write_mask
from weakseg.engine import evaluate, runner
from weakseg.engine.executor import InProcessExecutor, LocalExecutor, ThreadExecutor
from weakseg.engine.reviewed import Reviewed
from weakseg.errors import WeaksegError
from weakseg.methods import KINDS
from weakseg.methods.base import Item, Result
from weakseg.networks.cpu import onednn
from weakseg.training.classifier import ClassifierTraining
from weakseg.training.photos import Example

STEPS = [
    "inspect", "classify", "localize", "cam", "cam+crf", "seed", "svm", "svm+crf", "assess",
    "confidence", "evaluate", "panels",
]  # fmt: skip
MASKS = ("cam", "cam+crf", "seed", "svm", "svm+crf")


@pytest.fixture
def copy(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "out"))


def up_to_date(said: list[str]) -> list[str]:
    return [line.split(":")[0] for line in said if line.endswith(": up to date")]


def test_a_run_leaves_what_it_promises(finished: Path, photos: Path) -> None:
    record = json.loads((finished / "run.json").read_text())
    assert list(record["steps"]) == STEPS
    assert all(s["finished"] and s["seconds"] >= 0 for s in record["steps"].values())
    assert {"version", "seed", "device"} <= set(record)
    rows = json.loads((finished / "metrics.json").read_text())["stages"]
    names = ["cam", "cam-oracle", "cam+crf", "seed", "svm", "svm+crf"]
    assert [row["name"] for row in rows] == names
    for row in rows:
        assert row["images"] == 10
        assert 0 <= row["miou"] <= 1
        assert row["protocol"]["ignore"] == 255
        oracle = "oracle" in row["protocol"]["threshold_source"]
        assert oracle is (row["name"] == "cam-oracle")
    best = {row["name"]: row["miou"] for row in rows}
    assert best["cam-oracle"] >= best["cam"]
    for step in MASKS:
        for photo in (photos / "JPEGImages").iterdir():
            with Image.open(finished / step / f"{photo.stem}.png") as mask:
                assert mask.mode == "P"
                assert mask.size == Image.open(photo).size
    assert len(list((finished / "panels").glob("*.jpg"))) == 2
    assert not list(finished.rglob(".partial-*"))


def test_the_same_run_again_does_nothing(copy: Path, photos: Path, start: Start) -> None:
    before = masks(copy)
    assert up_to_date(start(photos, copy).said) == STEPS
    assert masks(copy) == before


@pytest.mark.parametrize(
    ("name", "values", "rerun"),
    [
        ("report", {"panels": 1}, ["panels"]),
        ("cam+crf", {"confidence": 0.6}, ["cam+crf", "confidence", "evaluate", "panels"]),
        ("svm+crf", {"confidence": 0.6}, ["svm+crf", "assess", "confidence", "evaluate", "panels"]),
        ("svm", {"cycles": 0}, ["svm", "svm+crf", "assess", "confidence", "evaluate", "panels"]),
        (
            "cam",
            {"background": 0.3},
            ["cam", "cam+crf", "assess", "confidence", "evaluate", "panels"],
        ),
        ("localize", {"scales": [0.5, 1.0, 1.5]}, STEPS[2:]),
        ("classify", {"epochs": 2}, STEPS[1:]),
        ("data", {"long_side": 96}, STEPS[1:]),
        ("seed", 1, STEPS[1:]),
    ],
)
def test_a_changed_key_reruns_what_depends_on_it(
    copy: Path,
    photos: Path,
    start: Start,
    name: str,
    values: dict[str, Any] | int,
    rerun: list[str],
) -> None:
    said = start(photos, copy, tiny_recipe(**{name: values})).said
    assert up_to_date(said) == [step for step in STEPS if step not in rerun]


def test_masks_that_a_person_made_are_counted(
    finished: Path, copy: Path, photos: Path, start: Start
) -> None:
    mask = read_mask(finished / "svm" / "000001.png")
    reviewed = Reviewed.of(copy)
    reviewed.accept("000001", mask)
    said = start(photos, copy).said
    assert f"1 masks are those of {reviewed.folder} wherever masks teach" in said
    assert up_to_date(said) == STEPS
    assert masks(copy / "svm+crf") == masks(finished / "svm+crf")


def test_a_changed_photo_or_tag_reruns_everything(
    copy: Path, photos: Path, start: Start, tmp_path: Path
) -> None:
    data = Path(shutil.copytree(photos, tmp_path / "data", copy_function=shutil.copy2))
    assert up_to_date(start(data, copy).said) == STEPS
    photo = next((data / "JPEGImages").iterdir())
    os.utime(photo, ns=(0, 0))
    assert up_to_date(start(data, copy).said) == []


def test_without_masks_the_outputs_are_the_same_bytes(
    finished: Path, photos: Path, start: Start, tmp_path: Path
) -> None:
    data = Path(shutil.copytree(photos, tmp_path / "data", copy_function=shutil.copy2))
    shutil.rmtree(data / "SegmentationClass")
    said = start(data, tmp_path / "out").said
    assert masks(tmp_path / "out") == masks(finished)
    assert json.loads((tmp_path / "out" / "metrics.json").read_text()) == {"stages": []}
    assert any("no masks" in line for line in said)


def test_true_masks_of_0_and_255_alone_give_no_figures(
    copy: Path, photos: Path, start: Start, tmp_path: Path
) -> None:
    data = Path(shutil.copytree(photos, tmp_path / "data", copy_function=shutil.copy2))
    for path in (data / "SegmentationClass").iterdir():
        write_mask(path, np.where(read_mask(path) > 0, np.uint8(255), np.uint8(0)))
    said = start(data, copy).said
    assert up_to_date(said) == STEPS[:-2]
    assert json.loads((copy / "metrics.json").read_text()) == {"stages": []}
    (line,) = [line for line in said if line.startswith("evaluate: no figures.")]
    assert "The 10 true masks of split 'all' have the ids 0 and 255 (ignored) alone" in line


def test_what_ids_mean_lies_beside_the_masks_of_every_step(finished: Path, photos: Path) -> None:
    names = ("background", *load_dataset(photos).classes)
    numbered = [*enumerate(names), (255, "ignored")]
    for step in MASKS:
        lines = (finished / step / "classes.txt").read_text().splitlines()
        assert lines == [f"{number}\t{name}" for number, name in numbered]


def test_new_masks_rerun_only_what_reads_them(
    finished: Path, photos: Path, start: Start, tmp_path: Path
) -> None:
    data = Path(shutil.copytree(photos, tmp_path / "data", copy_function=shutil.copy2))
    out = Path(shutil.copytree(finished, tmp_path / "out"))
    os.utime(next((data / "SegmentationClass").iterdir()), ns=(0, 0))
    assert up_to_date(start(data, out).said) == STEPS[:-2]


def _spoil(folder: Path) -> None:
    """An unreadable mask, one of another size and one with an id too many."""
    unreadable, sized, numbered = sorted(folder.iterdir())[:3]
    unreadable.write_bytes(b"no mask")
    write_mask(sized, np.zeros((3, 5), np.uint8))
    mask = read_mask(numbered)
    mask[0, 0] = 254
    write_mask(numbered, mask)


def test_bad_true_masks_are_left_out_of_every_row(
    copy: Path, photos: Path, start: Start, tmp_path: Path
) -> None:
    data = Path(shutil.copytree(photos, tmp_path / "data", copy_function=shutil.copy2))
    _spoil(data / "SegmentationClass")
    said = start(data, copy, tiny_recipe(report={"panels": 10})).said
    lines = [line for line in said if line.startswith("left out:")]
    assert len(lines) == 1 and "3 of 10 true masks" in lines[0] and "000000.png" in lines[0]
    rows = json.loads((copy / "metrics.json").read_text())["stages"]
    assert [(row["images"], row["left_out"]) for row in rows] == [(7, 3)] * 6
    assert len(list((copy / "panels").iterdir())) == 10


def test_bad_true_masks_are_left_out_of_a_folders_row(
    finished: Path, photos: Path, tmp_path: Path
) -> None:
    data = Path(shutil.copytree(photos, tmp_path / "data"))
    _spoil(data / "SegmentationClass")
    dataset, lines = load_dataset(data), Lines()

    def row(predictions: Path) -> dict[str, Any]:
        return evaluate.evaluate_folder(predictions, dataset, "all", InProcessExecutor(), lines)

    assert (row(finished / "svm")["images"], row(finished / "svm")["left_out"]) == (7, 3)
    predictions = Path(shutil.copytree(finished / "svm", tmp_path / "svm"))
    (predictions / "000005.png").write_bytes(b"no mask")
    with pytest.raises(WeaksegError, match="000005"):
        row(predictions)
    for mask in (data / "SegmentationClass").iterdir():
        mask.write_bytes(b"no mask")
    with pytest.raises(WeaksegError, match="no masks to evaluate"):
        row(finished / "svm")


@pytest.mark.slow
def test_worker_processes_give_the_same_bytes(
    finished: Path, photos: Path, start: Start, tmp_path: Path
) -> None:
    with LocalExecutor(2) as executor:
        start(photos, tmp_path / "out", executor=executor)
    assert masks(tmp_path / "out") == masks(finished)


@pytest.mark.slow
def test_what_works_on_features_that_are_kept_does_so_in_worker_processes(
    photos: Path, start: Start, tmp_path: Path
) -> None:
    recipe = tiny_recipe(**CELLS)
    with LocalExecutor(2) as executor:
        start(photos, tmp_path / "out", recipe, executor)
        said = start(photos, tmp_path / "out", recipe, executor).said
    assert {f"{section.name}: up to date" for section in recipe.steps} <= set(said)


def test_a_precision_that_this_cpu_lacks_is_said_and_changes_no_byte(
    photos: Path, start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onednn, "computes", lambda _: False)
    for name in ("32-true", "bf16-mixed"):
        pool = {**tiny.POOLED["pool"], "precision": name}
        recipe = tiny_recipe(**dict.fromkeys(tiny.STEPS), pool=pool)
        said = start(photos, tmp_path / name, recipe).said
        told = "This CPU has no instructions for bf16-mixed: float32 takes its place"
        assert (told in said) is (name == "bf16-mixed")
        assert said[-1] == "0 photos have a mask; left out: none"
    assert masks(tmp_path / "bf16-mixed") == masks(tmp_path / "32-true")


def test_threads_give_the_same_bytes(
    finished: Path, photos: Path, start: Start, tmp_path: Path
) -> None:
    start(photos, tmp_path / "out", executor=ThreadExecutor())
    assert masks(tmp_path / "out") == masks(finished)


class CutOff(BaseException):
    """As final as a kill: no handler of the program sees it."""


@pytest.mark.parametrize("step", ["localize", "svm", "svm+crf"])
def test_a_cut_off_step_goes_on_where_it_stopped(
    finished: Path, photos: Path, start: Start, tmp_path: Path, step: str
) -> None:
    class Cut:
        def __init__(self, at: int) -> None:
            self.left = at

        def map(
            self, make: Callable[[], Callable[[Item], Result]], items: Iterable[Item]
        ) -> Iterator[Result]:
            work = make()
            for item in items:
                if (tmp_path / "out" / step).exists():
                    if self.left == 0:
                        raise CutOff
                    self.left -= 1
                yield work(item)

        def rest(self) -> None:
            pass

    out = tmp_path / "out"
    with pytest.raises(CutOff):
        start(photos, out, executor=Cut(at=4))
    leftover = out / step / ".partial-killed.png"
    leftover.touch()
    said = start(photos, out).said
    assert f"{step}: 4 of 10 done before" in said
    assert masks(out) == masks(finished)
    assert not leftover.exists()


def test_a_run_that_is_cut_off_amid_a_removal_goes_on(
    finished: Path, copy: Path, photos: Path, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut_off(path: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(runner, "remove", cut_off)
        start(photos, copy, tiny_recipe(localize={"scales": [0.5, 1.0, 1.5]}))
    assert "localize" not in json.loads((copy / "run.json").read_text())["steps"]
    start(photos, copy)
    assert masks(copy) == masks(finished)


@pytest.mark.parametrize("epoch", [1, 2])
def test_a_cut_off_training_gives_the_same_network(
    finished: Path,
    photos: Path,
    start: Start,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    epoch: int,
) -> None:
    with monkeypatch.context() as patched:
        original = ClassifierTraining.training_step

        def training_step(self: ClassifierTraining, batch: Example, index: int) -> torch.Tensor:
            if self.current_epoch == epoch:
                raise CutOff
            return original(self, batch, index)

        patched.setattr(ClassifierTraining, "training_step", training_step)
        with pytest.raises(CutOff):
            start(photos, tmp_path / "out")
    start(photos, tmp_path / "out")
    assert masks(tmp_path / "out") == masks(finished)
    scores = [
        json.loads((o / "classify/scores.json").read_text()) for o in (tmp_path / "out", finished)
    ]
    assert scores[0] == scores[1]
    assert [e["epoch"] for e in scores[0]["epochs"]] == [1, 2, 3]


def test_a_frozen_backbone_is_run_once_for_the_training(
    photos: Path, start: Start, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    start(photos, out, tiny_recipe(**tiny.POOLED))
    assert len(list((out / "pool").iterdir())) == 10
    assert (out / "svm+crf").is_dir()
    classify = {**tiny.POOLED["classify"], "epochs": 2}
    said = start(photos, out, tiny_recipe(**{**tiny.POOLED, "classify": classify})).said
    assert up_to_date(said) == ["inspect", "pool"]


def test_few_photos_of_one_class_named_as_a_camera_names_them(
    photos: Path, start: Start, tmp_path: Path
) -> None:
    (tmp_path / "data" / "images").mkdir(parents=True)
    for i, photo in enumerate(sorted((photos / "JPEGImages").iterdir())[:3]):
        shutil.copy(photo, tmp_path / "data" / "images" / f"DSC_{i}.JPG")
    rows = "".join(f"DSC_{i}.JPG,thing\n" for i in range(3))
    (tmp_path / "data" / "tags.csv").write_text(f"image,tags\n{rows}")
    start(tmp_path / "data", tmp_path / "out")
    assert len(list((tmp_path / "out" / "svm+crf").glob("DSC_*.png"))) == 3


def test_one_photo_is_too_few(photos: Path, start: Start, tmp_path: Path) -> None:
    (tmp_path / "data" / "images").mkdir(parents=True)
    photo = next((photos / "JPEGImages").iterdir())
    shutil.copy(photo, tmp_path / "data" / "images" / "a.jpg")
    (tmp_path / "data" / "tags.csv").write_text("image,tags\na,thing\n")
    with pytest.raises(WeaksegError, match="needs two at least"):
        start(tmp_path / "data", tmp_path / "out")


def test_a_foreign_record_is_one_clear_error(photos: Path, start: Start, tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("[]")
    with pytest.raises(WeaksegError, match="no record of a run"):
        start(photos, tmp_path)


def test_large_photos_are_worked_on_smaller_and_get_masks_of_their_own_size(
    photos: Path, start: Start, tmp_path: Path
) -> None:
    start(photos, tmp_path / "out", tiny_recipe(data={"long_side": 96}))
    found = load_file(tmp_path / "out" / "localize" / "000000.safetensors")
    assert max(found["scores"].shape[1:]) == 24
    for step in MASKS:
        for photo in (photos / "JPEGImages").iterdir():
            with Image.open(tmp_path / "out" / step / f"{photo.stem}.png") as mask:
                assert mask.size == Image.open(photo).size


def test_unreadable_and_untagged_photos_are_named_and_left_out(
    photos: Path, start: Start, tmp_path: Path
) -> None:
    data = Path(shutil.copytree(photos, tmp_path / "data"))
    broken = sorted((data / "JPEGImages").iterdir())[3]
    shutil.copy(broken, data / "JPEGImages" / "extra.jpg")
    broken.write_bytes(broken.read_bytes()[:200])
    said = start(data, tmp_path / "out").said
    assert any(line.startswith("can't be read:") and broken.name in line for line in said)
    assert "left out: 1 photos without tags, such as 'extra'" in said
    assert "left out: 1 photos that can't be read" in said
    assert said[-1] == "9 photos have a mask; left out: 1 without tags, 1 that can't be read"
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert record["data"]["left_out"] == {"without tags": 1, "that can't be read": 1}
    assert len(list((tmp_path / "out" / "svm+crf").glob("*.png"))) == 9


def test_a_photo_that_becomes_readable_is_taken_in(
    photos: Path, start: Start, tmp_path: Path, finished: Path
) -> None:
    data, out = tmp_path / "data", tmp_path / "out"
    shutil.copytree(photos, data, copy_function=shutil.copy2)
    photo = sorted((data / "JPEGImages").iterdir())[3]
    content, status = photo.read_bytes(), photo.stat()
    photo.write_bytes(bytes(len(content)))
    os.utime(photo, ns=(status.st_atime_ns, status.st_mtime_ns))
    start(data, out)
    said = start(data, out).said
    assert up_to_date(said) == STEPS
    assert [photo.name in line for line in said if line.startswith("can't be read:")] == [True]
    photo.write_bytes(content)
    os.utime(photo, ns=(status.st_atime_ns, status.st_mtime_ns))
    said = start(data, out).said
    assert up_to_date(said) == ["inspect"]
    assert not any(line.startswith(("left out:", "can't be read:")) for line in said)
    assert said[-1] == "10 photos have a mask; left out: none"
    assert masks(out) == masks(finished)


def test_a_damaged_checkpoint_starts_a_training_anew(
    finished: Path, copy: Path, photos: Path, start: Start
) -> None:
    (copy / "classify" / "classifier.safetensors").unlink()
    (copy / "classify" / "last.ckpt").write_bytes(b"corrupt")
    record = json.loads((copy / "run.json").read_text())
    record["steps"]["classify"]["finished"] = False
    (copy / "run.json").write_text(json.dumps(record))
    said = start(photos, copy).said
    assert "classify: starts anew, for want of whole checkpoints" in said
    assert "svm+crf: up to date" in said
    assert masks(copy) == masks(finished)


def test_a_raised_version_reruns_a_step_and_what_needs_it(
    copy: Path, photos: Path, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    svm = KINDS["svm"]
    monkeypatch.setitem(KINDS, "svm", replace(svm, version=svm.version + 1))
    rerun = ["svm", "svm+crf", "assess", "confidence", "evaluate", "panels"]
    assert up_to_date(start(photos, copy).said) == [name for name in STEPS if name not in rerun]


def test_the_packages_version_alone_reruns_nothing(
    copy: Path, photos: Path, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "VERSION", "99.0")
    assert up_to_date(start(photos, copy).said) == STEPS
    assert json.loads((copy / "run.json").read_text())["version"] == "99.0"


def test_a_folder_that_is_no_run_is_left_alone(photos: Path, start: Start, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(WeaksegError, match="no run's folder"):
        start(photos, tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": {"every": 100}}, "data.every is 100, and there are 10 photos"),
        (
            {
                "screen": {"kind": "missing_tags", "of": "classify", "folds": 50},
            },
            "screen.folds is 50, and there are 10 photos",
        ),
        (
            {"data": {"held_out": "tset"}},
            "data.held_out is 'tset': Unknown split 'tset'.* With data.held_out=null the network",
        ),
        ({"localize": {"feature_stages": []}}, "svm needs features, and localize has none"),
        ({"localize": {"feature_stages": [9]}}, r"localize.feature_stages has \[9\]"),
    ],
)
def test_what_can_not_be_done_is_refused_before_anything_is_written(
    photos: Path, start: Start, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(WeaksegError, match=message):
        start(photos, tmp_path / "out", tiny_recipe(**changes))
    assert not (tmp_path / "out").exists()


def test_splits_whose_tags_are_other_classes_are_refused(start: Start, tmp_path: Path) -> None:
    data = tmp_path / "data"
    for split, tag in (("train", "n02084071"), ("val", "n02118333")):
        for folder in (f"Data/DET/{split}", f"Annotations/DET/{split}", "ImageSets/DET"):
            (data / folder).mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 6)).save(data / "Data" / "DET" / split / f"{split}_1.JPEG")
        (data / "Annotations" / "DET" / split / f"{split}_1.xml").write_text(
            f"<annotation><object><name>{tag}</name></object></annotation>"
        )
        (data / "ImageSets" / "DET" / f"{split}.txt").write_text(f"{split}_1 1\n")
    recipe = tiny_recipe(data={"split": "train", "held_out": "val"})
    with pytest.raises(WeaksegError, match=r"'train' and 'val' of .* have other classes") as caught:
        start(data, tmp_path / "out", recipe)
    assert str(caught.value).endswith("List them in classes.txt.")
    assert not (tmp_path / "out").exists()


def test_no_photo_that_can_be_read_is_one_clear_error(start: Start, tmp_path: Path) -> None:
    data = tmp_path / "data"
    (data / "images").mkdir(parents=True)
    for name in "ab":
        (data / "images" / f"{name}.jpg").write_bytes(b"no photo")
    (data / "tags.csv").write_text("image,tags\na,cat\nb,dog\n")
    with pytest.raises(WeaksegError) as caught:
        start(data, tmp_path / "out")
    assert str(caught.value) == f"None of the photos in {data} can be read."
    for name in "ab":
        Image.new("RGB", (8, 6)).save(data / "images" / f"{name}.jpg")
    recipe = tiny_recipe(**dict.fromkeys(tiny.STEPS), pool=tiny.POOLED["pool"])
    said = start(data, tmp_path / "out", recipe).said
    assert any(line.startswith("photos: 2 of 2 have a side under 64 pixels") for line in said)
