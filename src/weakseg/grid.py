"""The grid on which CAMs and shallow features are kept, and the way back to a photo's size."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

CELL = 16
"""Pixels: the side of what a pixel head tells apart."""

GRID_STRIDE = 4
"""Image pixels a cell of the grid on which CAMs and shallow features are kept."""

_BAND = 2**20
"""Values of a band of `upsampled_bands`."""


class Localization(NamedTuple):
    """Where the tags of one photo are, on the grid of (H-1)//4+1 by (W-1)//4+1 cells.

    Attributes:
        cam: float32 (K, h, w) in [0, 1], a row for each given class.
        features: (D, h, w), the chosen stages, one after the other: float16, or levels; see
            `as_levels`.
        confidence: float32 (K) in [0, 1], how sure the classifier is of each given class.
    """

    cam: NDArray[np.float32]
    features: NDArray[np.float16 | np.uint8]
    confidence: NDArray[np.float32]


def grid_size(height: int, width: int) -> tuple[int, int]:
    """The grid's size for a photo of `height` by `width` pixels."""
    return (height - 1) // GRID_STRIDE + 1, (width - 1) // GRID_STRIDE + 1


def as_levels(features: NDArray[np.number[Any]]) -> NDArray[np.uint8]:
    """Features (D, h, w) in a byte each: a channel's 256 levels, from its minimum to its maximum.

    Where a channel's range lies is lost. A z-score (`weakseg.refine.svm.zscore`) doesn't know it.

    Raises:
        ValueError: a value is not finite.
    """
    low = features.min(axis=(1, 2), keepdims=True).astype(np.float32)
    span = features.max(axis=(1, 2), keepdims=True).astype(np.float32) - low
    if not np.isfinite(span).all():
        raise ValueError("features hold NaN or infinity; all values must be finite")
    scaled = (features.astype(np.float32) - low) * (255 / np.where(span > 0, span, 1))
    levels: NDArray[np.uint8] = np.rint(scaled, out=scaled).astype(np.uint8)
    return levels


def upsample(maps: NDArray[np.float32], height: int, width: int) -> NDArray[np.float32]:
    """Bring maps (K, h, w) from the grid to the photo's size (bilinear), float32 (K, H, W)."""
    bands = [band for _, band in upsampled_bands(maps, height, width)]
    return np.concatenate(bands, axis=1)


def upsampled_bands(
    maps: NDArray[np.float32], height: int, width: int
) -> Iterator[tuple[slice, NDArray[np.float32]]]:
    """What `upsample` gives, value for value, a band of rows at a time.

    A photo of 20 million pixels has maps that no worker should hold as a whole.

    Yields:
        Which of the rows, and float32 (K, rows, W); some 4 MB.
    """
    wide = maps
    if maps.shape[2] != width:
        wide = _interpolate(maps, *_neighbours(maps.shape[2], width), axis=2)
    low, high, weight = _neighbours(maps.shape[1], height)
    step = max(1, _BAND // (max(1, len(maps)) * width))
    for first in range(0, height, step):
        rows = slice(first, min(first + step, height))
        if maps.shape[1] == height:
            yield rows, wide[:, rows]
        else:
            yield rows, _interpolate(wide, low[rows], high[rows], weight[rows], axis=1)


def _neighbours(
    size: int, wanted: int
) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float32]]:
    """For each of `wanted` cells the two of `size` that it lies between; the second's weight."""
    positions = ((np.arange(wanted) + 0.5) * (size / wanted) - 0.5).clip(0, size - 1)
    low = positions.astype(np.intp)
    return low, np.minimum(low + 1, size - 1), (positions - low).astype(np.float32)


def _interpolate(
    maps: NDArray[np.float32],
    low: NDArray[np.intp],
    high: NDArray[np.intp],
    weight: NDArray[np.float32],
    axis: int,
) -> NDArray[np.float32]:
    first = maps.take(low, axis)
    slope = maps.take(high, axis) - first
    slope *= weight.reshape(-1, *[1] * (2 - axis))
    first += slope
    return first
