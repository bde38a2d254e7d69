"""A mask mended by strokes: a person's word for some pixels, carried to what belongs with them.

Labels are any numbers from 0, such as mask ids; -1 is uncertain.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy.ndimage import distance_transform_edt, find_objects, uniform_filter

from weakseg.grid import GRID_STRIDE, upsample
from weakseg.refine.settings import CRFSettings

__all__ = ["Mender", "Stroke", "drawn"]

_MOST_CELLS = 160
"""Of a photo's longer side, where what a stroke means is worked out."""

_COLOURS = 16
"""Of the cells under a stroke, with which others are compared."""

_NEAR = 16
"""Pixels within which a stroke is near."""

_REACH = 16
"""Pixels around what has changed that the CRF may change as well."""

_MOST_PIXELS = 1024
"""Of a photo's longer side, where the CRF works."""

_MOST_ODDS = 4.0
"""Log odds at which the CRF takes a label for granted."""

_WEIGHTS = {
    (True, True): np.array([-0.22, 1.23, 2.13, 1.75, 0.74, 0.43, -0.83], np.float32),
    (True, False): np.array([-0.17, 1.05, 2.03, 2.26, -1.95], np.float32),
    (False, True): np.array([-0.86, 1.30, -1.30, 0.68, 0.50, 0.70], np.float32),
    (False, False): np.array([-0.84, 1.25, -1.08, -0.14], np.float32),
}
"""Coefficients of `Mender.evidence`, the constant last, with features or not, with scores or not.

Fitted on four simulated strokes on each of 47 VOC photos (docs/benchmarks.md).
"""


@dataclass(frozen=True)
class Stroke:
    """A line drawn with a class in hand.

    Attributes:
        label: what its pixels are, from 0.
        points: (x, y) of the line's corners, in pixels; one is a dot.
        radius: of the brush, in pixels.
    """

    label: int
    points: tuple[tuple[float, float], ...]
    radius: float


def drawn(stroke: Stroke, height: int, width: int) -> NDArray[np.bool_]:
    """The pixels under a stroke, bool (H, W); of one beyond the photo's edge there are none."""
    picture = Image.new("1", (width, height))
    draw, radius = ImageDraw.Draw(picture), stroke.radius
    draw.line(stroke.points, fill=1, width=max(1, round(2 * radius)))
    for x, y in stroke.points:
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=1)
    return np.array(picture)


class Mender:
    """A photo's mask, ready to be mended again and again, as strokes come and go.

    For every stroke and cell it asks whether the cell belongs with what the stroke lies on: by the
    likeness of the backbone's features (or of colours), by what the scores say of the stroke's
    class there and under the stroke, by how far it is, and by whether the mask has both alike. A
    logistic regression weighs these. What no stroke claims stays as it is, pixel for pixel.

    Args:
        photo: uint8 (H, W, 3), RGB.
        labels: integers (H, W), what the mask is without strokes.
        levels: features (D, h, w) of any sizes, the deepest last; there may be none.
        scores: float32 (h, w) of any size, by label, that the mask came of; there may be none, or
            some labels without.

    Attributes:
        stride: pixels a cell, on which `evidence` is.

    Raises:
        ValueError: the labels are of another size than the photo.
    """

    def __init__(
        self,
        photo: NDArray[np.uint8],
        labels: NDArray[np.integer[Any]],
        levels: Sequence[NDArray[np.floating[Any] | np.uint8]] = (),
        scores: Mapping[int, NDArray[np.float32]] | None = None,
    ) -> None:
        if photo.shape[:2] != labels.shape:
            raise ValueError(f"the photo has the size {photo.shape[:2]}; the mask {labels.shape}")
        self._photo, self._labels = photo, labels.astype(np.int16)
        self._height, self._width = labels.shape
        self.stride = max(GRID_STRIDE, -(-max(labels.shape) // _MOST_CELLS))
        self._coarse = self._labels[:: self.stride, :: self.stride]
        self._size = self._coarse.shape
        self._levels = [(_directions(level), level.shape[1:]) for level in levels]
        self._colours = None if levels else _smooth(photo, self.stride)
        self._scores = self._normalised(scores or {})
        self._weights = _WEIGHTS[bool(levels), bool(scores)]
        self._known: dict[Stroke, NDArray[np.float32] | None] = {}

    def mend(self, strokes: Sequence[Stroke], crf: CRFSettings | None = None) -> NDArray[np.int16]:
        """Labels (H, W) of the mask with some strokes, the later over the earlier.

        Args:
            crf: draws what has changed along the photo's edges; None: it stays as the cells have
                it.
        """
        labels = self._labels.copy()
        claims = self._claims(strokes)
        if claims:
            names = np.array([*claims], np.int16)
            odds = upsample(np.stack([*claims.values()]), self._height, self._width)
            own = np.where(self._labels == names[:, None, None], odds, 0).max(axis=0)
            best = odds.argmax(axis=0)
            won = np.take_along_axis(odds, best[None], 0)[0] > np.maximum(own, 0)
            labels = np.where(won, names[best], labels)
            if crf is not None and won.any():
                labels = self._along_edges(labels, won, names, odds, crf)
        for stroke in strokes:
            labels[drawn(stroke, self._height, self._width)] = stroke.label
        return labels

    def evidence(self, stroke: Stroke) -> NDArray[np.float32] | None:
        """What the odds of a stroke are weighed of, (E, h, w); None if it lies beside the photo."""
        rows, columns = np.nonzero(drawn(stroke, self._height, self._width))
        if not len(rows):
            return None
        under = np.zeros(self._size, bool)
        under[rows // self.stride, columns // self.stride] = True
        names, counts = np.unique(self._coarse[under], return_counts=True)
        same = self._coarse == names[counts.argmax()]
        pixels = distance_transform_edt(~under) * self.stride
        terms = [np.log1p(pixels / _NEAR), same]
        likeness = [self._likeness(rows, columns, *level) for level in self._levels]
        if likeness:
            terms += [np.mean(likeness[:-1] or likeness, axis=0), likeness[-1]]
        if self._colours is not None:
            under_it = self._colours[under][:: -(-under.sum() // _COLOURS)]
            apart = np.linalg.norm(self._colours[:, :, None] - under_it, axis=-1)
            terms.append(apart.min(axis=-1))
        if self._scores:
            more = self._scored_over_own(stroke.label)
            terms += [more, more - more[under].mean()]
        return np.stack(terms).astype(np.float32)

    def _claims(self, strokes: Sequence[Stroke]) -> dict[int, NDArray[np.float32]]:
        """Log odds (h, w) that a cell is of a label, by the label's strokes."""
        self._known = {stroke: self._known[stroke] for stroke in strokes if stroke in self._known}
        found: dict[int, NDArray[np.float32]] = {}
        for stroke in strokes:
            if stroke not in self._known:
                self._known[stroke] = self._odds(stroke)
            odds = self._known[stroke]
            if odds is not None:
                known = found.get(stroke.label)
                found[stroke.label] = odds if known is None else np.maximum(known, odds)
        return found

    def _odds(self, stroke: Stroke) -> NDArray[np.float32] | None:
        evidence = self.evidence(stroke)
        if evidence is None:
            return None
        odds: NDArray[np.float32] = np.tensordot(self._weights[:-1], evidence, 1)
        odds += self._weights[-1]
        return odds

    def _normalised(
        self, scores: Mapping[int, NDArray[np.float32]]
    ) -> dict[int, NDArray[np.float32]]:
        """Scores on the cells, of any run's scale."""
        if not scores:
            return {}
        found = upsample(np.stack([*scores.values()]), *self._size)
        found = (found - found.mean()) / (found.std() + np.float32(1e-6))
        return dict(zip(scores, found, strict=True))

    def _scored_over_own(self, name: int) -> NDArray[np.float32]:
        """How far a label's score is over that of what the mask has; 0 where either is unknown."""
        more = np.zeros(self._size, np.float32)
        if name in self._scores:
            for other, its in self._scores.items():
                here = self._coarse == other
                more[here] = (self._scores[name] - its)[here]
        return more

    def _likeness(
        self,
        rows: NDArray[np.intp],
        columns: NDArray[np.intp],
        directions: NDArray[np.float32],
        size: tuple[int, int],
    ) -> NDArray[np.float32]:
        """Cosines (h, w) with the mean of the features under a stroke."""
        cells = rows * size[0] // self._height * size[1] + columns * size[1] // self._width
        counts = np.bincount(cells, minlength=directions.shape[1]).astype(np.float32)
        mean: NDArray[np.float32] = directions @ counts
        mean /= np.linalg.norm(mean) + np.float32(1e-6)
        cosines: NDArray[np.float32] = mean @ directions
        found: NDArray[np.float32] = upsample(cosines.reshape(1, *size), *self._size)[0]
        return found

    def _along_edges(
        self,
        labels: NDArray[np.int16],
        won: NDArray[np.bool_],
        names: NDArray[np.int16],
        odds: NDArray[np.float32],
        settings: CRFSettings,
    ) -> NDArray[np.int16]:
        """The mended labels by the dense CRF, near what was won alone."""
        from weakseg.refine.crf import dense_crf, unary_from_scores

        near = distance_transform_edt(~won) <= _REACH
        place = find_objects(near.astype(np.uint8))[0]
        step = -(-max(labels.shape) // _MOST_PIXELS)
        seen = tuple(slice(part.start, part.stop, step) for part in place)
        own, some = self._labels[seen], odds[:, *seen]
        everyone = np.unique(np.concatenate([names, own.ravel()]))
        everyone = everyone[everyone >= 0]
        scores = np.empty((len(everyone), *own.shape), np.float32)
        for row, name in enumerate(everyone):
            claimed = some[names == name].max(axis=0, initial=-np.inf)
            scores[row] = np.where(own == name, np.maximum(claimed, 0), claimed)
        scores = np.maximum(scores, scores.max(axis=0) - _MOST_ODDS)
        photo = np.ascontiguousarray(self._photo[seen])
        refined = dense_crf(photo, unary_from_scores(scores), settings.scaled(1 / step))
        shape = labels[place].shape
        followed = everyone[upsample(refined, *shape).argmax(axis=0)]
        labels = labels.copy()
        labels[place] = np.where(near[place], followed, labels[place])
        return labels


def _directions(features: NDArray[np.floating[Any] | np.uint8]) -> NDArray[np.float32]:
    """Float32 (D, cells): z-scored by channel, each cell of length 1."""
    cells = features.reshape(len(features), -1).astype(np.float32)
    cells -= cells.mean(axis=1, keepdims=True)
    cells /= cells.std(axis=1, keepdims=True) + np.float32(1e-6)
    cells /= np.linalg.norm(cells, axis=0) + np.float32(1e-6)
    return cells


def _smooth(photo: NDArray[np.uint8], stride: int) -> NDArray[np.float32]:
    """Colours (h, w, 3) in [0, 1], the mean around every cell."""
    means: NDArray[np.float32] = uniform_filter(photo.astype(np.float32) / 255, (stride, stride, 1))
    return means[::stride, ::stride]
