"""Segmentation metrics from one accumulated confusion matrix."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from weakseg.data.masks import BACKGROUND, IGNORE
from weakseg.grid import upsampled_bands

_BAND = 2**20  # pixels that are counted at once: as int64 they take eight times a mask's memory


@dataclass
class ConfusionMatrix:
    """Pixel counts over a set of masks; ids 0 (background) to C, ground truth 255 ignored.

    A predicted 255 is no answer: it is counted against the true class and for no other.

    Attributes:
        classes: names of ids 1 to C.
        counts: int64 (C+1, C+2); row = true id, column = predicted id, last column = no answer.
        images: number of masks added.

    Examples:
        >>> import numpy as np, weakseg
        >>> matrix = weakseg.ConfusionMatrix(("cat",))
        >>> matrix.update(np.array([[0, 1, 1, 255]], np.uint8), np.array([[0, 1, 0, 1]], np.uint8))
        >>> matrix.summary()["per_class"]
        {'background': 0.5, 'cat': 0.5}
    """

    classes: Sequence[str]
    counts: NDArray[np.int64] = field(init=False)
    images: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        ids = len(self.classes) + 1
        self.counts = np.zeros((ids, ids + 1), np.int64)

    @classmethod
    def of(cls, classes: Sequence[str], counts: NDArray[np.int64]) -> "ConfusionMatrix":
        """One of a single mask's counts."""
        found = cls(classes)
        found.counts, found.images = counts, 1
        return found

    def update(self, truth: NDArray[np.uint8], prediction: NDArray[np.uint8]) -> None:
        """Add one pair of masks, uint8 (H, W).

        Raises:
            ValueError: masks of two sizes, or ids over C other than 255; the message has the ids.
        """
        if truth.shape != prediction.shape:
            raise ValueError(
                f"the prediction is {_size(prediction)} pixels, the ground truth {_size(truth)}"
            )
        ids = len(self.classes) + 1
        pairs = np.zeros((256, 256), np.int64)
        step = max(1, _BAND // max(1, truth.shape[1]))
        for first in range(0, len(truth), step):
            rows = slice(first, first + step)
            pair = truth[rows].astype(np.uint16) << 8 | prediction[rows]
            pairs += np.bincount(pair.ravel(), minlength=pairs.size).reshape(pairs.shape)
        for name, axis in (("ground truth", 1), ("prediction", 0)):
            seen = np.flatnonzero(pairs.any(axis=axis))
            if strange := seen[(seen >= ids) & (seen != IGNORE)].tolist():
                raise ValueError(
                    f"the {name} has the ids {strange}; expected 0 to {ids - 1}, and {IGNORE}"
                )
        self.counts += pairs[:ids, [*range(ids), IGNORE]]
        self.images += 1

    def without(self, dropped: Collection[str]) -> "ConfusionMatrix":
        """The counts of a set that lacks some of the classes: their pixels are background."""
        kept = [name for name in self.classes if name not in dropped]
        found = ConfusionMatrix(kept)
        ids = np.array([0, *(0 if n in dropped else kept.index(n) + 1 for n in self.classes)])
        np.add.at(found.counts, (ids[:, None], [*ids, len(kept) + 1]), self.counts)
        found.images = self.images
        return found

    def iou(self) -> NDArray[np.float64]:
        """Intersection over union of ids 0 to C; NaN where an id is in no mask of either kind."""
        hits = np.diag(self.counts).astype(np.float64)
        union = self.counts.sum(axis=1) + self.counts[:, :-1].sum(axis=0) - hits
        return _divide(hits, union)

    def summary(self) -> dict[str, Any]:
        """mIoU, mean accuracy, pixel accuracy and IoU per class, each in [0, 1].

        Means are over the ids that occur (background included). A figure that nothing defines is
        None.
        """
        hits = np.diag(self.counts).astype(np.float64)
        accuracy = _divide(hits, self.counts.sum(axis=1))
        iou = self.iou()
        names = (BACKGROUND, *self.classes)
        return {
            "images": self.images,
            "miou": _mean(iou),
            "mean_accuracy": _mean(accuracy),
            "pixel_accuracy": _mean(_divide(hits.sum(keepdims=True), self.counts.sum())),
            "per_class": {
                name: None if np.isnan(value) else float(value)
                for name, value in zip(names, iou, strict=True)
            },
        }


def best_overlaps(truth: NDArray[np.uint8], prediction: NDArray[np.uint8]) -> NDArray[np.float64]:
    """For every true object the IoU with the predicted object that overlaps it best.

    Their mean is the Average Best Overlap (ABO; Uijlings et al. 2013, section 5), here over
    objects of all classes together.

    Args:
        truth: uint8 (H, W), 0 background, 1 to 254 the objects, 255 ignored.
        prediction: likewise, of any number of objects.

    Returns:
        float64, of as many as there are true objects, by their ids; 0 where nothing overlaps.
    """
    pairs = ConfusionMatrix([str(number) for number in range(1, IGNORE)])
    pairs.update(truth, prediction)
    shared = pairs.counts[:, :-1]
    true_pixels, found_pixels = pairs.counts.sum(axis=1, keepdims=True), shared.sum(axis=0)
    iou = _divide(shared, true_pixels + found_pixels - shared)
    is_object = true_pixels[1:, 0] > 0
    best: NDArray[np.float64] = iou[1:, 1:][is_object].max(axis=1, initial=0)
    return best


class ThresholdCounts(NamedTuple):
    """One photo's confusion counts at T thresholds: of many classes, a photo has few.

    Attributes:
        ids: the R true ids that occur, ascending.
        counts: int64 (T, R, K+1); column 0 is the background, k the k-th of the photo's tags.
    """

    ids: NDArray[np.intp]
    counts: NDArray[np.int64]


def sweep_thresholds(
    truth: NDArray[np.uint8], cam: NDArray[np.float32], thresholds: NDArray[np.float32]
) -> ThresholdCounts:
    """Confusion counts of a CAM's mask at every threshold, in one pass over the pixels.

    Args:
        truth: uint8 (H, W), 255 ignored.
        cam: float32 (K, h, w), on the grid.
        thresholds: ascending, T of them; a pixel is background where its CAM is not over it.
    """
    shape = IGNORE + 1, len(cam) + 1, len(thresholds) + 1
    by_bin = np.zeros(shape, np.int64)
    for rows, band in upsampled_bands(cam, *truth.shape):
        winner = band.argmax(axis=0) + 1 if len(band) else 0
        exceeded = np.searchsorted(thresholds, band.max(axis=0, initial=0), side="left")
        cells = (truth[rows].astype(np.intp) * shape[1] + winner) * shape[2] + exceeded
        by_bin += np.bincount(cells.ravel(), minlength=by_bin.size).reshape(shape)
    ids = np.flatnonzero(by_bin[:IGNORE].any(axis=(1, 2)))
    by_bin = by_bin[ids]
    at_least = by_bin[..., ::-1].cumsum(axis=-1)[..., ::-1]
    counts = np.moveaxis(at_least[..., 1:], -1, 0).copy()
    counts[..., 0] += by_bin.sum(axis=(1, 2)) - counts.sum(axis=2)
    return ThresholdCounts(ids, counts)


def _divide(top: NDArray[Any], bottom: Any) -> NDArray[np.float64]:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(top / bottom, np.float64)


def _mean(values: NDArray[np.float64]) -> float | None:
    return None if np.isnan(values).all() else float(np.nanmean(values))


def _size(mask: NDArray[np.uint8]) -> str:
    return " by ".join(str(side) for side in mask.shape)
