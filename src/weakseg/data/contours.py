"""A region's outline as polygons on the edges of its pixels, in whole numbers."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

Point = tuple[int, int]
"""x and y of a pixel's corner; pixel (row, column) reaches from (column, row) one on in both."""

_RIGHT, _DOWN, _LEFT, _UP = (1, 0), (0, 1), (-1, 0), (0, -1)


def polygons(region: NDArray[np.bool_]) -> list[list[Point]]:
    """A polygon of each piece of a region (H, W), whose pixels touch by their sides.

    By the rule of even and odd it holds the piece's pixels and no other. A hole is joined to what
    is around it by a seam, there and back along the edge of a row, that lies in the piece.
    """
    from scipy.ndimage import find_objects, label

    pieces, _ = label(region)
    found = []
    for number, place in enumerate(find_objects(pieces), start=1):
        rows, columns = place
        outline = _outline(pieces[place] == number)
        found.append([(x + columns.start, y + rows.start) for x, y in outline])
    return found


def _outline(piece: NDArray[np.bool_]) -> list[Point]:
    rings = _rings(piece)
    # The outer one begins furthest to the left; a hole's seam goes to the left, to that one or to a
    # hole that begins before it.
    outer, *holes = sorted(rings, key=min)
    for hole in holes:
        x, y = min(hole)
        start = x
        while start and piece[y, start - 1]:
            start -= 1
        at, turn = outer.index((start, y)), hole.index((x, y))
        outer = [*outer[: at + 1], *hole[turn:], *hole[: turn + 1], *outer[at:]]
    return _corners(outer)


def _rings(piece: NDArray[np.bool_]) -> list[list[Point]]:
    """Each closed way along the edges of a piece, a step a pixel, the piece on its right hand."""
    ways: dict[Point, list[Point]] = {}
    for start, direction in _edges(piece):
        ways.setdefault(start, []).append(direction)
    rings = []
    while ways:
        start = point = next(iter(ways))
        heading = ways[start][0]
        ring: list[Point] = []
        while not ring or point != start:
            ring.append(point)
            ways[point].remove(heading)
            if not ways[point]:
                del ways[point]
            point = point[0] + heading[0], point[1] + heading[1]
            if onward := ways.get(point):
                turned = (-heading[1], heading[0])  # where two ways meet, round the same pixel
                heading = turned if turned in onward else onward[0]
        rings.append(ring)
    return rings


def _edges(piece: NDArray[np.bool_]) -> Iterator[tuple[Point, Point]]:
    """Where each edge of a pixel starts that has the piece on one side alone, and whither."""
    around = np.pad(piece, 1)
    inside = around[1:-1, 1:-1]
    for direction, beside, (right, down) in (
        (_RIGHT, around[:-2, 1:-1], (0, 0)),
        (_DOWN, around[1:-1, 2:], (1, 0)),
        (_LEFT, around[2:, 1:-1], (1, 1)),
        (_UP, around[1:-1, :-2], (0, 1)),
    ):
        rows, columns = np.nonzero(inside & ~beside)
        for x, y in zip((columns + right).tolist(), (rows + down).tolist(), strict=True):
            yield (x, y), direction


def _corners(ring: list[Point]) -> list[Point]:
    """The points at which a closed way turns."""
    closed = zip(ring[-1:] + ring[:-1], ring, ring[1:] + ring[:1], strict=True)
    return [(x, y) for (a, b), (x, y), (c, d) in closed if (x - a, y - b) != (c - x, d - y)]
