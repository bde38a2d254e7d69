"""Which cells of a grid belong together, from a map of class boundaries (Ahn et al. 2019, IRN).

Two cells are related unless a boundary lies on the path between them: their affinity is 1 minus
the highest boundary probability on it (IRN, eq. 1). A logit's maximum is the probability's, so
everything here works on either.
"""

from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F


class Direction(NamedTuple):
    """From the first cell of a pair to the second, in cells; `dy >= 0`, and `dx > 0` in a row."""

    dy: int
    dx: int


@cache
def pair_directions(radius: int) -> tuple[Direction, ...]:
    """The directions to all cells nearer than `radius`, each pair of opposite ones once.

    152 for a radius of 10, 34 for one of 5.

    Raises:
        ValueError: a radius under 2, which has no pairs.
    """
    if radius < 2:
        raise ValueError(f"radius is {radius}; expected an integer >= 2")
    return tuple(
        Direction(dy, dx)
        for dy in range(radius)
        for dx in range(1 - radius, radius)
        if (dy > 0 or dx > 0) and dy**2 + dx**2 < radius**2
    )


def path_cells(direction: Direction) -> list[tuple[int, int]]:
    """The cells (y, x) on the path from (0, 0) to the direction's end, both included.

    They are those in the bounding box of the two whose centre is nearer than 1 to the segment.
    """
    dy, dx = direction
    return [
        (y, x)
        for y in range(dy + 1)
        for x in range(min(dx, 0), max(dx, 0) + 1)
        if (dy * x - dx * y) ** 2 < dy**2 + dx**2
    ]


def pair_ends(values: Tensor, direction: Direction) -> tuple[Tensor, Tensor]:
    """Views of the first and the second cell of every pair inside the grid.

    Args:
        values: (..., h, w).
        direction: where the second cell lies.

    Returns:
        Two of (..., max(h - dy, 0), max(w - |dx|, 0)).
    """
    dy, dx = direction
    height, width = values.shape[-2:]
    rows, columns = max(height - dy, 0), max(width - abs(dx), 0)
    left = min(max(-dx, 0), width)
    first = values[..., :rows, left : left + columns]
    second = values[..., dy : dy + rows, left + dx : left + dx + columns]
    return first, second


def path_maxima(values: Tensor, radius: int) -> Iterator[tuple[Direction, Tensor]]:
    """The highest value on the path of every pair inside the grid; differentiable.

    The cells of a path that share a row or a column follow each other, so that its maximum is one
    of a few sliding maxima, which all directions share.

    Args:
        values: float (N, h, w).
        radius: see `pair_directions`; directions without a pair inside the grid are left out.

    Yields:
        A direction and float (N, h - dy, w - |dx|).
    """
    windows = _SlidingMaxima(values)
    height, width = values.shape[-2:]
    for direction in pair_directions(radius):
        dy, dx = direction
        rows, columns = height - dy, width - abs(dx)
        if rows <= 0 or columns <= 0:
            continue
        left = max(-dx, 0)
        runs = [
            windows[length, tall][..., y : y + rows, left + x : left + x + columns]
            for y, x, length, tall in _runs(direction)
        ]
        highest = runs[0]
        for run in runs[1:]:
            highest = torch.maximum(highest, run)
        yield direction, highest


def affinities(boundary: Tensor, radius: int) -> Tensor:
    """Affinity of every pair (IRN, eq. 1).

    Args:
        boundary: float (h, w), probabilities.
        radius: see `pair_directions`.

    Returns:
        float (P, h, w), a plane for each of the P directions: at a cell that of the pair which
        starts there; 0 where the pair leaves the grid.
    """
    planes = boundary.new_zeros(len(pair_directions(radius)), *boundary.shape)
    of_direction = dict(zip(pair_directions(radius), planes, strict=True))
    for direction, highest in path_maxima(boundary.unsqueeze(0), radius):
        starts, _ = pair_ends(of_direction[direction], direction)
        torch.sub(1, highest[0], out=starts)
    return planes


class _SlidingMaxima(dict[tuple[int, bool], Tensor]):
    """Maxima over each `length` cells of a column (`tall`) or a row, made when asked for."""

    def __init__(self, values: Tensor) -> None:
        super().__init__()
        self._values = values

    def __missing__(self, key: tuple[int, bool]) -> Tensor:
        length, tall = key
        window = (length, 1) if tall else (1, length)
        self[key] = F.max_pool2d(self._values, window, stride=1) if length > 1 else self._values
        return self[key]


@cache
def _runs(direction: Direction) -> list[tuple[int, int, int, bool]]:
    """A path's runs of cells: where it starts (y, x), its length, whether it is in a column."""
    dy, dx = direction
    tall = dy > abs(dx)
    lines: dict[int, list[tuple[int, int]]] = {}
    for cell in path_cells(direction):
        lines.setdefault(cell[tall], []).append(cell)
    return [(*min(line), len(line), tall) for line in lines.values()]
