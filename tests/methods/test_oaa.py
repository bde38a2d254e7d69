"""A classifier's attention that is accumulated while it is trained."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from tiny import EVERY_KIND, Lines, Start, masks, tiny_recipe
from weakseg.data.dataset import load_dataset
from weakseg.errors import WeaksegError
from weakseg.files import read_json
from weakseg.grid import grid_size, upsample
from weakseg.methods import fit
from weakseg.recipe import Recipe
from weakseg.training import oaa


def recipe(**changes: Any) -> Recipe:
    alone = dict.fromkeys(("classify", "localize", "cam+crf", "seed", "svm", "svm+crf"))
    step = {**EVERY_KIND["oaa"], **changes}
    return tiny_recipe(**alone, oaa=step, cam={"of": "oaa"}, data={"every": 2})


@pytest.fixture(scope="module")
def whole(
    photos: Path, start: Start, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Lines]:
    out = tmp_path_factory.mktemp("oaa")
    return out, start(photos, out, recipe())


def test_every_photo_gets_maps_of_its_tags(photos: Path, whole: tuple[Path, Lines]) -> None:
    out, lines = whole
    attention = safetensors.numpy.load_file(out / "oaa" / "accumulated" / "attention.safetensors")
    samples = load_dataset(photos).samples
    assert attention.keys() == {sample.id for sample in samples}
    sizes = read_json(out / "inspect" / "sizes.json")
    for sample in samples:
        file = out / "oaa" / f"{sample.id}.safetensors"
        scores = safetensors.numpy.load_file(file)["scores"]
        assert scores.shape == (len(sample.tags), *grid_size(*sizes[sample.id]))
        expected = upsample(attention[sample.id].astype(np.float32), *scores.shape[1:])
        for row, one in zip(scores, expected, strict=True):
            np.testing.assert_allclose(row, one / max(one.max(), 1e-9), atol=1e-6)
    assert max(one.max() for one in attention.values() if one.size) == 255
    figures = read_json(out / "oaa" / "scores.json")
    assert figures["photos"] == len(samples)
    assert [row["epoch"] for row in figures["epochs"]] == [1, 2, 3]
    steps = -(-len(samples) // 2) * 3  # gradients of two photos each
    assert f"oaa: 0 of {steps} done before" in lines.said
    assert not [*(out / "oaa").rglob("*.ckpt")]


def test_a_training_that_is_cut_off_ends_with_the_same_maps(
    photos: Path,
    start: Start,
    whole: tuple[Path, Lines],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    visit = oaa.AttentionTraining._visit

    def cut(self: oaa.AttentionTraining, *args: Any) -> None:
        if self.current_epoch == 2 and self.attention:
            raise KeyboardInterrupt
        visit(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(oaa.AttentionTraining, "_visit", cut)
        with pytest.raises(KeyboardInterrupt):
            start(photos, tmp_path, recipe())
    kept = fit._read_checkpoint(tmp_path / "oaa" / "last.ckpt")["attention"]
    assert kept.keys() == {sample.id for sample in load_dataset(photos).samples}
    start(photos, tmp_path, recipe())
    assert masks(tmp_path) == masks(whole[0])


def test_a_map_that_is_missing_is_made_again_without_a_training(
    photos: Path, start: Start, whole: tuple[Path, Lines], monkeypatch: pytest.MonkeyPatch
) -> None:
    out, _ = whole
    before = masks(out)
    first = load_dataset(photos).samples[0]
    (out / "oaa" / f"{first.id}.safetensors").unlink()
    monkeypatch.setattr(oaa, "AttentionTraining", None)
    start(photos, out, recipe())
    assert masks(out) == before


class TooLargePhotos(oaa.WholePhotos):
    def __getitem__(self, index: int) -> oaa.Visit:
        raise MemoryError


def test_want_of_memory_names_what_lowers_it(
    photos: Path, start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(oaa, "WholePhotos", TooLargePhotos)
    message = r"oaa runs out of memory: lower oaa\.long_side \(now 64\)\."
    with pytest.raises(WeaksegError, match=message):
        start(photos, tmp_path, recipe())


def test_attention_accumulates_over_the_epochs(
    photos: Path, start: Start, whole: tuple[Path, Lines], tmp_path: Path
) -> None:
    """Where a training of an epoch less ends is no more than where the whole one ends."""
    seen: list[dict[str, np.ndarray]] = []
    save = oaa.AttentionTraining.on_save_checkpoint

    def look(self: oaa.AttentionTraining, checkpoint: dict[str, Any]) -> None:
        save(self, checkpoint)
        seen.append({photo: maps.numpy().copy() for photo, maps in self.attention.items()})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(oaa.AttentionTraining, "on_save_checkpoint", look)
        start(photos, tmp_path, recipe())
    first, second, third = seen
    assert not first
    assert all((third[photo] >= second[photo]).all() for photo in third)
    assert any((third[photo] > second[photo]).any() for photo in third)
