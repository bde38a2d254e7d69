"""Random walk of class activation maps between related cells (Ahn et al. 2019, IRN, section 5).

The walk goes from a cell to those nearer than a radius with a probability in proportion to a power
of their affinity, so that activations spread until they meet a class boundary.

The transition matrix of `n` cells is never made: it has the pairs' few directions as diagonals,
and is symmetric but for a scaling, so that half of them do. Nor are all the steps taken. The
matrix's power is a polynomial whose Chebyshev expansion has binomial coefficients, and those
beyond some multiple of the square root of the number of steps are next to nothing (Sachdeva and
Vishnoi, "Faster Algorithms via Approximation Theory", 2014, section 3): 92 products do for 256
steps.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numba import njit
from numpy.typing import NDArray

from weakseg.refine.affinity import affinities, pair_directions

_NEGLIGIBLE = 1e-8
"""Sum of the Chebyshev coefficients that are left out."""
_WEAK = 1e-12
"""Transitions under this would only make subnormal numbers, which are slow."""
_FLOOR = 1e-20
"""Activations start at this at least, for the same reason: a walk keeps what all cells have."""


@dataclass(frozen=True)
class RandomWalkSettings:
    """Which cells a walk goes to, and how far.

    Attributes:
        radius: a step leads to cells nearer than this, in cells, an integer >= 2.
        beta: power of the affinities, a finite number > 0; the larger, the fewer boundaries are
            crossed.
        steps: number of steps, an integer >= 0; IRN takes a power of two.

    Raises:
        ValueError: a value is outside its range.
    """

    radius: int = 5
    beta: float = 10.0
    steps: int = 256

    def __post_init__(self) -> None:
        pair_directions(self.radius)
        if not 0 < self.beta < math.inf:
            raise ValueError(f"beta is {self.beta}; expected a finite number > 0")
        if self.steps < 0:
            raise ValueError(f"steps is {self.steps}; expected an integer >= 0")


def random_walk(
    cam: NDArray[np.float32], boundary: NDArray[np.float32], settings: RandomWalkSettings
) -> NDArray[np.float32]:
    """Spread class activation maps over the cells that no boundary parts from them.

    The start is `cam * (1 - boundary)` (IRN, eq. 11 and 12). A cell's transitions, one to itself
    among them, sum to 1. Single-threaded.

    Args:
        cam: (K, h, w), at least 0; any K, 0 too.
        boundary: (h, w) in [0, 1], the probability of a class boundary.
        settings: the walk's.

    Returns:
        float32 (K, h, w), at least 0, and at most the highest of `cam`, to rounding.

    Raises:
        ValueError: an array is not as said.
    """
    if cam.ndim != 3 or boundary.ndim != 2 or cam.shape[1:] != boundary.shape:
        raise ValueError(
            f"cam and boundary have shapes {cam.shape} and {boundary.shape}; "
            "expected (K, h, w) and (h, w)"
        )
    if cam.size == 0:
        return np.zeros(cam.shape, np.float32)
    # Not the opposite with "or": NaN fails every comparison.
    if not (cam.min() >= 0 and cam.max() < math.inf):
        raise ValueError(f"cam spans [{cam.min()}, {cam.max()}]; expected finite numbers >= 0")
    if not (boundary.min() >= 0 and boundary.max() <= 1):
        raise ValueError(
            f"boundary spans [{boundary.min()}, {boundary.max()}]; expected values in [0, 1]"
        )
    height, width = boundary.shape
    reach = settings.radius - 1
    margin = (slice(reach, reach + height), slice(reach, reach + width))
    planes, offsets = _pairs(boundary, settings)
    root = np.zeros(planes.shape[1:], np.float32)
    root[margin] = 1
    degrees = root.copy()
    _add_product(planes, offsets, root.reshape(1, -1), degrees.reshape(1, -1), reach)
    root[margin] = np.sqrt(degrees[margin])
    _scale(planes, offsets, root, height, width, reach)
"""


