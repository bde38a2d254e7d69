"""Which pairs of a grid's cells may belong together, by the paths between them (IRN).

For tensors, with gradients, see `weakseg.refine.torch_affinity`.
"""

from functools import cache
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

_Array = TypeVar("_Array", NDArray[np.float32], "Tensor")


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


def affinities(boundary: NDArray[np.float32], radius: int) -> NDArray[np.float32]:
    """Affinity of every pair: 1 minus the highest boundary on its path (Ahn et al. 2019, eq. 1).

    Args:
        boundary: (h, w), probabilities.
        radius: see `pair_directions`.

    Returns:
        (P, h, w), a plane for each of the P directions: at a cell that of the pair which starts
        there; 0 where the pair leaves the grid.
    """
    planes = np.zeros((len(pair_directions(radius)), *boundary.shape), np.float32)
    for plane, direction in zip(planes, pair_directions(radius), strict=True):
        starts, _ = pair_ends(plane, direction)
        (rows, columns), left = starts.shape, max(-direction.dx, 0)
        for y, x in path_cells(direction):
            on_path = boundary[y : y + rows, left + x : left + x + columns]
            np.maximum(starts, on_path, out=starts)
        np.subtract(1, starts, out=starts)
    return planes


def pair_ends(values: _Array, direction: Direction) -> tuple[_Array, _Array]:
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


@cache
def path_runs(direction: Direction) -> list[tuple[int, int, int, bool]]:
    """A path's runs of cells: where it starts (y, x), its length, whether it is in a column."""
    dy, dx = direction
    tall = dy > abs(dx)
    lines: dict[int, list[tuple[int, int]]] = {}
    for cell in path_cells(direction):
        lines.setdefault(cell[tall], []).append(cell)
    return [(*min(line), len(line), tall) for line in lines.values()]
