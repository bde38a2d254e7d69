"""Kept pieces of masks against a flood fill."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from weakseg.refine.components import keep_components

MASKS = arrays(np.uint8, (6, 8), elements=st.sampled_from((0, 0, 1, 1, 2, 254, 255)))


def pieces(mask: np.ndarray) -> list[set[tuple[int, int]]]:
    """Pixels of each connected piece of one class, by sides and corners."""
    left = {(int(r), int(c)) for r, c in np.argwhere((mask != 0) & (mask != 255))}
    found = []
    while left:
        piece, border = set(), [left.pop()]
        while border:
            row, column = border.pop()
            piece.add((row, column))
            near = {(row + r, column + c) for r in (-1, 0, 1) for c in (-1, 0, 1)} & left
            near = {place for place in near if mask[place] == mask[row, column]}
            left -= near
            border += near
        found.append(piece)
    return found


def naive(
    mask: np.ndarray, confident: np.ndarray | None, share: float, either: bool, instead: int
) -> np.ndarray:
    kept = mask.copy()
    for piece in pieces(mask):
        tests = []
        if confident is not None:
            tests.append(any(confident[place] == mask[place] for place in piece))
        if share:
            tests.append(len(piece) >= share * mask.size)
        if tests and not (any(tests) if either else all(tests)):
            for place in piece:
                kept[place] = instead
    return kept


@given(
    MASKS,
    st.none() | MASKS,
    st.sampled_from((0, 1 / 48, 2 / 48, 0.1, 0.3, 1)),
    st.booleans(),
    st.sampled_from((0, 255)),
)
@settings(deadline=None)
def test_agrees_with_a_flood_fill(
    mask: np.ndarray, confident: np.ndarray | None, share: float, either: bool, instead: int
) -> None:
    before = mask.copy()
    found = keep_components(mask, confident, share, either, instead)
    assert found.dtype == np.uint8
    assert np.array_equal(found, naive(mask, confident, share, either, instead))
    assert np.array_equal(mask, before)
    again = keep_components(found, confident, share, either, instead)
    assert np.array_equal(again, found)


def test_corners_connect_and_other_classes_do_not() -> None:
    mask = np.array([[1, 0, 2, 0], [0, 1, 2, 0], [0, 0, 0, 1]], np.uint8)
    confident = np.zeros_like(mask)
    confident[0, 0] = 1
    kept = [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0]]
    assert keep_components(mask, confident).tolist() == kept


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"confident": np.zeros((2, 3), np.uint8)}, r"shape \(2, 3\); expected the mask's"),
        ({"least_share": 1.5}, "least_share is 1.5"),
        ({"least_share": np.nan}, "least_share is nan"),
    ],
)
def test_refuses_what_does_not_fit(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        keep_components(np.zeros((2, 2), np.uint8), **options)
