"""Which pairs of a grid's cells may belong together, and the paths between them (IRN).

See `weakseg.refine.torch_affinity` for how much they do.
"""

from functools import cache
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor


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


def pair_ends(values: "Tensor", direction: Direction) -> "tuple[Tensor, Tensor]":
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
