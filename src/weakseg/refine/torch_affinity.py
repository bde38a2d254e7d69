"""Which cells of a grid belong together, from a map of class boundaries (Ahn et al. 2019, IRN).

Two cells are related unless a boundary lies on the path between them: their affinity is 1 minus
the highest boundary probability on it (IRN, eq. 1). A logit's maximum is the probability's, so
everything here works on either.
"""

from collections.abc import Iterator
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional as F

from weakseg.refine.affinity import Direction, pair_directions, pair_ends, path_runs


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

    @cache
    def sliding(length: int, tall: bool) -> Tensor:
        window = (length, 1) if tall else (1, length)
        return F.max_pool2d(values, window, stride=1) if length > 1 else values

    height, width = values.shape[-2:]
    for direction in pair_directions(radius):
        dy, dx = direction
        rows, columns = height - dy, width - abs(dx)
        if rows <= 0 or columns <= 0:
            continue
        left = max(-dx, 0)
        runs = [
            sliding(length, tall)[..., y : y + rows, left + x : left + x + columns]
            for y, x, length, tall in path_runs(direction)
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
