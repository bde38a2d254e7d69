"""The random walk in torch's operators, for a GPU: see `weakseg.refine.random_walk`."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from weakseg.refine.affinity import affinities, pair_directions, pair_ends
from weakseg.refine.torch_sparse import csr_matrix


def walk(
    start: Tensor, boundary: Tensor, radius: int, beta: float, coefficients: NDArray[np.float32]
) -> Tensor:
    """The sum of `coefficients[k] T_k(matrix) start`, T_k the Chebyshev polynomials.

    The transition matrix is a sparse one of float64, some 70 entries a cell at a radius of 5: in
    float32 the rounding errors of the recurrence pile up.

    Args:
        start: float (K, h, w).
        boundary: float (h, w) in [0, 1], on the same device.
        radius, beta: of the affinities, see `random_walk.RandomWalkSettings`.
        coefficients: at least one.

    Returns:
        float32 (K, h, w), on their device.
    """
    matrix = _transitions(boundary.double(), radius, beta)
    before = start.double().flatten(1).T.contiguous()
    current = matrix @ before
    total = float(coefficients[0]) * before
    for coefficient in coefficients[1:]:
        total += float(coefficient) * current
        before, current = current, 2 * (matrix @ current) - before
    return total.T.reshape(start.shape).float()


def _transitions(boundary: Tensor, radius: int, beta: float) -> Tensor:
    """How much of each cell's next value comes from which cell, sparse (h w, h w)."""
    cells = torch.arange(boundary.numel(), device=boundary.device).view(boundary.shape)
    rows, columns, weights = (
        [cells.flatten()],
        [cells.flatten()],
        [boundary.new_ones(cells.numel())],
    )
    planes = affinities(boundary, radius).pow_(beta)
    for direction, plane in zip(pair_directions(radius), planes, strict=True):
        first, second = (end.flatten() for end in pair_ends(cells, direction))
        affinity = pair_ends(plane, direction)[0].flatten()
        rows += [first, second]
        columns += [second, first]
        weights += [affinity, affinity]
    to, weight = torch.cat(rows), torch.cat(weights)
    degrees = boundary.new_zeros(cells.numel()).index_add_(0, to, weight)
    return csr_matrix(to, torch.cat(columns), weight / degrees[to], cells.numel(), cells.numel())
