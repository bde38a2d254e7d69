"""Outlines are of the very pixels that they were drawn around."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.ndimage import label

from weakseg.data.contours import polygons
from weakseg.data.outlines import paint, region

REGIONS = arrays(bool, st.tuples(st.integers(1, 12), st.integers(1, 12)))


def painted(outlines: list[list[tuple[int, int]]], height: int, width: int) -> np.ndarray:
    flat = [[value for point in outline for value in point] for outline in outlines]
    return paint([(1, region(flat, height, width))], height, width).astype(bool)


@given(REGIONS)
def test_polygons_hold_their_pieces_and_nothing_else(mask: np.ndarray) -> None:
    found = polygons(mask)
    assert len(found) == label(mask)[1]
    assert np.array_equal(painted(found, *mask.shape), mask)
    for number, outline in enumerate(found, start=1):
        assert np.array_equal(painted([outline], *mask.shape), label(mask)[0] == number)


def test_a_rectangle_has_four_corners_and_a_ring_a_seam() -> None:
    mask = np.zeros((5, 6), bool)
    mask[1:4, 1:5] = True
    assert sorted(polygons(mask)[0]) == [(1, 1), (1, 4), (5, 1), (5, 4)]
    mask[2, 2:4] = False
    (ring,) = polygons(mask)
    assert ring.count((1, 2)) == 2  # the seam's end
    assert polygons(np.zeros((3, 3), bool)) == []
