"""Pixel-adaptive refinement: scores averaged over neighbours of like colour (Ru et al. 2022).

Source:
    Ru, Zhan, Yu and Du, "Learning Affinity from Attention: End-to-End Weakly-Supervised Semantic
    Segmentation with Transformers", CVPR 2022, section 3.4.

A pixel's neighbours are the eight at each dilation, of which those outside the photo are the
nearest pixels inside. Their weights are a softmax over differences of colour, each channel in units
of its standard deviation among the neighbours, and a little of one over distances.

What differs from the authors' program: weights add up to 1, where theirs add up to 1.01 and scores
grow by a tenth in ten iterations; maps are resized by centres of cells, as everywhere here; and a
channel in which all neighbours are alike, which tells none from another, counts nothing, where
theirs drowns the other channels in rounding.
"""

from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from weakseg.data.images import resize
from weakseg.grid import upsample
from weakseg.refine.settings import PARSettings

__all__ = ["PARSettings", "refine_with_par"]

_BAND = 2**20
"""Values of a band of rows whose weights are computed at once."""


def refine_with_par(
    photo: NDArray[np.uint8], scores: NDArray[np.floating[Any]], settings: PARSettings
) -> NDArray[np.float32]:
    """Average scores over neighbours of like colour, again and again.

    Every score is a convex combination of those given, so that their scale and what they mean stay.
    The weights take 4 bytes a neighbour and pixel: 50 MB at 512 by 512 pixels and six dilations.

    Args:
        photo: uint8 (H, W, 3).
        scores: (N, h, w), finite, of any size.
        settings: neighbours, weights, iterations and the size that is worked at.

    Returns:
        float32 (N, H', W') of the photo's size times `settings.scale`.

    Raises:
        ValueError: an argument is not as said.

    Examples:
        >>> import numpy as np, weakseg
        >>> photo = np.full((1, 6, 3), 10, np.uint8)
        >>> photo[:, 3:] = 200
        >>> scores = np.array([[[0.0, 0, 0, 0, 0, 1]]])
        >>> settings = weakseg.PARSettings(dilations=(1, 2), scale=1.0)
        >>> averaged = weakseg.refine_with_par(photo, scores, settings)
        >>> bool(averaged[0, 0, 3] > 5 * averaged[0, 0, 2])
        True
    """
    if photo.dtype != np.uint8 or photo.ndim != 3 or photo.shape[2] != 3 or photo.size == 0:
        raise ValueError(f"photo is {photo.dtype} {photo.shape}; expected uint8 (H, W, 3)")
    if scores.ndim != 3 or 0 in scores.shape[1:]:
        raise ValueError(f"scores have shape {scores.shape}; expected (N, h, w)")
    if not np.isfinite(scores).all():
        raise ValueError("scores hold NaN or infinity; expected finite numbers")
    photo = resize(photo, max(1, round(max(photo.shape[:2]) * settings.scale)))
    averaged = upsample(scores.astype(np.float32, copy=False), *photo.shape[:2])
    offsets = _offsets(settings.dilations)
    weights = _weights(photo, offsets, settings)
    for _ in range(settings.iterations):
        averaged = _average(averaged, weights, offsets)
    return averaged


_Offsets = Sequence[tuple[int, int]]
"""From a pixel to its neighbours: rows, columns."""


def _offsets(dilations: Sequence[int]) -> _Offsets:
    steps = [step for step in product((-1, 0, 1), repeat=2) if any(step)]
    return [
        (rows * dilation, columns * dilation) for dilation in dilations for rows, columns in steps
    ]


def _weights(
    photo: NDArray[np.uint8], offsets: _Offsets, settings: PARSettings
) -> NDArray[np.float32]:
    """Float32 (n, H, W): what each of n neighbours weighs."""
    height, width, channels = photo.shape
    by_channel = np.moveaxis(photo, 2, 0).astype(np.float64)
    reach = max(settings.dilations)
    padded = _padded(by_channel, reach)
    distances = np.hypot(*np.transpose(offsets))
    near = _softmax(-np.square(distances / (settings.width * distances.std(ddof=1))))
    nearness = (settings.position_weight * near).reshape(-1, 1, 1)
    weights = np.empty((len(offsets), height, width), np.float32)
    step = max(1, _BAND // (len(offsets) * width))
    for first in range(0, height, step):
        rows = slice(first, min(first + step, height))
        unlikeness = np.zeros((len(offsets), rows.stop - first, width))
        for centre, around in zip(by_channel, padded, strict=True):
            colours = np.stack(
                [_shifted(around[rows.start : rows.stop + 2 * reach], o, reach) for o in offsets]
            )
            variance = colours.var(axis=0, ddof=1)
            variance[variance == 0] = np.inf
            unlikeness += np.square(colours - centre[rows]) / variance
        likeness = _softmax(unlikeness / (-channels * settings.width**2))
        weights[:, rows] = (likeness + nearness) / (1 + settings.position_weight)
    return weights


def _average(
    scores: NDArray[np.float32], weights: NDArray[np.float32], offsets: _Offsets
) -> NDArray[np.float32]:
    reach = max(max(offset) for offset in offsets)
    padded = _padded(scores, reach)
    total, part = np.zeros_like(scores), np.empty_like(scores)
    for weight, offset in zip(weights, offsets, strict=True):
        np.multiply(_shifted(padded, offset, reach), weight, out=part)
        total += part
    return total


def _padded(maps: NDArray[Any], reach: int) -> NDArray[Any]:
    """Maps (N, H, W) whose outermost pixels go on for `reach` pixels."""
    return np.pad(maps, ((0, 0), (reach, reach), (reach, reach)), mode="edge")


def _shifted(padded: NDArray[Any], offset: tuple[int, int], reach: int) -> NDArray[Any]:
    """What lies at an offset from each pixel of maps (..., H, W) that `_padded` made larger."""
    rows, columns = (reach + side for side in offset)
    height, width = (side - 2 * reach for side in padded.shape[-2:])
    return padded[..., rows : rows + height, columns : columns + width]


def _softmax(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Along the first axis."""
    shares: NDArray[np.float64] = np.exp(values - values.max(axis=0))
    shares /= shares.sum(axis=0)
    return shares
