"""What a step reads of another's maps and masks."""

from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from PIL import Image

from tiny import tiny_recipe
from weakseg import grid
from weakseg.data.dataset import Sample
from weakseg.data.masks import IGNORE, write_mask
from weakseg.errors import WeaksegError
from weakseg.grid import upsample
from weakseg.methods.base import PhotoTask, Step
from weakseg.methods.maps import (
    highest,
    labelled,
    open_class_maps,
    open_maps,
    open_masks,
    open_scores,
    over_background,
)

TASK = PhotoTask(Sample("a", Path("a.png"), ("cat", "dog"), None), (2, 5))
MAPS = np.random.default_rng(0).random((2, 3, 4), np.float32)
ROWS = np.random.default_rng(1).normal(size=(3, 3, 4)).astype(np.float32)


@pytest.fixture
def steps(tmp_path: Path) -> dict[str, Step]:
    """Steps of a recipe that have written their files of one photo."""
    built = {step.name: step for step in tiny_recipe().build(tmp_path)}
    for step in built.values():
        step.folder.mkdir()
    _write(built["localize"], scores=MAPS, confidence=np.array([0.5, 1], np.float32))
    _write(built["svm"], scores=ROWS)
    return built


def _write(step: Step, **tensors: NDArray[np.float32]) -> None:
    safetensors.numpy.save_file(tensors, step.folder / f"{TASK.id}.safetensors")


def test_only_what_is_asked_for_is_read(steps: dict[str, Step]) -> None:
    found = open_maps(steps["localize"])(TASK)  # of a file that has no features
    np.testing.assert_array_equal(found.scores, MAPS)
    assert found.features is None and found.confidence is None
    sure = open_maps(steps["localize"], "confidence")(TASK)
    assert sure.confidence is not None and sure.confidence.tolist() == [0.5, 1]
    with pytest.raises(WeaksegError, match=r"a\.safetensors can't be read: .*features"):
        open_maps(steps["localize"], "features")(TASK)


def test_a_threshold_has_the_maps_that_it_is_put_over(steps: dict[str, Step]) -> None:
    np.testing.assert_array_equal(open_maps(steps["cam"])(TASK).scores, MAPS)
    np.testing.assert_array_equal(open_class_maps(steps["cam"])(TASK).scores, MAPS)


def test_scores_have_the_background_first(steps: dict[str, Step]) -> None:
    over_threshold = open_scores(steps["cam"])(TASK)
    assert over_threshold.dtype == np.float32
    np.testing.assert_array_equal(over_threshold[0], np.full((3, 4), 0.4, np.float32))
    np.testing.assert_array_equal(over_threshold[1:], MAPS)
    np.testing.assert_array_equal(open_scores(steps["svm"])(TASK), ROWS)
    np.testing.assert_array_equal(open_class_maps(steps["svm"])(TASK).scores, over_background(ROWS))


def test_a_masks_scores_are_one_for_its_class_and_alike_where_it_is_uncertain(
    steps: dict[str, Step],
) -> None:
    mask = np.array([[0, 2, 5], [IGNORE, 2, 0]], np.uint8)
    write_mask(steps["seed"].folder / "a.png", mask)
    np.testing.assert_array_equal(open_masks(steps["seed"])(TASK), mask)
    scores = open_scores(steps["seed"])(TASK)
    assert scores.shape == (3, 2, 3) and scores.dtype == np.float32
    for y, x in np.ndindex(mask.shape):
        if mask[y, x] == IGNORE:
            expected = [1 / 3] * 3
        else:
            expected = [float(mask[y, x] == class_id) for class_id in (0, 2, 5)]
        assert scores[:, y, x].tolist() == pytest.approx(expected)


@given(arrays(np.float32, (4, 2, 3), elements=st.floats(-100, 100, width=32)))
def test_maps_over_the_background_are_its_excess_over_their_maximum(
    scores: NDArray[np.float32],
) -> None:
    found = over_background(scores)
    for k, scored in enumerate(scores[1:]):
        above = [[max(scored[y, x] - scores[0, y, x], 0) for x in range(3)] for y in range(2)]
        peak = max(map(max, above))
        expected = np.array(above) / peak if peak > 0 else np.zeros((2, 3))
        np.testing.assert_allclose(found[k], expected, rtol=1e-6, atol=1e-30)
    assert found.dtype == np.float32


def test_over_a_background_without_a_class_there_is_nothing() -> None:
    assert over_background(np.ones((1, 2, 3), np.float32)).shape == (0, 2, 3)


@pytest.mark.parametrize("band", [1, 200, 2**20])
def test_a_mask_has_the_photos_size_and_the_ids_of_its_tags(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, band: int
) -> None:
    monkeypatch.setattr(grid, "_BAND", band)  # values worked on at a time: rows, here
    photo = tmp_path / "a.png"
    Image.new("RGB", (13, 10)).save(photo)
    task = PhotoTask(Sample("a", photo, ("cat", "dog"), None), (2, 5))

    def label(band: NDArray[np.float32]) -> NDArray[np.int16]:
        found = highest(band)
        found[band.max(axis=0) < 0] = -1
        return found

    found = labelled(ROWS, task, label)
    whole = upsample(ROWS, 10, 13)
    assert found.shape == (10, 13) and found.dtype == np.uint8
    for y, x in np.ndindex(found.shape):
        scores = whole[:, y, x].tolist()
        best = max(scores)
        assert found[y, x] == (IGNORE if best < 0 else (0, 2, 5)[scores.index(best)])
    assert {0, 2, 5, IGNORE} == set(np.unique(found))
