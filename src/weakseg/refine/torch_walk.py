"""The random walk in torch's operators, for a GPU: see `weakseg.refine.random_walk`."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from weakseg.refine.affinity import pair_directions, pair_ends
from weakseg.refine.torch_affinity import affinities


def walk(
    start: Tensor, boundary: Tensor, radius: int, beta: float, coefficients: NDArray[np.float32]
) -> Tensor:
    """The sum of `coefficients[k] T_k(matrix) start`, T_k the Chebyshev polynomials.

    Each cell gathers from its neighbours, 69 at a radius of 5 with itself, in a fixed order and in
    float64: in float32 the rounding errors of the recurrence pile up.

    Args:
        start: float (K, h, w).
        boundary: float (h, w) in [0, 1], on the same device.
        radius, beta: of the affinities, see `random_walk.RandomWalkSettings`.
        coefficients: at least one.

    Returns:
        float32 (K, h, w), on their device.
    """
    neighbours, weights = _transitions(boundary.double(), radius, beta)
    before = start.double().flatten(1).T.contiguous()
    current = _step(before, neighbours, weights)
    total = float(coefficients[0]) * before
    for coefficient in coefficients[1:]:
        total += float(coefficient) * current
        before, current = current, 2 * _step(current, neighbours, weights) - before
    return total.T.reshape(start.shape).float()


def _step(values: Tensor, neighbours: Tensor, weights: Tensor) -> Tensor:
    return torch.einsum("nkc,nk->nc", values[neighbours], weights)


def _transitions(boundary: Tensor, radius: int, beta: float) -> tuple[Tensor, Tensor]:
    """Where each cell's next value comes from, int64 (h w, k), and with which weight, (h w, k).

    A neighbour beyond the grid is the cell itself, with a weight of 0.
    """
    cells = torch.arange(boundary.numel(), device=boundary.device).view(boundary.shape)
    planes = affinities(boundary, radius).pow_(beta)
    sources, weights = [cells], [torch.ones_like(boundary)]
    for direction, plane in zip(pair_directions(radius), planes, strict=True):
        affinity, _ = pair_ends(plane, direction)
        for end in (0, 1):
            source, weight = cells.clone(), torch.zeros_like(boundary)
            pair_ends(source, direction)[end].copy_(pair_ends(cells, direction)[1 - end])
            pair_ends(weight, direction)[end].copy_(affinity)
            sources.append(source)
            weights.append(weight)
    stacked = torch.stack(weights, dim=-1).flatten(0, 1)
    return torch.stack(sources, dim=-1).flatten(0, 1), stacked / stacked.sum(1, keepdim=True)
