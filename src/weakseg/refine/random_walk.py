"""Random walk of class activation maps between related cells (Ahn et al. 2019, IRN, section 5).

The walk goes from a cell to those nearer than a radius with a probability in proportion to a power
of their affinity, so that activations spread until they meet a class boundary.

On a CPU the transition matrix of `n` cells is never made: its entries lie on a few diagonals, and
half of them do, for affinities are symmetric. Nor are all the steps taken. The matrix's power is a
sum of its Chebyshev polynomials with binomial coefficients, and those of a degree beyond a few
times the square root of the number of steps are next to nothing (Sachdeva and Vishnoi, "Faster
Algorithms via Approximation Theory", 2014, section 3): for 256 steps some 90 products do.
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom

from weakseg.memory import memory_here
from weakseg.refine.affinity import affinities, pair_directions
from weakseg.refine.compiled import compiled
from weakseg.refine.settings import RandomWalkSettings

if TYPE_CHECKING:
    import torch

__all__ = ["RandomWalkSettings", "random_walk", "scale_to_peak"]

_NEGLIGIBLE = 1e-8
"""Sum of the Chebyshev coefficients that are left out at the least."""
_WEAK = 1e-12
"""Affinities under this are taken as 0: they would only make subnormal numbers, which are slow."""
_FLOOR = 1e-20
"""Activations start at this at least, for the same reason; a walk keeps what all cells have."""
_BLOCK = 2048
"""Cells whose sums and weights fit the processor's cache."""


def random_walk(
    cam: NDArray[np.float32],
    boundary: NDArray[np.float32],
    settings: RandomWalkSettings,
    device: "torch.device | None" = None,
) -> NDArray[np.float32]:
    """Spread class activation maps over the cells that no boundary parts from them.

    The start is `cam * (1 - boundary)`. In a step a cell takes the mean of its neighbours' values
    and its own, weighed by the affinities to the power of `beta`, its own by 1.

    Args:
        cam: (K, h, w), at least 0; K may be 0.
        boundary: (h, w) in [0, 1], the probability of a class boundary.
        settings: the walk's.
        device: where torch's operators compute; None: compiled loops on the calling thread.

    Returns:
        float32 (K, h, w), at least 0, and to rounding at most the start's maximum.

    Raises:
        ValueError: an array is not as said, or there is not enough memory.

    Examples:
        >>> import numpy as np, weakseg
        >>> cam = np.zeros((1, 5, 9), np.float32)
        >>> cam[0, 2, 1] = 1
        >>> boundary = np.zeros((5, 9), np.float32)
        >>> boundary[:, 4] = 1  # nothing walks over it
        >>> walked = weakseg.random_walk(cam, boundary, weakseg.RandomWalkSettings(radius=3))
        >>> bool(walked[0, 2, 3] > 0.01), bool(walked[0, 2, 5] > 0.01)
        (True, False)
    """
    if cam.ndim != 3 or cam.shape[1:] != boundary.shape:
        raise ValueError(
            f"cam and boundary have shapes {cam.shape} and {boundary.shape}; "
            "expected (K, h, w) and (h, w)"
        )
    if cam.size == 0:
        return np.zeros(cam.shape, np.float32)
    _check_range("cam", cam, float(np.finfo(np.float32).max))
    _check_range("boundary", boundary, 1)
    if device is not None:
        return _on_device(cam * (1 - boundary), boundary, settings, device)
    reach = settings.radius - 1
    _check_memory(boundary.shape, settings.radius)
    inside = np.s_[..., reach : reach + boundary.shape[0], reach : reach + boundary.shape[1]]
    padded = np.ones([side + 2 * reach for side in boundary.shape], np.float32)
    padded[inside] = boundary
    values = np.zeros((len(cam), *padded.shape), np.float32)
    values[inside] = np.maximum(cam * (1 - boundary), _FLOOR)
    walked = _walk(values, padded, settings)[inside].copy()
    walked[walked < 2 * _FLOOR] = 0
    return walked


def scale_to_peak(maps: NDArray[np.float32]) -> NDArray[np.float32]:
    """Divide maps (K, h, w), at least 0, by the maximum over all of them, where it isn't 0.

    That makes walked maps comparable with a constant background (IRN: 0.25; Dobko et al.: 0.3).
    """
    peak = maps.max(initial=0)
    return maps / peak if peak > 0 else maps


def _on_device(
    start: NDArray[np.float32],
    boundary: NDArray[np.float32],
    settings: RandomWalkSettings,
    device: "torch.device",
) -> NDArray[np.float32]:
    from weakseg.refine import torch_walk
    from weakseg.refine.devices import to_device

    coefficients = _chebyshev_coefficients(settings.steps, settings.tolerance)
    walked = torch_walk.walk(
        to_device(start, device),
        to_device(boundary, device),
        settings.radius,
        settings.beta,
        coefficients,
    )
    return np.asarray(walked.clamp_(min=0).cpu().numpy())


def _walk(
    values: NDArray[np.float32], boundary: NDArray[np.float32], settings: RandomWalkSettings
) -> NDArray[np.float32]:
    """The walk on a grid with a margin, as wide as a step, that is all boundary."""
    directions = pair_directions(settings.radius)
    offsets = np.array([dy * boundary.shape[1] + dx for dy, dx in directions])
    planes = affinities(boundary, settings.radius).reshape(len(offsets), -1)
    planes **= np.float32(settings.beta)
    planes[planes < _WEAK] = 0
    degrees = np.ones(boundary.size, np.float32)
    for plane, offset in zip(planes, offsets, strict=True):
        degrees += plane
        degrees[offset:] += plane[:-offset]
    flat = values.reshape(len(values), -1)
    coefficients = _chebyshev_coefficients(settings.steps, settings.tolerance)
    walked: NDArray[np.float32] = _expand(planes, offsets, 1 / degrees, coefficients, flat)
    return walked.reshape(values.shape)


def _chebyshev_coefficients(power: int, tolerance: float) -> NDArray[np.float32]:
    """Coefficients of x^power in the Chebyshev polynomials, without an end that adds up to little.

    With x = (z + 1/z) / 2 the power is a binomial sum, and T_k = (z^k + z^-k) / 2.
    """
    degrees = np.arange(power % 2, power + 1, 2)
    coefficients = np.zeros(power + 1)
    coefficients[degrees] = 2 * binom.pmf((power - degrees) // 2, power, 0.5)
    coefficients[0] /= 2
    beyond = coefficients[::-1].cumsum()[::-1]
    kept = coefficients[beyond > max(tolerance, _NEGLIGIBLE)]
    scaled: NDArray[np.float32] = (kept / kept.sum()).astype(np.float32)  # constants stay
    return scaled


@compiled
def _expand(planes: Any, offsets: Any, shares: Any, coefficients: Any, values: Any) -> Any:
    """The sum of `coefficients[k] T_k(matrix) values`.

    The change from a polynomial to the next grows by twice what a step would change, or for the
    first, by once that. In this form of T_k+1 = 2 x T_k - T_k-1 (Reinsch's) rounding errors of
    smooth maps don't pile up.

    Args:
        planes: (P, n), the affinity of each cell to that at `offsets[p]` from it.
        shares: (n), each cell's share in its own next value.
        values: (K, n), 0 in the margin.
    """
    first, last = offsets.max(), values.shape[1] - offsets.max()
    pulls = np.empty(_BLOCK, np.float32)
    changes = np.zeros_like(values)
    current, following = values.copy(), values.copy()
    result = coefficients[0] * values
    for degree in range(1, len(coefficients)):
        coefficient = coefficients[degree]
        factor = np.float32(1 if degree == 1 else 2)
        for start in range(first, last, _BLOCK):
            stop = min(start + _BLOCK, last)
            share = shares[start:stop]
            for row in range(len(values)):
                _pull(planes, offsets, current[row], start, stop, pulls)
                here, change = current[row, start:stop], changes[row, start:stop]
                after, total = following[row, start:stop], result[row, start:stop]
                for cell in range(stop - start):
                    change[cell] += factor * share[cell] * pulls[cell]
                    after[cell] = here[cell] + change[cell]
                    total[cell] += coefficient * after[cell]
        current, following = following, current
    return result


@compiled
def _pull(planes: Any, offsets: Any, values: Any, start: Any, stop: Any, pulls: Any) -> None:
    """How far each cell's neighbours exceed it, weighed by affinity and summed.

    Differences, so that a constant is kept to the last bit.
    """
    pulls[:] = 0
    here = values[start:stop]
    for index in range(len(offsets)):
        offset = offsets[index]
        to, back = planes[index, start:stop], planes[index, start - offset : stop - offset]
        ahead = values[start + offset : stop + offset]
        behind = values[start - offset : stop - offset]
        for cell in range(stop - start):
            pulls[cell] += to[cell] * (ahead[cell] - here[cell])
            pulls[cell] += back[cell] * (behind[cell] - here[cell])


def _check_memory(grid: tuple[int, ...], radius: int) -> None:
    cells = math.prod(side + 2 * (radius - 1) for side in grid)
    wanted, most = 4 * len(pair_directions(radius)) * cells, memory_here()
    if wanted > most:
        raise ValueError(
            f"a walk of radius {radius} on {grid[0]}x{grid[1]} cells takes "
            f"{wanted / 2**30:.0f} GiB, of {most / 2**30:.0f}; expected a smaller radius"
        )


def _check_range(name: str, values: NDArray[np.float32], top: float) -> None:
    low, high = values.min(), values.max()
    if not (low >= 0 and high <= top):  # NaN fails every comparison
        raise ValueError(f"{name} spans [{low}, {high}]; expected finite numbers from 0 to {top}")


def class_shares(
    mask: NDArray[np.uint8], class_ids: Sequence[int], size: tuple[int, int]
) -> NDArray[np.float32]:
    """A mask's share of each class in every cell of a grid, for it to walk.

    Args:
        mask: uint8 (H, W).
        class_ids: K of them.
        size: of the grid, (h, w).

    Returns:
        float32 (K, h, w) in [0, 1].
    """
    import torch
    from torch.nn import functional as F

    ids = np.array(class_ids, np.uint8).reshape(-1, 1, 1)
    shares = F.adaptive_avg_pool2d(torch.from_numpy(mask == ids).float(), size)
    return np.asarray(shares.numpy())
