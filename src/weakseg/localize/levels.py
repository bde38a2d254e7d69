"""What values of a class's maps are low, and what high: thresholds without ground truth."""

from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

Rule = Literal["masks", "mixture", "otsu"]

_LEAST = 0.05
"""Values up to this are left out of a mixture (Yang et al. 2024): they are most, and all alike."""

_BINS = 128
_ROUNDS, _TOLERANCE = 100, 1e-3
_NARROWEST = 1e-6
"""Variance that is added to each Gaussian, as scikit-learn does."""


class Levels(NamedTuple):
    """Under `low` is background, over `high` the class; 0 < low <= high < 1."""

    low: float
    high: float


def count(
    values: NDArray[np.floating[Any]], belongs: NDArray[np.bool_] | None = None
) -> NDArray[np.int64]:
    """How many values there are of each size; what `find_levels` takes, and sums of it.

    Args:
        values: (N) in [0, 1], of a class's maps in photos that have the tag.
        belongs: (N), which of them are the class's by a mask.

    Returns:
        (2, 128): of those that aren't, or aren't known to be, and of those that are.

    Raises:
        ValueError: a value is not in [0, 1].
    """
    if not ((values >= 0) & (values <= 1)).all():
        raise ValueError("values are not all in [0, 1]")
    inside = np.zeros(len(values), bool) if belongs is None else belongs
    parts = [np.histogram(part, _BINS, (0.0, 1.0))[0] for part in (values[~inside], values[inside])]
    return np.stack(parts)


def find_levels(counts: NDArray[np.int64], rule: Rule) -> Levels:
    """The two thresholds of a class, without ground truth.

    Args:
        counts: (2, 128), see `count`.
        rule: `masks`: a third of what has the low value is the class's by masks, and two thirds of
            what has the high one (their shares made to rise by isotonic regression). By the values
            alone: `mixture` fits three Gaussians, that of the background, of the object and of what
            lies between (CoSA, Yang et al. 2024); a value belongs to the likeliest. `otsu` cuts
            into three so that the variance within each is least (Otsu 1979, section IV).

    Raises:
        ValueError: nothing was counted.
    """
    if not counts.any():
        raise ValueError("there are no values")
    edges = np.linspace(0, 1, _BINS + 1)
    centres = (edges[1:] + edges[:-1]) / 2
    if rule == "masks":
        found = _by_masks(counts, centres)
    else:
        find = _mixture if rule == "mixture" else _otsu
        found = find(counts.sum(axis=0).astype(float), centres)
    return Levels(*(float(np.clip(level, edges[1], edges[-2])) for level in found))


def _by_masks(counts: NDArray[np.int64], centres: NDArray[np.float64]) -> tuple[float, float]:
    from scipy.optimize import isotonic_regression

    total = counts.sum(axis=0)
    held = total > 0
    shares = isotonic_regression(counts[1, held] / total[held], weights=total[held]).x
    low, high = np.interp((1 / 3, 2 / 3), shares, centres[held])
    return float(low), float(high)


def _mixture(counts: NDArray[np.float64], centres: NDArray[np.float64]) -> tuple[float, float]:
    held = (centres > _LEAST) & (counts > 0)
    if not held.any():
        return _LEAST, _LEAST
    counts, centres = counts[held], centres[held]
    shares = counts / counts.sum()
    middle = min(int(np.searchsorted(shares.cumsum(), 0.5)), len(centres) - 1)
    means = centres[[0, middle, -1]]
    spread = np.full(3, max((shares * (centres - shares @ centres) ** 2).sum(), _NARROWEST))
    weights = np.full(3, 1 / 3)
    before = -np.inf
    for _ in range(_ROUNDS):
        odds = weights * np.exp(-((centres[:, None] - means) ** 2) / (2 * spread)) / spread**0.5
        total = odds.sum(axis=1, keepdims=True)
        belongs = odds / np.maximum(total, np.finfo(float).tiny)
        taken = shares @ belongs
        weights, safe = taken, np.maximum(taken, np.finfo(float).tiny)
        means = (shares[:, None] * belongs * centres[:, None]).sum(axis=0) / safe
        squares = (centres[:, None] - means) ** 2
        spread = (shares[:, None] * belongs * squares).sum(axis=0) / safe + _NARROWEST
        likelihood = shares @ np.log(np.maximum(total[:, 0], np.finfo(float).tiny))
        if likelihood - before < _TOLERANCE:
            break
        before = likelihood
    lowest, _, highest = means.argsort()
    likeliest = belongs.argmax(axis=1)
    low = centres[likeliest == lowest].max(initial=_LEAST)
    high = centres[likeliest == highest].min(initial=centres[-1])
    return float(low), float(max(low, high))


def _otsu(counts: NDArray[np.float64], centres: NDArray[np.float64]) -> tuple[float, float]:
    weights = np.concatenate([[0], np.cumsum(counts)])
    sums = np.concatenate([[0], np.cumsum(counts * centres)])
    count = len(counts)

    def between(first: Any, last: Any) -> Any:
        weight = weights[last] - weights[first]
        return (sums[last] - sums[first]) ** 2 / np.where(weight > 0, weight, 1)

    one, other = np.triu_indices(count + 1)
    variance = between(0, one) + between(one, other) + between(other, count)
    best = int(variance.argmax())
    return float(one[best]) / count, float(other[best]) / count
