"""What the CRF starts from, of maps and of masks."""

import numpy as np
import pytest

from tiny import CRF
from weakseg.data.images import resize
from weakseg.grid import upsample
from weakseg.methods.crf import Crf, refine, unary_of
from weakseg.refine.crf import dense_crf, unary_from_labels

LABELS = Crf.model_validate(CRF)


def test_a_class_that_equals_the_background_loses_to_it() -> None:
    scores = np.full((2, 1, 3), 0.4, np.float32)
    scores[1] = [[0.4, 0.3, 0.5]]
    assert np.array_equal(unary_of(scores, LABELS), unary_from_labels(np.array([[0, 0, 1]]), 2))


@pytest.mark.parametrize("unary", ["labels", "scores"])
def test_what_a_mask_does_not_know_speaks_for_no_label(unary: str) -> None:
    scores = np.array([[[1, 0, 1 / 3]], [[0, 1, 1 / 3]], [[0, 0, 1 / 3]]], np.float32)
    found = unary_of(scores, LABELS.model_copy(update={"unary": unary}), of_masks=True)
    assert found.argmin(axis=0)[0, :2].tolist() == [0, 1]
    np.testing.assert_allclose(found[:, 0, 2], np.log(3), rtol=1e-5)


@pytest.mark.parametrize(
    ("long_side", "worked"), [(600, 300), (500, 250), (400, 250), (250, 250), (100, 100)]
)
def test_a_share_of_the_size_leaves_photos_that_are_small(long_side: int, worked: int) -> None:
    rng = np.random.default_rng(0)
    photo = rng.integers(0, 256, (20, long_side, 3), np.uint8)
    scores = rng.standard_normal((3, 2, long_side // 10)).astype(np.float32)
    settings = LABELS.model_copy(update={"unary": "scores", "scale": 0.5})
    found = refine(photo, scores, settings)

    small = resize(photo, worked) if worked < long_side else photo
    unary = unary_of(upsample(scores, *small.shape[:2]), settings)
    expected = dense_crf(small, unary, settings.kernels.scaled(worked / long_side))
    np.testing.assert_allclose(found, expected, atol=1e-6)
