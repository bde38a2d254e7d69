"""Two pictures of a run with true masks: what strokes mend, and what the least sure photos hide.

    pip install weakseg[bench]
    python benchmarks/plots.py --run runs/pixels --out docs/mending.png

Left, the mIoU of the least sure photos by strokes on each (as `strokes.py` simulates them, with the
CRF); right, that of all photos without the least sure ones, beside leaving out as many at random.
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from strokes import mend, true_mask
from weakseg.engine.opened import open_run
from weakseg.engine.reviewed import Reviewed
from weakseg.metrics import ConfusionMatrix
from weakseg.review.photos import Review

try:
    from matplotlib import pyplot
except ImportError:
    sys.exit("matplotlib is missing; install it with: pip install weakseg[bench]")

SHARES = tuple(share / 100 for share in range(0, 55, 5))
DRAWN = 20
"""Orders that are drawn to leave photos out at random."""


def without_first(review: Review, photos: Sequence[str]) -> list[float]:
    """mIoU in % of photos without the first 0, 5, ... 50 % of them."""
    figures = []
    matrix, left = ConfusionMatrix(review.run.classes), len(photos)
    for share in reversed(SHARES):
        kept = photos[round(share * len(photos)) : left]
        for photo in kept:
            matrix.update(true_mask(review, photo), review.base(photo))
        left -= len(kept)
        figures.append(100 * float(matrix.summary()["miou"]))
    return figures[::-1]


def draw(clicks: Sequence[float], surer: Sequence[float], random: np.ndarray, path: Path) -> None:
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(11, 4), layout="constrained")
    left.plot(clicks, "o-")
    left.set(xlabel="strokes on each of the least sure photos", ylabel="their mIoU, %")
    left.set_xticks(range(len(clicks)))
    shares = [100 * share for share in SHARES]
    right.plot(shares, surer, "o-", label="the least sure left out")
    right.plot(shares, random.mean(axis=0), color="gray", label="as many left out at random")
    right.fill_between(shares, random.min(axis=0), random.max(axis=0), color="gray", alpha=0.2)
    right.set(xlabel="photos left out, %", ylabel="mIoU of the others, %")
    right.legend()
    for axes in (left, right):
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=80)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", type=Path, required=True, help="a finished run's folder")
    parser.add_argument("--step", help="whose masks; by default the last")
    parser.add_argument("--photos", type=int, default=100, help="that get strokes")
    parser.add_argument("--strokes", type=int, default=5, help="on each photo")
    parser.add_argument("--out", type=Path, required=True, help="the picture, PNG")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        review = Review.of(open_run(arguments.run), arguments.step)
        review = replace(review, reviewed=Reviewed(Path(folder)))
        surer = without_first(review, review.order)
        rng = np.random.default_rng(0)
        random = [without_first(review, list(rng.permutation(review.order))) for _ in range(DRAWN)]
        chosen = review.order[: arguments.photos]
        clicks = mend(review, chosen, arguments.strokes, crf=True)
    print("without the least sure:", *(f"{figure:.1f}" for figure in surer))
    draw(clicks, surer, np.array(random), arguments.out)


if __name__ == "__main__":
    main()
