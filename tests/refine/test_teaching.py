"""Lessons are sums, their head the least squares', and masks follow where it has changed."""

import numpy as np
import pytest
from numpy.typing import NDArray

from weakseg.data.masks import IGNORE
from weakseg.refine.teaching import background_trust, cells_of, follow, lesson_of


def photo(seed: int) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Cells of a photo of 64 by 96 pixels, and its mask: what the first feature says."""
    rng = np.random.default_rng(seed)
    inside = rng.random((1, 4, 6)) < 0.5
    noise = rng.normal(0, 0.1, (2, 4, 6))
    levels = [np.concatenate([inside + noise[:1], noise[1:]]).astype(np.float32)]
    return cells_of(levels, 64, 96), inside[0].repeat(16, 0).repeat(16, 1).astype(np.uint8)


def test_cells_are_means_of_finer_maps_and_have_a_one_behind_them() -> None:
    rng = np.random.default_rng(0)
    fine, coarse = rng.random((2, 8, 12), np.float32), np.ones((1, 2, 3), np.float32)
    cells = cells_of([fine, coarse], 64, 96)
    assert cells.shape == (24, 4)
    assert (cells[:, 2:] == 1).all()
    means = fine.reshape(2, 4, 2, 6, 2).mean(axis=(2, 4)).reshape(2, -1).T
    assert np.allclose(cells[:, :2], means)


def test_a_lesson_is_that_of_least_squares() -> None:
    cells, mask = photo(0)
    head = lesson_of(cells, mask, 1).learned()
    shares = np.stack([1.0 - mask[8::16, 8::16].ravel(), mask[8::16, 8::16].ravel()], axis=1)
    expected = np.linalg.lstsq(cells.astype(float), shares, rcond=None)[0]
    assert np.allclose(head, expected, atol=0.02)


def test_lessons_add_up_and_are_weighed() -> None:
    (one, mask), (other, second) = photo(0), photo(1)
    both = lesson_of(one, mask, 1) + lesson_of(other, second, 1)
    whole = lesson_of(np.concatenate([one, other]), np.concatenate([mask, second]), 1)
    assert np.allclose(both.gram, whole.gram)
    assert np.allclose(both.moments, whole.moments)
    assert np.allclose((lesson_of(one, mask, 1) * 3).gram, 3 * lesson_of(one, mask, 1).gram)


def test_what_is_uncertain_teaches_nothing() -> None:
    cells, mask = photo(0)
    nothing = lesson_of(cells, np.full_like(mask, IGNORE), 1)
    assert not nothing.gram.any()
    assert not nothing.moments.any()


def test_masks_that_are_all_wrong_follow_some_that_are_right() -> None:
    shown = [photo(seed) for seed in range(8)]
    wrong = [lesson_of(cells, np.ones_like(mask), 1) for cells, mask in shown]
    right = [lesson_of(cells, mask, 1) * 5 for cells, mask in shown[:3]] + wrong[3:]
    cells, mask = shown[-1]
    start = np.ones_like(mask)
    before, after = (sum(of[1:], of[0]).learned() for of in (wrong, right))
    assert (follow(cells, before, before, start, [1]) == start).all()
    found = follow(cells, before, after, start, [1])
    middles = np.s_[8::16, 8::16]
    assert (found[middles] == mask[middles]).mean() > 0.9
    start[:8] = IGNORE
    assert (follow(cells, before, after, start, [1])[:8] == IGNORE).all()


def test_masks_that_lack_a_tag_follow_those_that_show_it() -> None:
    shown = [photo(seed) for seed in range(20)]
    empty = np.zeros_like(shown[0][1])
    trust = background_trust(empty, [1])
    assert trust < 0.1
    found = {}
    for background in (trust, 1.0):
        made = [lesson_of(cells, empty, 1, background) for cells, _ in shown]
        right = [lesson_of(cells, mask, 1) * 5 for cells, mask in shown[:2]] + made[2:]
        before, after = (sum(of[1:], of[0]).learned() for of in (made, right))
        cells, mask = shown[-1]
        followed = follow(cells, before, after, empty, [1], background)
        found[background] = (followed[8::16, 8::16] == mask[8::16, 8::16]).mean()
    assert found[trust] > 0.9 > found[1.0]


def test_background_counts_where_a_mask_has_all_its_tags() -> None:
    mask = np.zeros((40, 50), np.uint8)
    assert background_trust(mask, []) == 1
    mask[:1, :4] = 3
    assert background_trust(mask, [3]) == 1
    assert background_trust(mask, [3, 2]) < 1
    mask[:1, 1:4] = 0
    assert background_trust(mask, [3]) < 1


def test_no_photo_gets_a_class_that_it_has_no_tag_of() -> None:
    cells, mask = photo(2)
    before = np.zeros((cells.shape[1], 3), np.float32)
    after = before.copy()
    after[-1, 2] = 9
    assert (follow(cells, before, after, mask, [1]) == mask).all()


@pytest.mark.parametrize(("height", "width"), [(1, 1), (17, 16), (15, 33)])
def test_photos_of_any_size_have_cells(height: int, width: int) -> None:
    cells = cells_of([np.ones((3, 2, 2), np.float32)], height, width)
    mask = np.zeros((height, width), np.uint8)
    assert len(cells) == -(-height // 16) * -(-width // 16)
    assert lesson_of(cells, mask, 1).moments[-1, 0] == len(cells)
