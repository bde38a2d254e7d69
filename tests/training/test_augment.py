from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from weakseg.training.augment import AUGMENTATIONS, Augmentation, flip, median_blur, strong

FILL = (124.0, 116.0, 104.0)


class Certain(np.random.Generator):
    """A generator whose every chance comes up, or none; what is drawn is drawn."""

    def __init__(self, chance: bool, seed: int = 0) -> None:
        super().__init__(np.random.PCG64(seed))
        self._chance = chance

    def random(self, *_: Any, **__: Any) -> Any:
        return 0.0 if self._chance else 0.999


@pytest.fixture
def photo() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (41, 60, 3), dtype=np.uint8)


@pytest.mark.parametrize("augment", AUGMENTATIONS.values())
@pytest.mark.parametrize("size", [(1, 1), (1, 30), (40, 60)])
def test_shapes_types_and_draws(augment: Augmentation, size: tuple[int, int]) -> None:
    rng = np.random.default_rng(2)
    photo = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
    mask = rng.integers(0, 3, size, dtype=np.uint8)
    before = photo.copy(), mask.copy()
    seen = set()
    for seed in range(20):
        new_photo, new_mask = augment(photo, np.random.default_rng(seed), FILL, mask)
        again, none = augment(photo, np.random.default_rng(seed), FILL)
        assert new_photo.shape == photo.shape and new_photo.dtype == np.uint8
        assert new_mask is not None and new_mask.shape == size and new_mask.dtype == np.uint8
        assert set(np.unique(new_mask)) <= {*np.unique(mask), 255}
        assert none is None
        np.testing.assert_array_equal(again, new_photo)
        seen.add(new_photo.tobytes())
    assert len(seen) > 1 or size == (1, 1)
    np.testing.assert_array_equal(photo, before[0])
    np.testing.assert_array_equal(mask, before[1])


@pytest.mark.parametrize("augment", AUGMENTATIONS.values())
def test_without_luck_nothing_changes(augment: Augmentation, photo: np.ndarray) -> None:
    np.testing.assert_array_equal(augment(photo, Certain(False), FILL)[0], photo)


def test_flip_is_the_mirror_image(photo: np.ndarray) -> None:
    mirrored, mask = flip(photo, Certain(True), FILL, photo[..., 0])
    np.testing.assert_array_equal(mirrored, photo[:, ::-1])
    np.testing.assert_array_equal(mask, photo[:, ::-1, 0])


def test_the_mask_moves_with_the_photo() -> None:
    mask = np.zeros((80, 100), np.uint8)
    mask[20:50, 15:40] = 1
    photo = np.where(mask[..., None] == 1, 220, 30).astype(np.uint8).repeat(3, axis=2)
    moved = 0
    for seed in range(40):
        new_photo, new_mask = strong(photo, np.random.default_rng(seed), (30.0,) * 3, mask)
        assert new_mask is not None
        bright = new_photo.mean(axis=2) > 125
        both, either = (bright & (new_mask == 1)).sum(), (bright | (new_mask == 1)).sum()
        assert both / either > 0.9
        moved += (new_mask == 255).any()
    assert 10 <= moved <= 35


def test_nothing_has_the_fill_and_is_ignored() -> None:
    photo = np.full((64, 64, 3), 255, np.uint8)
    for seed in range(20):
        rng = np.random.default_rng(seed)
        moved, mask = strong(photo, _Only(rng, 1), (10.0, 20.4, 30.0), np.ones((64, 64), np.uint8))
        assert mask is not None
        if (mask == 255).any():
            values, counts = np.unique(moved[mask == 255], axis=0, return_counts=True)
            assert values[counts.argmax()].tolist() == [10, 20, 30]
            return
    pytest.fail("nothing was ever left empty")


class _Only(np.random.Generator):
    """A generator of which only one chance, by number, comes up."""

    def __init__(self, rng: np.random.Generator, number: int) -> None:
        super().__init__(rng.bit_generator)
        self._chances = iter(i == number for i in range(6))

    def random(self, *_: Any, **__: Any) -> Any:
        return 0.0 if next(self._chances) else 0.999


@pytest.mark.parametrize(("number", "limit"), [(2, 7.2 * 5), (3, 255 * 0.45), (5, 20.5)])
def test_colours_change_within_their_limits(photo: np.ndarray, number: int, limit: float) -> None:
    for seed in range(10):
        changed, _ = strong(photo, _Only(np.random.default_rng(seed), number), FILL)
        difference = np.abs(changed.astype(int) - photo)
        assert 0 < difference.max() <= limit


def test_the_rgb_shift_is_one_for_each_colour() -> None:
    grey = np.full((9, 9, 3), 128, np.uint8)
    changed, _ = strong(grey, _Only(np.random.default_rng(0), 5), FILL)
    assert (changed == changed[0, 0]).all()
    assert len(set(changed[0, 0].tolist())) == 3


@settings(max_examples=30, deadline=None)
@given(st.tuples(st.integers(1, 6), st.integers(1, 6)).flatmap(lambda s: arrays(np.uint8, (*s, 3))))
def test_median_blur_is_the_naive_one(photo: np.ndarray) -> None:
    height, width = photo.shape[:2]
    expected = np.empty_like(photo)
    for y in range(height):
        for x in range(width):
            rows = np.clip([y - 1, y, y + 1], 0, height - 1)
            columns = np.clip([x - 1, x, x + 1], 0, width - 1)
            window = photo[np.ix_(rows, columns)].reshape(9, 3)
            expected[y, x] = np.sort(window, axis=0)[4]
    np.testing.assert_array_equal(median_blur(photo), expected)
