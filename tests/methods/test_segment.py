import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import safetensors.torch
import torch
from PIL import Image

import tiny
from tiny import SEGMENT, CutOff, Cutting, Lines, Start, masks, tiny_recipe
from weakseg.data.images import read_photo, resize
from weakseg.data.masks import read_mask
from weakseg.engine import predict, runner
from weakseg.engine.executor import InProcessExecutor
from weakseg.errors import WeaksegError
from weakseg.files import read_json
from weakseg.grid import upsample
from weakseg.methods import segment
from weakseg.methods.crf import refine_all
from weakseg.methods.networks import read_segmenter
from weakseg.methods.segment import Views
from weakseg.recipe import Recipe, dump_recipe
from weakseg.refine.crf import dense_crf
from weakseg.refine.settings import CRFSettings

CPU = torch.device("cpu")


HELD_OUT = {"split": "train", "held_out": "val"}
LEFT_OUT: dict[str, Any] = dict.fromkeys(("seed", "svm", "svm+crf", "cam+crf"))


def _recipe(**changes: dict[str, Any]) -> Recipe:
    network = {name: {**step, **changes.get(name, {})} for name, step in SEGMENT.items()}
    return tiny_recipe(data=HELD_OUT, **LEFT_OUT, **network)


@pytest.fixture(scope="module")
def finished(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run") / "out"
    runner.run(_recipe(), photos, out, InProcessExecutor(), Lines(), CPU)
    return out


def test_masks_of_the_photos_held_out_are_measured(finished: Path) -> None:
    rows = {row["name"]: row for row in read_json(finished / "metrics.json")["stages"]}
    assert list(rows) == ["cam", "cam-oracle", "segment", "segment+tta"]
    assert [rows[name]["split"] for name in rows] == ["train", "train", "val", "val"]
    assert rows["segment"]["images"] == 2
    assert rows["segment"]["protocol"] == {"masks": "cam", "crf": False, "ignore": 255}
    assert rows["segment+tta"]["protocol"]["tta"] == "flip x 0.5, 1"
    for step in ("segment", "segment+tta"):
        written = sorted(p.name for p in (finished / step).iterdir())
        assert written == ["000002.png", "000007.png", "classes.txt"]
    scores = read_json(finished / "segmenter" / "scores.json")
    assert scores["miou_against"] == "held-out masks of cam"
    assert [row["epoch"] for row in scores["epochs"]] == [1, 2]


def test_the_network_learns_from_masks_alone(
    finished: Path, photos: Path, start: Start, tmp_path: Path
) -> None:
    bare = Path(shutil.copytree(photos, tmp_path / "bare"))
    shutil.rmtree(bare / "SegmentationClass")
    start(bare, tmp_path / "out", _recipe())
    known = {k: v for k, v in masks(finished).items() if not k.startswith("panels")}
    assert masks(tmp_path / "out") == known


def test_a_cut_off_training_goes_on_to_the_same_network(
    finished: Path, photos: Path, start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    cut_off = Cutting("segmenter: epoch 2")
    with pytest.raises(CutOff):
        runner.run(_recipe(), photos, out, InProcessExecutor(), cut_off, CPU)
    assert not (out / "segmenter" / "segmenter.safetensors").exists()
    assert f"weakseg predict {out} uses its best epoch so far" in cut_off.said[-1]
    photo = _photo(tmp_path / "a.png", 30, 50)
    written, lines = _predict(out, [photo], tmp_path / "so far")
    assert written == 1 and "has not ended: this is its best epoch so far" in lines.said[0]
    best = torch.load(out / "segmenter" / "best.ckpt")["state_dict"]
    so_far, _ = read_segmenter(out / "segmenter" / "best-so-far.safetensors", CPU)
    for name, weights in so_far.state_dict().items():
        assert torch.equal(weights, best[f"network.{name}"]), name
    start(photos, out, _recipe())
    assert masks(out) == masks(finished)
    assert not (out / "segmenter" / "best-so-far.safetensors").exists()
    assert not list(out.rglob("*.ckpt"))


def test_other_scales_of_augmentation_redo_only_the_augmented(
    finished: Path, photos: Path, start: Start, tmp_path: Path
) -> None:
    out = Path(shutil.copytree(finished, tmp_path / "out"))
    views = {"segment+tta": {"scales": [1.0, 2.0]}}
    said = start(photos, out, _recipe(**views)).said
    kept = [line.split(":")[0] for line in said if line.endswith(": up to date")]
    assert kept == [
        "inspect",
        "classify",
        "localize",
        "cam",
        "segmenter",
        "segment",
        "assess",
        "confidence",
    ]
    start(photos, tmp_path / "fresh", _recipe(**views))
    assert masks(out) == masks(tmp_path / "fresh")
    rows = {row["name"]: row for row in read_json(out / "metrics.json")["stages"]}
    assert rows["segment+tta"]["protocol"]["tta"] == "flip x 1, 2"


def test_another_network_or_none_redoes_nothing_before_it(
    finished: Path, photos: Path, start: Start, tmp_path: Path
) -> None:
    out = Path(shutil.copytree(finished, tmp_path / "out"))
    said = start(photos, out, tiny_recipe(data=HELD_OUT, **LEFT_OUT)).said
    kept = [line.split(":")[0] for line in said if line.endswith(": up to date")]
    assert kept == ["inspect", "classify", "localize", "cam", "assess", "confidence"]
    alone = tiny_recipe(data={"split": "train"}, **LEFT_OUT)
    assert "classify: up to date" in start(photos, out, alone).said


def test_real_masks_judge_the_epochs_where_they_are_given(
    finished: Path, photos: Path, start: Start, tmp_path: Path
) -> None:
    out = Path(shutil.copytree(finished, tmp_path / "out"))
    truth = photos / "SegmentationClass"
    start(photos, out, _recipe(segmenter={"validation_masks": str(truth)}))
    scores = read_json(out / "segmenter" / "scores.json")
    assert scores["miou_against"].startswith("real masks of 1 photos held out")
    assert scores["epochs"] != read_json(finished / "segmenter" / "scores.json")["epochs"]
    with pytest.raises(WeaksegError, match="has the mask of no photo held out"):
        start(photos, out, _recipe(segmenter={"validation_masks": str(tmp_path)}))


def _photo(path: Path, height: int, width: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def _predict(model: Path, photos: list[Path], out: Path, **options: bool) -> tuple[int, Lines]:
    lines = Lines()
    return predict.run(model, photos, out, InProcessExecutor(), lines, "cpu", **options), lines


def test_predict_takes_files_and_folders_of_any_size(finished: Path, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    _photo(folder / "a.png", 30, 50)
    _photo(folder / "inner" / "b.jpg", 1, 1)
    (folder / "broken.jpg").write_bytes(b"no photo")
    (folder / "notes.txt").write_text("no photo either")
    single = _photo(tmp_path / "c.webp", 1100, 20)
    written, lines = _predict(finished, [folder, single], tmp_path / "out", tta=True)
    assert written == 3
    assert any("broken.jpg" in line and "can't be read" in line for line in lines.said)
    sizes = {"a": (30, 50), "inner/b": (1, 1), "c": (1100, 20)}
    for name, size in sizes.items():
        assert read_mask(tmp_path / "out" / f"{name}.png").shape == size
    named = (tmp_path / "out" / "classes.txt").read_text()
    assert named == (finished / "segment" / "classes.txt").read_text()
    assert not list((tmp_path / "out").rglob("*.safetensors"))


def test_photos_are_found_through_links_and_each_folder_once(tmp_path: Path) -> None:
    folder, elsewhere = tmp_path / "photos", tmp_path / "elsewhere"
    for path in (folder / "a.png", elsewhere / "b.png", elsewhere / ".c.png"):
        _photo(path, 5, 5)
    (folder / "linked").symlink_to(elsewhere)
    (elsewhere / "back").symlink_to(folder)
    named = predict.name_photos([folder])
    assert named == {"a": folder / "a.png", "linked/b": folder / "linked" / "b.png"}


def test_predict_gives_what_the_steps_gave(finished: Path, photos: Path, tmp_path: Path) -> None:
    held_out = [photos / "JPEGImages" / f"{name}.jpg" for name in ("000002", "000007")]
    file = finished / "segmenter" / "segmenter.safetensors"
    for step, model, tta in (("segment", file, False), ("segment+tta", finished, True)):
        _predict(model, held_out, tmp_path / step, tta=tta)
        for path in (finished / step).iterdir():
            assert (tmp_path / step / path.name).read_bytes() == path.read_bytes()


def test_a_run_without_augmentation_of_its_own_has_the_usual_one(
    finished: Path, tmp_path: Path
) -> None:
    run, network = tmp_path / "run", "segmenter/segmenter.safetensors"
    (run / "segmenter").mkdir(parents=True)
    shutil.copy(finished / network, run / network)
    plain = tiny_recipe(data=HELD_OUT, **LEFT_OUT, **{**SEGMENT, "segment+tta": None})
    (run / "recipe.yaml").write_text(dump_recipe(plain))
    photo = _photo(tmp_path / "a.png", 40, 60)
    for model, out in ((run, "run"), (finished / network, "file"), (finished, "own")):
        _predict(model, [photo], tmp_path / "masks" / out, tta=True, scores=True)
    usual, of_file, own = (
        (tmp_path / "masks" / name / "a.safetensors").read_bytes()
        for name in ("run", "file", "own")
    )
    assert usual == of_file != own


def test_scores_are_the_probabilities_behind_the_mask(finished: Path, tmp_path: Path) -> None:
    photo = _photo(tmp_path / "a.png", 40, 60)
    out = tmp_path / "out"
    _predict(finished, [photo], out, scores=True)
    scores = safetensors.numpy.load_file(out / "a.safetensors")["scores"]
    assert scores.dtype == np.float16
    np.testing.assert_allclose(scores.astype(np.float32).sum(axis=0), 1, atol=0.01)
    mask = read_mask(out / "a.png")
    highest = np.take_along_axis(scores, mask[None].astype(np.int64), axis=0)[0]
    assert (highest == scores.max(axis=0)).all()


CRF = {"unary": "scores", "temperature": 0.5, "scale": 0.5, "kernels": tiny.CRF["kernels"]}


def test_a_crf_between_the_likely_classes_draws_the_masks(
    finished: Path,
    photos: Path,
    start: Start,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("weakseg.methods.crf._SMALL", 1)
    out = Path(shutil.copytree(finished, tmp_path / "out"))
    crf = {"segment+crf": {"kind": "segment", "of": "segmenter", "crf": CRF}}
    recipe = tiny_recipe(data=HELD_OUT, **LEFT_OUT, **SEGMENT, **crf)
    start(photos, out, recipe)
    rows = {row["name"]: row for row in read_json(out / "metrics.json")["stages"]}
    assert rows["segment+crf"]["protocol"] == {"masks": "cam", "crf": True, "ignore": 255}

    held_out = [photos / "JPEGImages" / f"{name}.jpg" for name in ("000002", "000007")]
    _predict(out, held_out, tmp_path / "plain", scores=True)
    _predict(out, held_out, tmp_path / "refined", scores=True, crf=True)
    for photo in held_out:
        scores = safetensors.numpy.load_file(tmp_path / "plain" / f"{photo.stem}.safetensors")
        before = scores["scores"].astype(np.float32)
        likely = [
            label for label in range(len(before)) if label == 0 or before[label].max() >= 0.02
        ]
        pixels = read_photo(photo)
        half = resize(pixels, round(max(pixels.shape[:2]) / 2))
        chances = upsample(before[likely], *half.shape[:2]) ** 2  # of temperature 0.5
        unary = -np.log(chances / chances.sum(axis=0)).astype(np.float32)
        kernels = CRFSettings(**tiny.CRF["kernels"]).scaled(0.5)
        expected = upsample(dense_crf(half, unary, kernels), *pixels.shape[:2])
        found = safetensors.numpy.load_file(tmp_path / "refined" / f"{photo.stem}.safetensors")
        np.testing.assert_allclose(found["scores"][likely], expected, atol=0.02)
        rest = [label for label in range(len(before)) if label not in likely]
        assert not found["scores"][rest].any()
        mask = (out / "segment+crf" / f"{photo.stem}.png").read_bytes()
        assert mask == (tmp_path / "refined" / f"{photo.stem}.png").read_bytes()
        assert np.abs(found["scores"] - before).max() > 0.05


def test_a_run_without_a_crf_of_its_own_has_the_usual_one(finished: Path, tmp_path: Path) -> None:
    photo = _photo(tmp_path / "a.png", 40, 60)
    _predict(finished, [photo], tmp_path / "out", scores=True, crf=True)
    _predict(finished, [photo], tmp_path / "plain", scores=True)
    plain, found = (
        safetensors.numpy.load_file(tmp_path / name / "a.safetensors")["scores"]
        for name in ("plain", "out")
    )
    expected = refine_all(read_photo(photo), plain.astype(np.float32), segment.CRF)
    np.testing.assert_allclose(found, upsample(expected, 40, 60), atol=0.01)


@pytest.mark.parametrize("error", [RuntimeError("no kernel\nat all"), MemoryError("too large")])
def test_a_photo_that_the_network_fails_at_leaves_the_others(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    right = segment.SegmentationModel.probabilities

    def fails_at_wide_photos(
        self: segment.SegmentationModel, photos: list[np.ndarray], views: Views
    ) -> object:
        if photos[0].shape[1] == 50:
            raise error
        return right(self, photos, views)

    monkeypatch.setattr(segment.SegmentationModel, "probabilities", fails_at_wide_photos)
    paths = [_photo(tmp_path / "a.png", 30, 50), _photo(tmp_path / "b.png", 30, 40)]
    written, lines = _predict(finished, paths, tmp_path / "out")
    assert written == 1
    said = " ".join(str(error).split())
    assert f"left out: {tmp_path / 'a.png'}: {said}" in lines.said


def test_a_run_ends_by_the_name_of_a_photo_that_the_network_fails_at(
    finished: Path, photos: Path, start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise MemoryError("too large")

    out = Path(shutil.copytree(finished, tmp_path / "out"))
    (out / "segment" / "000007.png").unlink()
    with monkeypatch.context() as patch:
        patch.setattr(segment.SegmentationModel, "probabilities", fails)
        with pytest.raises(WeaksegError, match=r"^segment: 1 photos get no mask, .*000007.*large"):
            start(photos, out, _recipe())
    start(photos, out, _recipe())
    assert masks(out) == masks(finished)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["missing.jpg"], "There is no .*missing.jpg"),
        (["empty"], "There is no photo"),
        (["x/a.png", "y/a.png"], "would have the same mask"),
        (["out/a.png"], "would be written over a photo"),
        (["broken.jpg"], "None of the 1 photos can be read"),
    ],
)
def test_what_predict_cant_do_is_one_clear_error(
    finished: Path, tmp_path: Path, given: list[str], message: str
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken.jpg").write_bytes(b"no photo")
    for name in ("x", "y", "out"):
        _photo(tmp_path / name / "a.png", 5, 5)
    with pytest.raises(WeaksegError, match=message):
        _predict(finished, [tmp_path / name for name in given], tmp_path / "out")


def test_predict_leaves_a_folder_of_other_classes_alone(finished: Path, tmp_path: Path) -> None:
    photo = _photo(tmp_path / "a.png", 5, 5)
    named = tmp_path / "out" / "classes.txt"
    named.parent.mkdir()
    named.write_text("owl\n")
    with pytest.raises(WeaksegError, match=r"classes\.txt names other classes than those of"):
        _predict(finished, [photo], tmp_path / "out")
    assert named.read_text() == "owl\n"
    named.unlink()
    for _ in range(2):
        _predict(finished, [photo], tmp_path / "out")


def test_a_run_without_a_network_or_a_broken_one_is_one_clear_error(
    finished: Path, tmp_path: Path
) -> None:
    photo = _photo(tmp_path / "a.png", 5, 5)
    with pytest.raises(WeaksegError, match="no segmentation network"):
        _predict(finished / "cam", [photo], tmp_path / "out")
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes((finished / "segmenter" / "segmenter.safetensors").read_bytes()[:-100])
    with pytest.raises(WeaksegError, match="is no segmentation network that can be used") as cut:
        _predict(broken, [photo], tmp_path / "out")
    tensors = safetensors.torch.load_file(finished / "segmenter" / "segmenter.safetensors")
    with safetensors.safe_open(finished / "segmenter" / "segmenter.safetensors", "pt") as file:
        metadata = file.metadata()
    name = next(key for key in tensors if key.endswith("weight"))
    tensors[name] = tensors[name][:1].clone()
    safetensors.torch.save_file(tensors, broken, metadata)
    with pytest.raises(WeaksegError, match=r"can be used: .*size mismatch") as misfit:
        _predict(broken, [photo], tmp_path / "out")
    other = finished / "classify" / "classifier.safetensors"
    with pytest.raises(WeaksegError, match=r"can be used: long_side: Field required\. ") as foreign:
        _predict(other, [photo], tmp_path / "out")
    for caught in (cut, misfit, foreign):
        said = str(caught.value)
        assert said.startswith((str(broken), str(other))) and "\n" not in said and len(said) < 600
        assert "Remove" not in said and "folder " not in said.replace("run's folder", "")
