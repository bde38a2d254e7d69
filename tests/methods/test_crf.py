"""What the CRF starts from, of maps and of masks."""

import numpy as np
import pytest

from tiny import CRF
from weakseg.methods.crf import Crf, unary_of
from weakseg.refine.crf import unary_from_labels

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
