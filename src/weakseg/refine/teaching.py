"""What some masks teach all others: least squares from features to classes, before and after.

A linear head on the features of cells of 16 pixels learns the masks of all photos. With the masks
of a few photos put right it learns something else, and where it has changed its mind the other
masks change as well. Sums of products are all that is kept of a photo.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from weakseg.data.masks import IGNORE
from weakseg.grid import CELL, upsample

_SAMPLED = 4
"""Places along a cell's side at which its mask is looked up."""

_RIDGE = 1e-3
"""Of a feature's variance, added to it."""

_LACKING = 1e-3
"""A mask with a smaller share of a class lacks it."""

_DOUBTED = 0.02
"""What the background of a mask counts that lacks one of its tags: some of it is of that class."""


@dataclass(frozen=True)
class Lesson:
    """Sums over the cells of some photos; lessons can be added and weighed.

    Attributes:
        gram: float64 (D + 1, D + 1), of products of features, behind which there is a 1.
        moments: float64 (D + 1, C + 1), of products of features and classes' shares.
    """

    gram: NDArray[np.float64]
    moments: NDArray[np.float64]

    def __add__(self, other: "Lesson") -> "Lesson":
        return Lesson(self.gram + other.gram, self.moments + other.moments)

    def __mul__(self, weight: float) -> "Lesson":
        return Lesson(self.gram * weight, self.moments * weight)

    def learned(self) -> NDArray[np.float32]:
        """The head, float32 (D + 1, C + 1): by least squares with a small ridge."""
        count = max(self.gram[-1, -1], 1e-9)
        mean = self.gram[-1, :-1] / count
        variance = np.maximum(np.diag(self.gram)[:-1] / count - mean**2, 1e-9)
        ridge = np.append(_RIDGE * count * variance, 1e-9)
        found = np.linalg.solve(self.gram + np.diag(ridge), self.moments)
        return found.astype(np.float32)


def cells_of(
    levels: Sequence[NDArray[np.floating[Any] | np.uint8]], height: int, width: int
) -> NDArray[np.float32]:
    """Features (cells, D + 1) of a photo's cells, a 1 behind them.

    Args:
        levels: (D, h, w) of any sizes, each covering the whole photo.
        height, width: the photo's.

    Returns:
        Means of what falls into a cell, or, of coarser maps, bilinear.
    """
    size = _grid(height, width)
    maps = [_resized(level.astype(np.float32), *size) for level in levels]
    cells = np.concatenate([*maps, np.ones((1, *size), np.float32)])
    return cells.reshape(len(cells), -1).T


def _resized(level: NDArray[np.float32], height: int, width: int) -> NDArray[np.float32]:
    """A map at another size: means where it shrinks, else bilinear."""
    if level.shape[1] < height or level.shape[2] < width:
        return upsample(level, height, width)
    for axis, wanted in ((1, height), (2, width)):
        starts = np.arange(wanted) * level.shape[axis] // wanted
        counts = np.diff(starts, append=level.shape[axis]).astype(np.float32)
        sums = np.add.reduceat(level, starts, axis)
        level = sums / (counts[:, None] if axis == 1 else counts)
    return level


def background_trust(mask: NDArray[np.uint8], class_ids: Sequence[int]) -> float:
    """What a mask's background counts, 1 unless the mask lacks one of the classes.

    Args:
        mask: uint8 (H, W).
        class_ids: what the photo shows by its tags, and what somebody has shown what it looks like.
    """
    return _DOUBTED if any((mask == name).mean() < _LACKING for name in class_ids) else 1.0


def lesson_of(
    cells: NDArray[np.float32], mask: NDArray[np.uint8], classes: int, background: float = 1.0
) -> Lesson:
    """What a photo's mask teaches.

    Args:
        cells: its features, as `cells_of` gives them.
        mask: uint8 (H, W) of ids up to `classes`; 255 teaches nothing.
        classes: C.
        background: what its background counts beside the classes.
    """
    height, width = _grid(*mask.shape)
    rows, columns = (
        (np.arange(side * _SAMPLED) + 0.5) * whole / (side * _SAMPLED)
        for side, whole in zip((height, width), mask.shape, strict=True)
    )
    sampled = mask[np.ix_(rows.astype(int), columns.astype(int))]
    blocks = (
        sampled.reshape(height, _SAMPLED, width, _SAMPLED)
        .swapaxes(1, 2)
        .reshape(height * width, -1)
    )
    shares = np.zeros((len(blocks), classes + 1), np.float32)
    for name in np.unique(blocks[blocks != IGNORE]):
        shares[:, name] = (blocks == name).mean(axis=1)
    shares *= 1 - (1 - background) * shares[:, :1]
    known = shares.sum(axis=1, keepdims=True)
    weighed = cells * known
    return Lesson((cells.T @ weighed).astype(np.float64), (cells.T @ shares).astype(np.float64))


def follow(
    cells: NDArray[np.float32],
    before: NDArray[np.float32],
    after: NDArray[np.float32],
    mask: NDArray[np.uint8],
    class_ids: Sequence[int],
    background: float = 1.0,
) -> NDArray[np.uint8]:
    """A photo's mask, changed where a head has changed its mind.

    A cell goes from one class to another where the shares of both have changed by over 1 in sum, of
    2; from a background that counts less by less, and from one that counts nothing to what the head
    says now, whatever it said.

    Args:
        cells: its features, as `cells_of` gives them.
        before, after: the head as it was and as it is.
        mask: uint8 (H, W).
        class_ids: of the photo's tags: what it can have beside background.
        background: what the mask's counts beside the classes.

    Returns:
        uint8 (H, W).
    """
    height, width = mask.shape
    names = np.array([0, *class_ids])
    now, was = (
        upsample((cells @ head[:, names]).T.reshape(-1, *_grid(height, width)), height, width)
        for head in (after, before)
    )
    trust = np.where(mask == 0, np.float32(background), np.float32(1))
    scores = now + trust * ((mask == names[:, None, None]) - was)
    found = names[scores.argmax(axis=0)].astype(np.uint8)
    return np.where(mask == IGNORE, mask, found)


def _grid(height: int, width: int) -> tuple[int, int]:
    return -(-height // CELL), -(-width // CELL)
