"""Strokes change what belongs with what they lie on, and nothing else."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from weakseg.refine.settings import CRFSettings
from weakseg.refine.strokes import Mender, Stroke, drawn

HEIGHT, WIDTH = 64, 96


@pytest.fixture
def things() -> tuple[NDArray[np.uint8], NDArray[np.int16], NDArray[np.float32]]:
    """A photo of two things on a ground, a mask that misses the right one, and features."""
    photo = np.full((HEIGHT, WIDTH, 3), 90, np.uint8)
    labels = np.zeros((HEIGHT, WIDTH), np.int16)
    truth = labels.copy()
    truth[16:48, 8:40], truth[16:48, 56:88] = 1, 2
    photo[truth == 1], photo[truth == 2] = (220, 30, 30), (30, 30, 220)
    labels[truth == 1] = 1
    features = (truth[::4, ::4] == np.arange(3)[:, None, None]).astype(np.float32)
    return photo, labels, features


def test_a_stroke_covers_the_pixels_within_its_brush() -> None:
    stroke = Stroke(1, ((10, 20), (30, 20), (30, 50)), 3)
    found = drawn(stroke, HEIGHT, WIDTH)
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    across = np.hypot(np.maximum(np.maximum(10 - columns, columns - 30), 0), rows - 20)
    down = np.hypot(columns - 30, np.maximum(np.maximum(20 - rows, rows - 50), 0))
    apart = np.minimum(across, down)
    assert found[apart <= 2].all()
    assert not found[apart > 4].any()


def test_a_dot_is_a_stroke_and_one_beside_the_photo_is_none() -> None:
    assert drawn(Stroke(1, ((5, 5),), 2), HEIGHT, WIDTH).any()
    assert not drawn(Stroke(1, ((-50, 5),), 2), HEIGHT, WIDTH).any()


@pytest.mark.parametrize("crf", [None, CRFSettings(1, 1, 10, 5, 3, 2)])
def test_the_thing_under_a_stroke_changes_and_the_other_stays(
    things: tuple[NDArray[np.uint8], NDArray[np.int16], NDArray[np.float32]],
    crf: CRFSettings | None,
) -> None:
    photo, labels, features = things
    mender = Mender(photo, labels, [features])
    mended = mender.mend([Stroke(2, ((64, 32), (80, 32)), 3)], crf)
    assert (mended[20:44, 60:84] == 2).all()
    assert (mended[16:48, 8:40] == 1).all()
    assert (mended[:12] == 0).all()
    assert (labels == mender.mend([])).all()


def test_scores_tell_where_a_class_may_be(
    things: tuple[NDArray[np.uint8], NDArray[np.int16], NDArray[np.float32]],
) -> None:
    photo, labels, features = things
    scores = {name: 4 * features[name] for name in range(3)}
    mended = Mender(photo, labels, [], scores).mend([Stroke(2, ((64, 32), (80, 32)), 3)])
    assert (mended[20:44, 60:84] == 2).mean() > 0.9
    assert (mended[:12] == 0).all()


def test_strokes_stand_and_the_later_over_the_earlier(
    things: tuple[NDArray[np.uint8], NDArray[np.int16], NDArray[np.float32]],
) -> None:
    photo, labels, features = things
    first, second = Stroke(1, ((10, 10), (60, 10)), 4), Stroke(0, ((40, 4), (40, 40)), 4)
    mended = Mender(photo, labels, [features]).mend([first, second])
    assert (mended[drawn(second, HEIGHT, WIDTH)] == 0).all()
    assert (mended[drawn(first, HEIGHT, WIDTH) & ~drawn(second, HEIGHT, WIDTH)] == 1).all()


def test_taking_a_stroke_back_is_as_if_it_had_not_been(
    things: tuple[NDArray[np.uint8], NDArray[np.int16], NDArray[np.float32]],
) -> None:
    photo, labels, features = things
    mender, anew = Mender(photo, labels, [features]), Mender(photo, labels, [features])
    first, second = Stroke(2, ((64, 32),), 3), Stroke(0, ((20, 32),), 3)
    before = mender.mend([first])
    mender.mend([first, second])
    assert (mender.mend([first]) == before).all()
    assert (anew.mend([first]) == before).all()


PLACES = st.tuples(st.floats(-99, 199), st.floats(-99, 199))
LINES = st.lists(PLACES, min_size=1, max_size=4).map(tuple)
STROKES = st.builds(Stroke, st.integers(0, 3), LINES, st.floats(0.5, 30))


@settings(max_examples=30, deadline=None)
@given(st.lists(STROKES, max_size=4), st.integers(1, 40), st.integers(1, 40))
def test_whatever_is_drawn_gives_labels_of_the_strokes_or_the_mask(
    strokes: list[Stroke], height: int, width: int
) -> None:
    rng = np.random.default_rng(0)
    photo = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    labels = rng.integers(-1, 2, (height, width))
    mended = Mender(photo, labels, [rng.random((5, 3, 4), np.float32)]).mend(strokes)
    assert mended.shape == labels.shape
    assert set(np.unique(mended)) <= {*np.unique(labels), *(stroke.label for stroke in strokes)}


def test_a_mask_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match="size"):
        Mender(np.zeros((4, 5, 3), np.uint8), np.zeros((5, 4), np.int16))
