"""Pixel-adaptive refinement as a step: of maps, of masks, and what goes on with what it gives."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from tiny import CRF, Start
from weakseg.data.dataset import load_dataset
from weakseg.data.images import read_photo, shrink
from weakseg.data.masks import IGNORE, read_mask, write_mask
from weakseg.errors import WeaksegError
from weakseg.methods.maps import against_background
from weakseg.recipe import Recipe, check_recipe
from weakseg.refine.par import PARSettings, refine_with_par


def recipe(folder: Path, holds: str, long_side: int = 1024, **steps: dict[str, Any]) -> Recipe:
    seed = {"given": {"kind": "folder", "path": str(folder), "holds": holds}}
    data = {"split": "all", "every": 3, "long_side": long_side}
    values = {"data": data, "report": {"panels": 1}, "steps": {**seed, **steps}}
    return check_recipe(values, "par")


@pytest.fixture(scope="module")
def scribbles(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """True masks of which but every seventh row is unknown."""
    folder = tmp_path_factory.mktemp("scribbles")
    for sample in load_dataset(photos).samples:
        assert sample.mask
        mask = np.full_like(sample.mask.read(), IGNORE)
        mask[::7] = sample.mask.read()[::7]
        write_mask(folder / f"{sample.id}.png", mask)
    return folder


def test_masks_become_shares_and_their_unknown_pixels_a_class(
    photos: Path, start: Start, tmp_path: Path, scribbles: Path
) -> None:
    start(photos, tmp_path, recipe(scribbles, "masks", par={"kind": "par", "of": "given"}))
    right = []
    for sample in load_dataset(photos).samples[::3]:
        assert sample.mask
        scores = safetensors.numpy.load_file(tmp_path / "par" / f"{sample.id}.safetensors")[
            "scores"
        ]
        size = [round(side / 2) for side in sample.mask.read().shape]
        assert scores.shape == (len(sample.tags) + 1, *size) and scores.dtype == np.float32
        np.testing.assert_allclose(scores.sum(axis=0), 1, atol=1e-5)
        found = read_mask(tmp_path / "par" / f"{sample.id}.png")
        right.append(np.mean(found == sample.mask.read()))
    assert np.mean(right) > 0.9  # of a seventh that was known


def test_scores_go_in_as_they_are_and_on_to_other_steps(
    photos: Path, start: Start, tmp_path: Path
) -> None:
    given, out = tmp_path / "given", tmp_path / "out"
    given.mkdir()
    samples = load_dataset(photos).samples
    for seed, sample in enumerate(samples):
        maps = np.random.default_rng(seed).random((len(sample.tags), 9, 7)).astype(np.float32)
        np.savez(given / f"{sample.id}.npz", maps)
    steps: dict[str, dict[str, Any]] = {
        "mask": {"kind": "threshold", "of": "given", "background": 0.4},
        "par": {"kind": "par", "of": "mask", "iterations": 3, "scale": 0.25},
        "crf": {"kind": "crf", "of": "par", **CRF},
        "again": {"kind": "par", "of": "par", "dilations": [1, 5]},
    }
    start(photos, out, recipe(given, "maps", long_side=100, **steps))
    sample = samples[3]
    photo = shrink(read_photo(sample.image), 100)
    maps = against_background(np.load(given / f"{sample.id}.npz")["arr_0"], 0.4)
    expected = refine_with_par(photo, maps, PARSettings(iterations=3, scale=0.25))
    assert np.array_equal(scores_of(out / "par", sample.id), expected)
    expected = refine_with_par(photo, expected, PARSettings(dilations=(1, 5)))
    assert np.array_equal(scores_of(out / "again", sample.id), expected)
    assert read_mask(out / "crf" / f"{sample.id}.png").shape == read_photo(sample.image).shape[:2]


def scores_of(folder: Path, photo: str) -> np.ndarray:
    return safetensors.numpy.load_file(folder / f"{photo}.safetensors")["scores"]


def test_maps_without_a_background_are_refused(tmp_path: Path) -> None:
    with pytest.raises(WeaksegError, match="kind par takes masks, and given gives maps"):
        recipe(tmp_path, "maps", par={"kind": "par", "of": "given"})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scale": 0}, r"par\.scale: .* given 0"),
        ({"dilations": [2, 2]}, "expected different integers"),
        ({"dilation": [2]}, "did you mean dilations"),
    ],
)
def test_numbers_out_of_range(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(WeaksegError, match=message):
        recipe(tmp_path, "masks", par={"kind": "par", "of": "given", **change})
