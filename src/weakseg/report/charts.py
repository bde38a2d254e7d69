"""What the page draws: numbers aggregated, and the points of lines."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

MOST_CLASSES = 40
"""Classes of which a confusion matrix is drawn; of more, the pairs that are confused most."""

_MOST_PAIRS = 30
_WIDTH, _HEIGHT = 150, 56


class Confusions(NamedTuple):
    """Pixels of one class that a mask gives to another.

    Attributes:
        names: of the rows, the true classes; of the columns as well, behind which is "none".
        shares: of each true class's pixels, what goes where; empty of many classes.
        pairs: true class, other class, share: the worst.
    """

    names: list[str]
    shares: list[list[float]]
    pairs: list[tuple[str, str, float]]


class Curve(NamedTuple):
    """One figure of a training, by epoch."""

    step: str
    figure: str
    values: list[float]
    points: str


def confusions(counts: NDArray[np.int64], names: Sequence[str]) -> Confusions | None:
    """The confusion matrix (N, N+1) of N classes that occur, for people; None of no pixels."""
    occur = np.flatnonzero(counts.sum(axis=1)).tolist()
    if not occur:
        return None
    shares = counts[occur] / counts[occur].sum(axis=1, keepdims=True)
    labels = [*names, "none"]
    others = shares.copy()
    others[np.arange(len(occur)), occur] = 0
    worst = np.argsort(-others, axis=None, kind="stable")[:_MOST_PAIRS]
    places = zip(*np.unravel_index(worst, others.shape), strict=True)
    pairs = [(names[occur[i]], labels[j], float(others[i, j])) for i, j in places]
    few = len(occur) <= MOST_CLASSES
    return Confusions(
        [names[i] for i in occur],
        shares[:, [*occur, -1]].tolist() if few else [],
        [pair for pair in pairs if pair[2] >= 0.005],
    )


def curves_of(step: str, content: Any) -> Iterator[Curve]:
    """The curves in a training's figures: lists of epochs, wherever they are in it."""
    if not isinstance(content, dict):
        return
    for key, value in content.items():
        if key != "epochs" or not isinstance(value, list):
            yield from curves_of(f"{step} {key}" if key not in step.split() else step, value)
            continue
        if not all(isinstance(epoch, dict) for epoch in value):
            continue
        for figure in dict.fromkeys(name for epoch in value for name in epoch if name != "epoch"):
            values = [epoch.get(figure) for epoch in value]
            numbers = [float(v) for v in values if isinstance(v, int | float)]
            if len(numbers) == len(values) > 1:
                yield Curve(step, figure, numbers, line(numbers, _WIDTH, _HEIGHT))


def line(values: Sequence[float | None], width: float, height: float) -> str:
    """The points of a line through values, as SVG has them: highest at 0, lowest at `height`."""
    known = [value for value in values if value is not None]
    low, high = min(known, default=0.0), max(known, default=0.0)
    span = (high - low) or 1.0
    across = width / max(1, len(values) - 1)
    return " ".join(
        f"{i * across:.1f},{height * (high - value) / span:.1f}"
        for i, value in enumerate(values)
        if value is not None
    )
