"""Regions as COCO's files outline them: polygons and run lengths.

A region is its runs of pixels: int64 (N, 2), first and last + 1, ascending. Pixels are numbered
down the columns: (row, column) of a picture of height H is `column * H + row`.

They are the pixels of pycocotools, which is not used because it trusts its input: in its version
2.0.11 a coordinate of 1e9 ends the process, NaN keeps it for ever, and run lengths that are too
short show memory at random.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Runs = NDArray[np.int64]

_FINER = 5  # outlines are followed on a grid that is finer so many times
_LONGEST = 2**22  # steps of one outline on that grid; each takes some 60 bytes
_MOST_DIGITS = 7  # of a compressed count: 35 bits


def region(segmentation: Any, height: int, width: int) -> list[Runs]:
    """The parts of a region, which may overlap; none where it has no outline.

    Args:
        segmentation: as in COCO: polygons, each a list of x and y in turn, or run lengths
            `{"size": [height, width], "counts": ...}`, as numbers or compressed to text. A single
            polygon need not be in a list. Polygons of less than three points are empty.

    Raises:
        ValueError: if it is neither, or doesn't fit into the picture; the message says why.
    """
    if not segmentation:
        return []
    if isinstance(segmentation, dict):
        return [_run_lengths(segmentation, height, width)]
    if not isinstance(segmentation, list):
        raise ValueError("an outline is neither polygons nor run lengths")
    polygons = segmentation if isinstance(segmentation[0], list) else [segmentation]
    return [_polygon(polygon, height, width) for polygon in polygons]


def paint(
    regions: Iterable[tuple[int, Sequence[Runs]]], height: int, width: int
) -> NDArray[np.uint8]:
    """A mask, uint8 (H, W), of regions with their ids; a later one lies over those before it."""
    columns = np.zeros(width * height, np.uint8)
    for value, parts in regions:
        for runs in parts:
            for first, end in runs.tolist():
                columns[first:end] = value
    return np.ascontiguousarray(columns.reshape(width, height).T)


def runs_of(labels: NDArray[np.integer[Any]]) -> dict[int, Runs]:
    """The region of each number but 0 in a picture (H, W), by number, ascending."""
    columns = labels.T.ravel()
    first = np.concatenate([[0], np.flatnonzero(columns[1:] != columns[:-1]) + 1])
    runs = np.stack([first, np.append(first[1:], columns.size)], axis=1).astype(np.int64)
    values = columns[first]
    return {value: runs[values == value] for value in np.unique(values).tolist() if value}


def run_lengths(runs: Runs, height: int, width: int) -> dict[str, Any]:
    """A region as COCO's compressed run lengths: what pycocotools' `encode` gives, as text."""
    counts = np.diff(np.concatenate([[0], runs.ravel(), [height * width]]))
    if len(runs) and runs[-1, 1] == height * width:
        counts = counts[:-1]
    return {"size": [height, width], "counts": _compress(counts)}


def bounds(runs: Runs, height: int) -> tuple[int, int, int, int]:
    """A region's left and upper edge, width and height, of a picture of height H."""
    left, right = int(runs[0, 0]) // height, int(runs[-1, 1] - 1) // height
    if (runs[:, 0] // height != (runs[:, 1] - 1) // height).any():
        upper, lower = 0, height - 1  # a run that goes on in the next column
    else:
        upper, lower = int((runs[:, 0] % height).min()), int(((runs[:, 1] - 1) % height).max())
    return left, upper, right - left + 1, lower - upper + 1


def pixels(parts: Sequence[Runs]) -> int:
    """Number of pixels, those of overlapping parts counted again."""
    return sum(int((runs[:, 1] - runs[:, 0]).sum()) for runs in parts)


def _run_lengths(segmentation: dict[str, Any], height: int, width: int) -> Runs:
    size, counts = segmentation.get("size"), segmentation.get("counts")
    if size != [height, width]:
        raise ValueError(f"run lengths are not those of {height} by {width} pixels")
    if isinstance(counts, str):
        counts = _decompress(counts)
    if not isinstance(counts, list) or not all(type(n) is int and n >= 0 for n in counts):
        raise ValueError("run lengths are no list of whole numbers and no compressed text")
    if sum(counts) != height * width:
        raise ValueError(f"run lengths do not add up to {height} by {width} pixels")
    ends = np.cumsum(np.array(counts, np.int64))
    odd = len(ends) // 2 * 2
    return ends[:odd].reshape(-1, 2)  # background first: a run of the region ends an odd count


def _compress(counts: NDArray[np.int64]) -> str:
    """What `_decompress` reads."""
    values = counts.copy()
    values[3:] -= counts[1:-2]
    shifted = values[:, None] >> 5 * np.arange(_MOST_DIGITS)
    digits, rest = shifted & 31, shifted >> 5
    more = np.where(digits & 16, rest != -1, rest != 0)
    written = np.ones_like(more)
    written[:, 1:] = np.logical_and.accumulate(more, axis=1)[:, :-1]
    codes = (digits | more << 5) + 48
    return bytes(codes[written].tolist()).decode("ascii")


def _decompress(text: str) -> list[int]:
    """Counts from COCO's text: digits of base 32 from the lowest, each but the last one with bit 6.

    From the fourth on, counts are differences to the last but one.
    """
    counts: list[int] = []
    value = digits = 0
    for character in text:
        code = ord(character) - 48
        if not 0 <= code < 64 or digits == _MOST_DIGITS:
            raise ValueError("run lengths are no compressed text")
        value |= (code & 31) << 5 * digits
        digits += 1
        if not code & 32:
            if code & 16:
                value -= 1 << 5 * digits
            counts.append(value + (counts[-2] if len(counts) > 2 else 0))
            value = digits = 0
    if digits:
        raise ValueError("run lengths end in the middle of a number")
    return counts


def _polygon(polygon: Any, height: int, width: int) -> Runs:
    """The pixels that a polygon holds by the rule of even and odd.

    Its corners are rounded to a finer grid, its sides followed on it in whole steps, and a column
    of pixels is entered or left where a side crosses the middle of it.
    """
    try:
        corners = np.array(polygon, float).reshape(-1, 2)
    except (ValueError, TypeError):
        raise ValueError("a polygon is no list of x and y in turn") from None
    if len(corners) < 3:
        return np.empty((0, 2), np.int64)
    reach = 2 * max(height, width)
    if not np.all(np.abs(corners) <= reach):  # neither for NaN
        raise ValueError(f"a polygon reaches far out of {height} by {width} pixels")
    corners = np.trunc(_FINER * corners + 0.5)
    x, y = _follow(np.concatenate([corners, corners[:1]])).T
    crossing = (x[1:] != x[:-1]) & (np.minimum(x[1:], x[:-1]) % _FINER == _FINER // 2)
    column = np.minimum(x[1:], x[:-1])[crossing] // _FINER
    lower = np.minimum(y[1:], y[:-1])[crossing]
    row = np.ceil(np.clip((lower + 0.5) / _FINER - 0.5, 0, height))
    inside = (column >= 0) & (column < width)
    crossed = np.sort((column * height + row)[inside].astype(np.int64))
    return crossed.reshape(-1, 2)  # even in number, for an outline that is closed


def _follow(corners: NDArray[np.float64]) -> NDArray[np.float64]:
    """Every step of (x, y) from corner to corner, one in the longer direction of a side each."""
    way = np.diff(corners, axis=0)
    lengths = np.abs(way).max(axis=1).astype(np.int64)
    if lengths.sum() > _LONGEST:
        raise ValueError(f"a polygon has an outline of more than {_LONGEST // _FINER:,} pixels")
    side = np.repeat(np.arange(len(way)), lengths + 1)
    first = np.cumsum(lengths + 1) - (lengths + 1)
    step = np.arange(len(side)) - first[side]
    upright = np.abs(way[:, 1]) > np.abs(way[:, 0])
    longer = np.where(upright, way[:, 1], way[:, 0])
    # Sides are followed from their lower end, as rounding to whole steps is not symmetric.
    backwards = longer < 0
    start = np.where(backwards[:, None], corners[1:], corners[:-1])
    step = np.where(backwards[side], lengths[side] - step, step)
    slope = np.where(upright, way[:, 0], way[:, 1]) / np.where(longer == 0, 1, longer)
    along = step + np.where(upright, start[:, 1], start[:, 0])[side]
    across = np.trunc(np.where(upright, start[:, 0], start[:, 1])[side] + slope[side] * step + 0.5)
    return np.where(upright[side, None], np.stack([across, along], 1), np.stack([along, across], 1))
