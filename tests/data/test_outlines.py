import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from weakseg.data.outlines import bounds, paint, pixels, region, run_lengths, runs_of

REGIONS = npst.arrays(bool, npst.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=9))


def painted(segmentation: object, height: int, width: int) -> np.ndarray:
    return paint([(1, region(segmentation, height, width))], height, width).astype(bool)


def counts_of(mask: np.ndarray) -> list[int]:
    """Run lengths down the columns, from the definition."""
    counts, value = [0], False
    for pixel in mask.T.ravel().tolist():
        if pixel != value:
            counts.append(0)
            value = pixel
        counts[-1] += 1
    return counts


def compressed(counts: list[int]) -> str:
    """COCO's text: differences from the fourth on, base 32 from the lowest digit, signed."""
    text = ""
    for index, count in enumerate(counts):
        value = count - (counts[index - 2] if index > 2 else 0)
        while True:
            digit, value = value & 31, value >> 5
            last = value == (-1 if digit & 16 else 0)
            text += chr(48 + digit + (0 if last else 32))
            if last:
                break
    return text


@given(REGIONS)
def test_run_lengths_in_numbers_and_in_text(mask: np.ndarray) -> None:
    counts = counts_of(mask)
    for written in (counts, compressed(counts)):
        segmentation = {"size": list(mask.shape), "counts": written}
        np.testing.assert_array_equal(painted(segmentation, *mask.shape), mask)
        assert pixels(region(segmentation, *mask.shape)) == mask.sum()


@pytest.mark.parametrize(
    ("polygons", "height", "width", "expected"),
    [
        ([[2, 1, 9, 1, 9, 6, 2, 6]], 8, 12, "a05300000000000g0"),
        ([[0.5, 0.5, 11.2, 3.3, 4.7, 7.9]], 8, 12, "9172N2O0O0000O2N100O6"),
        ([[-3, -2, 20, -2, 20, 15, -3, 15]], 8, 12, "0P3"),
        ([[1, 1, 10, 7, 10, 1, 1, 7]], 8, 12, "963N2N1080H0O2N2>"),
        (
            [[1.3, 6.2, 5.5, 0.4, 6.1, 6.9, 10.8, 1.2, 11.9, 7.7]],
            8,
            12,
            "e0153N1N2=KG1O1N33L",
        ),
        ([[0, 0, 4, 0, 4, 4, 0, 4], [2, 2, 10, 2, 10, 7, 2, 7]], 8, 12, "044003M02N0000000000>"),
        ([[3, 3, 3, 3, 3, 3]], 8, 12, "P3"),
        ([[2.49, 2.5, 2.51, 6.5, 7.5, 6.5, 7.5, 2.5]], 9, 10, "e0183M0000000?"),
    ],
)
def test_polygons_have_the_pixels_of_pycocotools(
    polygons: list[list[float]], height: int, width: int, expected: str
) -> None:
    """What `merge(frPyObjects(polygons, height, width))` of pycocotools 2.0.11 gives."""
    whole = {"size": [height, width], "counts": expected}
    np.testing.assert_array_equal(painted(polygons, height, width), painted(whole, height, width))


CORNERS = st.integers(-3, 12)


@given(st.lists(st.tuples(CORNERS, CORNERS), min_size=3, max_size=7))
def test_a_pixel_is_inside_where_a_ray_crosses_an_odd_number_of_sides(
    corners: list[tuple[int, int]],
) -> None:
    """Away from the outline, where the finer grid rounds nothing."""
    mask = painted([[float(value) for corner in corners for value in corner]], 9, 10)
    sides = list(zip(corners, [*corners[1:], corners[0]], strict=True))
    for row, column in np.ndindex(mask.shape):
        x, y = column + 0.5, row + 0.5
        crossings = [
            y0 + (x - x0) * (y1 - y0) / (x1 - x0)
            for (x0, y0), (x1, y1) in sides
            if (x0 > x) != (x1 > x)
        ]
        if all(abs(crossing - y) > 0.5 for crossing in crossings):
            assert mask[row, column] == sum(crossing < y for crossing in crossings) % 2


def test_a_polygon_need_not_be_in_a_list() -> None:
    flat = [1.0, 1.0, 3.0, 1.0, 3.0, 3.0, 1.0, 3.0]
    np.testing.assert_array_equal(painted(flat, 4, 4), painted([flat], 4, 4))
    assert painted(flat, 4, 4).sum() == 4


@pytest.mark.parametrize("segmentation", [None, [], {}, [[1, 2, 3, 4]], [[]]])
def test_what_has_no_outline_is_empty(segmentation: object) -> None:
    assert not painted(segmentation, 4, 4).any()


def test_later_regions_lie_over_those_before_them() -> None:
    whole = region([0, 0, 3, 0, 3, 2, 0, 2], 2, 3)
    left = region([0, 0, 1, 0, 1, 2, 0, 2], 2, 3)
    assert paint([(7, whole), (255, left)], 2, 3).tolist() == [[255, 7, 7]] * 2
    assert paint([(255, left), (7, whole)], 2, 3).tolist() == [[7, 7, 7]] * 2


def runs(**changes: object) -> dict[str, object]:
    return {"size": [2, 3], "counts": [1, 2, 3]} | changes


@pytest.mark.parametrize(
    ("segmentation", "reason"),
    [
        (runs(size=[3, 2]), "not those of 2 by 3 pixels"),
        (runs(size=None), "not those of"),
        (runs(counts=[1, 2]), "do not add up to 2 by 3"),
        (runs(counts=[1, 2, 30]), "do not add up"),
        (runs(counts=[7, -1]), "no list of whole numbers"),
        (runs(counts=[1.5, 4.5]), "no list of whole numbers"),
        (runs(counts=[True, 5]), "no list of whole numbers"),
        (runs(counts=None), "no list of whole numbers"),
        (runs(counts="Ä"), "no compressed text"),
        (runs(counts="o" * 9), "no compressed text"),
        (runs(counts="1o"), "end in the middle"),
        (runs(counts="~~"), "no compressed text"),
        ([[0, 0, 1e9, 0, 1e9, 1e9]], "far out of 2 by 3 pixels"),
        ([[0, 0, float("nan"), 0, 1, 1]], "far out of"),
        ([[0, 0, float("inf"), 0, 1, 1]], "far out of"),
        ([[0, 0, 1, 0, 1]], "no list of x and y"),
        ([["a", 0, 1, 0, 1, 1]], "no list of x and y"),
        ([[[0], 0, 1, 0, 1, 1]], "no list of x and y"),
        ([[0, 0, 1, 0, 1, 1], 3], "no list of x and y"),
        ("abc", "neither polygons nor run lengths"),
        (7, "neither polygons nor run lengths"),
    ],
)
def test_what_is_no_outline_is_refused(segmentation: object, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        region(segmentation, 2, 3)


def test_an_outline_has_a_bounded_length() -> None:
    zigzag = [float(value) for i in range(1000) for value in (0, i % 2 * 9999)]
    with pytest.raises(ValueError, match="outline of more than 838,860 pixels"):
        region([zigzag], 10_000, 10_000)


@given(npst.arrays(np.uint8, npst.array_shapes(min_dims=2, max_dims=2, max_side=9)))
def test_regions_are_written_as_pycocotools_does(labels: np.ndarray) -> None:
    mask = pytest.importorskip("pycocotools.mask")
    labels %= 4
    found = runs_of(labels)
    assert list(found) == sorted(set(np.unique(labels).tolist()) - {0})
    for value, runs in found.items():
        expected = mask.encode(np.asfortranarray(labels == value, np.uint8))
        written = run_lengths(runs, *labels.shape)
        assert written == {**expected, "counts": expected["counts"].decode()}
        assert list(bounds(runs, labels.shape[0])) == mask.toBbox(expected).tolist()
        np.testing.assert_array_equal(painted(written, *labels.shape), labels == value)


def test_long_runs_take_several_digits() -> None:
    mask = pytest.importorskip("pycocotools.mask")
    labels = np.zeros((700, 900), np.uint8)
    labels[3:, 100:-100] = labels[5, 5] = 1
    expected = mask.encode(np.asfortranarray(labels))["counts"].decode()
    assert run_lengths(runs_of(labels)[1], 700, 900)["counts"] == expected
