"""Maps spread over cells of like features: the affinities of a frozen backbone as a random walk.

Source:
    The affinity is the ReLU-cosine of SEAM's pixel correlation module (Wang et al. 2020), its
    powers normalised as IRN's transition matrix (Ahn et al. 2019), between all cells of a photo
    instead of those nearby.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from weakseg.refine.settings import SpreadSettings

__all__ = ["SpreadSettings", "spread"]

_BLOCK = 2**24
"""Affinities that are held at a time: 64 MB."""


def spread(
    maps: NDArray[np.floating[Any]],
    features: NDArray[np.floating[Any]],
    settings: SpreadSettings,
    device: str = "cpu",
) -> NDArray[np.float32]:
    """Let maps walk between the cells of a photo that look alike.

    Every cell takes the mean of all cells, weighed by their affinity max(cosine, 0)^power, `steps`
    times; one that is as the mean of all keeps its own. The affinities are computed for a block of
    cells at a time, anew in each step, where they would exceed some 64 MB.

    Args:
        maps: (K, h, w) in [0, 1], a row for each of a photo's tags.
        features: (D, h, w), of any scale: they are z-scored by channel.
        settings: the power, the steps, and how sharp the maps begin.
        device: where it is computed, as torch names it.

    Returns:
        float32 (K, h, w) in [0, 1], each class over its maximum; 0 where its map is.

    Raises:
        ValueError: shapes that don't fit, or a value that is not finite.

    Examples:
        >>> import numpy as np, weakseg
        >>> features = np.array([[[0, 0, 0, 5, 5, 5]], [[7, 7, 7, 1, 1, 1]]])  # two things
        >>> cam = np.array([[[0.9, 0.1, 0, 0, 0, 0]]], np.float32)
        >>> weakseg.spread(cam, features, weakseg.SpreadSettings()).round(3).tolist()
        [[[1.0, 1.0, 1.0, 0.0, 0.0, 0.0]]]
    """
    if maps.ndim != 3 or features.ndim != 3 or maps.shape[1:] != features.shape[1:]:
        raise ValueError(
            f"maps have shape {maps.shape} and features {features.shape}; expected (K, h, w) and "
            "(D, h, w)"
        )
    if not (np.isfinite(maps).all() and np.isfinite(features).all()):
        raise ValueError("maps or features hold NaN or infinity; all values must be finite")
    cells = maps.shape[1] * maps.shape[2]
    start = maps.reshape(len(maps), cells).T.astype(np.float32) ** settings.sharpening
    walked = _walk(start, _directions(features), settings, device).T.reshape(maps.shape)
    peaks = walked.max(axis=(1, 2), initial=0, keepdims=True)
    walked /= np.where(peaks > 0, peaks, 1)
    return walked


def _directions(features: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
    """Float32 (cells, D) of length 1, or 0 where a cell is as the mean of all."""
    cells = features.reshape(len(features), -1).T.astype(np.float32)
    cells -= cells.mean(axis=0)
    deviations = cells.std(axis=0)
    cells /= np.where(deviations > 0, deviations, 1)
    lengths = np.linalg.norm(cells, axis=1, keepdims=True)
    cells /= np.where(lengths > 0, lengths, 1)
    return cells


def _walk(
    maps: NDArray[np.float32],
    directions: NDArray[np.float32],
    settings: SpreadSettings,
    device: str,
) -> NDArray[np.float32]:
    if device != "cpu":
        import torch

        start, there = (torch.from_numpy(array).to(device) for array in (maps, directions))
        walked: NDArray[np.float32] = _steps(start, there, settings).cpu().numpy()
        return walked
    found: NDArray[np.float32] = _steps(maps, directions, settings)
    return found


def _steps(maps: Any, directions: Any, settings: SpreadSettings) -> Any:
    """The walk, in what arrays of numpy and tensors have in common."""
    rows = max(1, _BLOCK // len(directions))
    blocks = [slice(i, i + rows) for i in range(0, len(directions), rows)]
    kept = _transitions(directions, blocks[0], settings.power) if len(blocks) == 1 else None
    for _ in range(settings.steps):
        before, maps = maps, maps * 0
        for block in blocks:
            shares, alone = kept or _transitions(directions, block, settings.power)
            maps[block] = shares @ before + alone * before[block]
    return maps


def _transitions(directions: Any, block: slice, power: float) -> tuple[Any, Any]:
    """What a block of cells takes of every cell, (rows, cells), and if that's nothing (rows, 1)."""
    affinities = (directions[block] @ directions.T).clip(min=0) ** power
    totals = affinities.sum(axis=1)[:, None]
    alone = totals == 0
    return affinities / (totals + alone), alone
