"""How sure a mask is, without a true one: by the scores behind it, and by other masks of its photo.

What a mask's own scores and its agreement with others tell of its IoU is known from MetaSeg
(Rottmann et al. 2020); nothing is fitted here, so that no true mask is needed.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from weakseg.data.masks import IGNORE

MARGIN = 6.0
"""The mean margin to which scores are scaled: of maps in [0, 1] and of logits alike."""


def mean_margin(scores: NDArray[np.float32]) -> float:
    """By how much the highest of scores (K+1, h, w) is above the second, over all cells."""
    highest = np.partition(scores, -2, axis=0)[-2:]
    return float((highest[1] - highest[0]).mean())


def probabilities(scores: NDArray[np.float32], margin: float) -> NDArray[np.float32]:
    """The softmax of scores (K+1, h, w), scaled as if `margin`, their mean one, were `MARGIN`."""
    scaled = (scores - scores.max(axis=0)) * (MARGIN / max(margin, 1e-6))
    weights = np.exp(scaled)
    found: NDArray[np.float32] = weights / weights.sum(axis=0)
    return found


def mask_confidence(
    mask: NDArray[np.uint8],
    class_ids: Sequence[int],
    others: Sequence[NDArray[np.uint8]],
    probability: NDArray[np.float32] | None = None,
) -> list[float]:
    """How sure each class of a mask is, in [0, 1].

    It is p (s + a) / 2: p is the mean probability of the class in its mask, s the IoU of that
    probability and the cells where it is the highest (the sum of minima over that of maxima), and a
    the mean IoU of the mask and the other masks. Where there are no probabilities it is a, and
    where there are no other masks p s. A class without a pixel has 0.

    Args:
        mask: uint8 (H, W).
        class_ids: K ids, ascending.
        others: further masks of the photo, one at least unless there are probabilities; pixels
            that either mask leaves uncertain (255) don't count.
        probability: float32 (K+1, h, w) of any size, row 0 the background.

    Raises:
        ValueError: neither other masks nor probabilities.
    """
    if not others and probability is None:
        raise ValueError("nothing tells how sure the mask is")
    found = []
    for row, class_id in enumerate(class_ids, 1):
        region = mask == class_id
        if not region.any():
            found.append(0.0)
            continue
        agreement = [_agreement(mask, other, class_id) for other in others]
        if probability is None:
            found.append(float(np.mean(agreement)))
            continue
        sharpness = _sharpness(probability, row)
        known = (sharpness + float(np.mean(agreement))) / 2 if agreement else sharpness
        found.append(_mean_inside(probability[row], region) * known)
    return found


class Reliability(NamedTuple):
    """How well confidences tell IoUs: Spearman's rank correlation.

    Attributes:
        overall: over all pairs of a photo and a class.
        within_class: the mean over classes, by their number of pairs, of that within a class.
    """

    overall: float | None
    within_class: float | None


def reliability(
    confidence: NDArray[np.float64], iou: NDArray[np.float64], classes: NDArray[np.int64]
) -> Reliability:
    """Compare confidences (N) of masks with their IoUs (N), of pairs of a photo and a class.

    A correlation that is not defined (two pairs at most, or all alike) is None; it counts in no
    mean.
    """
    groups = [classes == class_id for class_id in np.unique(classes)]
    within = [(spearman(confidence[g], iou[g]), int(g.sum())) for g in groups]
    known = [(value, number) for value, number in within if value is not None]
    total = sum(number for _, number in known)
    mean = sum(value * number for value, number in known) / total if total else None
    return Reliability(spearman(confidence, iou), mean)


def spearman(one: NDArray[np.float64], other: NDArray[np.float64]) -> float | None:
    """The rank correlation of two rows of numbers, ties at their mean rank; None: not defined."""
    from scipy.stats import rankdata

    if len(one) < 3 or np.ptp(one) == 0 or np.ptp(other) == 0:
        return None
    return float(np.corrcoef(rankdata(one), rankdata(other))[0, 1])


def _agreement(mask: NDArray[np.uint8], other: NDArray[np.uint8], class_id: int) -> float:
    known = (mask != IGNORE) & (other != IGNORE)
    one, two = (mask == class_id) & known, (other == class_id) & known
    union = np.count_nonzero(one | two)
    return np.count_nonzero(one & two) / union if union else 0.0


def _sharpness(probability: NDArray[np.float32], row: int) -> float:
    """The IoU of a row of probabilities and the cells where it is the highest."""
    cells = probability.argmax(axis=0) == row
    shared = float(probability[row][cells].sum())
    union = float(probability[row].sum()) + np.count_nonzero(cells) - shared
    return shared / union if union else 0.0


def _mean_inside(probability: NDArray[np.float32], region: NDArray[np.bool_]) -> float:
    """The mean of a map (h, w) over a region (H, W), each of whose pixels is in a cell."""
    height, width = probability.shape
    rows, columns = np.nonzero(region)
    cells = rows * height // region.shape[0] * width + columns * width // region.shape[1]
    counts = np.bincount(cells, minlength=probability.size)
    return float(probability.ravel() @ counts / len(rows))
