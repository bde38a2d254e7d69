import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from weakseg.localize.seeds import UNCERTAIN, mask_from_cam, seed_from_cam

cams = arrays(
    np.float32,
    st.tuples(st.integers(1, 4), st.integers(1, 5), st.integers(1, 5)),
    elements=st.integers(0, 20).map(lambda twentieths: np.float32(twentieths / 20)),
)


def naive_seed(cam: np.ndarray, foreground: float, background: float) -> np.ndarray:
    """Eq. 3, pixel by pixel."""
    _, height, width = cam.shape
    seed = np.full((height, width), UNCERTAIN)
    for y in range(height):
        for x in range(width):
            best = max(range(len(cam)), key=lambda k: cam[k, y, x])
            if cam[best, y, x] > np.float32(foreground):
                seed[y, x] = best + 1
            elif cam[best, y, x] < np.float32(background):
                seed[y, x] = 0
    return seed


@given(cams, st.integers(0, 20), st.integers(0, 20))
def test_seed_is_equation_3(cam: np.ndarray, a: int, b: int) -> None:
    foreground, background = max(a, b) / 20, min(a, b) / 20
    seed = seed_from_cam(cam, foreground, background)
    assert seed.dtype == np.int16
    np.testing.assert_array_equal(seed, naive_seed(cam, foreground, background))


@given(cams, st.integers(0, 20))
def test_mask_is_argmax_against_a_constant_background(cam: np.ndarray, twentieths: int) -> None:
    threshold = twentieths / 20
    background = np.full((1, *cam.shape[1:]), threshold, np.float32)
    mask = mask_from_cam(cam, threshold)
    assert mask.dtype == np.int16
    np.testing.assert_array_equal(mask, np.concatenate([background, cam]).argmax(axis=0))


@given(st.data())
def test_labels_permute_with_the_rows(data: st.DataObject) -> None:
    classes = data.draw(st.integers(1, 4))
    distinct = st.permutations(range(1, 41)).map(lambda values: np.array(values, np.float32) / 40)
    cam = data.draw(distinct)[: classes * 9].reshape(classes, 3, 3)
    order = np.array(data.draw(st.permutations(range(classes))))
    named = np.concatenate([[0], order + 1])
    for label in (lambda cam: seed_from_cam(cam, 0.6, 0.3), lambda cam: mask_from_cam(cam, 0.5)):
        permuted = label(cam[order])
        back = np.where(permuted > 0, named[permuted], permuted)
        np.testing.assert_array_equal(back, label(cam))


def test_values_equal_to_a_threshold_are_uncertain() -> None:
    cam = np.array([[[0.0, 0.05, 0.1, 0.2, 0.3]]], np.float32)
    for kind in (float, np.float32, np.float64):
        seed = seed_from_cam(cam, kind(0.2), kind(0.05))  # type: ignore[arg-type]
        np.testing.assert_array_equal(seed, [[0, -1, -1, -1, 1]])
    np.testing.assert_array_equal(mask_from_cam(cam, np.float64(0.2)), [[0, 0, 0, 0, 1]])


def test_no_tag_is_all_background() -> None:
    cam = np.zeros((0, 3, 4), np.float32)
    np.testing.assert_array_equal(seed_from_cam(cam, 0.2, 0.05), np.zeros((3, 4)))
    np.testing.assert_array_equal(mask_from_cam(cam, 0.2), np.zeros((3, 4)))


def test_input_is_left_alone_and_half_precision_is_taken() -> None:
    cam = np.array([[[0.0, 0.1, 0.9]]], np.float16)
    before = cam.copy()
    np.testing.assert_array_equal(seed_from_cam(cam, 0.2, 0.05), [[0, -1, 1]])
    np.testing.assert_array_equal(cam, before)


@pytest.mark.parametrize(
    ("foreground", "background", "message"),
    [
        (1.5, 0.05, r"foreground_threshold is 1.5; it must lie in \[0, 1\]"),
        (0.2, 0.3, r"background_threshold is 0.3; .*\[0, 0.2\]"),
        (0.2, -0.1, "background_threshold is -0.1"),
        (float("nan"), 0.05, "foreground_threshold is nan"),
        (0.2, float("nan"), "background_threshold is nan"),
    ],
)
def test_thresholds_out_of_range(foreground: float, background: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        seed_from_cam(np.zeros((1, 2, 2), np.float32), foreground, background)


def test_mask_threshold_out_of_range() -> None:
    with pytest.raises(ValueError, match=r"threshold is 2; it must lie in \[0, 1\]"):
        mask_from_cam(np.zeros((1, 2, 2), np.float32), 2)


@pytest.mark.parametrize("value", [np.nan, np.inf, -0.1, 7.0])
def test_values_that_no_cam_has(value: float) -> None:
    cam = np.full((1, 2, 2), 0.5, np.float32)
    cam[0, 1, 0] = value
    with pytest.raises(ValueError, match=r"finite and in \[0, 1\]"):
        seed_from_cam(cam, 0.2, 0.05)


def test_rounding_over_one_is_taken() -> None:
    assert mask_from_cam(np.full((1, 1, 1), 1.0000002, np.float32), 0.5).item() == 1


def test_shape_of_no_cam() -> None:
    with pytest.raises(ValueError, match=r"shape \(4, 4\); it must be \(K, H, W\)"):
        mask_from_cam(np.zeros((4, 4), np.float32), 0.2)
