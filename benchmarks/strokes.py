"""How much better masks get by simulated strokes, each in the largest wrong region.

    python benchmarks/strokes.py --run runs/pixels --photos 100 --strokes 5
    python benchmarks/strokes.py --run runs/pixels --photos 20 --strokes 3 --teach
    python benchmarks/strokes.py --run runs/pixels --photos 140 --skip 100 --strokes 4 --fit

What mends is what `weakseg review` uses. Of the photos that the run is least sure of, each gets a
stroke in its largest wrong region, is mended, and so on: only the choice of strokes knows the true
mask. A stroke is what a person would drag: the longest way through the region's inner part. With
`--teach` the masks of all other photos then follow, as by the page's button.
"""

import argparse
import itertools
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt, find_objects, label
from scipy.sparse import csr_array
from scipy.sparse.csgraph import dijkstra

from weakseg.data.images import read_photo
from weakseg.data.masks import IGNORE, write_mask
from weakseg.engine.opened import open_run
from weakseg.engine.reviewed import Reviewed
from weakseg.metrics import ConfusionMatrix
from weakseg.refine.strokes import Mender, Stroke
from weakseg.review.photos import Review
from weakseg.review.teaching import Teacher

LEAST = 100
"""Pixels of a wrong region that a person would mind."""


def largest_wrong(truth: NDArray[np.uint8], mask: NDArray[np.uint8]) -> Stroke | None:
    """A stroke in the largest connected region of one true class that the mask has wrong."""
    best: tuple[int, NDArray[np.bool_]] | None = None
    size = LEAST
    for name in np.unique(truth[truth != IGNORE]):
        regions, _ = label((truth == name) & (mask != name))
        sizes = np.bincount(regions.ravel())
        sizes[0] = 0
        if sizes.max() >= size:
            best, size = (int(name), regions == sizes.argmax()), int(sizes.max())
    if best is None:
        return None
    points, radius = inner_line(best[1])
    return Stroke(best[0], points, radius)


def inner_line(region: NDArray[np.bool_]) -> tuple[tuple[tuple[float, float], ...], float]:
    """(x, y) of a line through a region, from its innermost pixel, and the radius of a brush."""
    place = find_objects(region.astype(np.uint8))[0]
    inside = np.pad(region[place], 1)
    depth = distance_transform_edt(inside)
    core = depth >= depth.max() / 2
    parts, _ = label(core, np.ones((3, 3)))
    start = np.unravel_index(depth.argmax(), depth.shape)
    core = parts == parts[start]
    numbers = np.full(core.shape, -1)
    numbers[core] = np.arange(core.sum())
    pairs = [
        (numbers[:, :-1], numbers[:, 1:]),
        (numbers[:-1], numbers[1:]),
        (numbers[:-1, :-1], numbers[1:, 1:]),
        (numbers[:-1, 1:], numbers[1:, :-1]),
    ]
    first, second = (np.concatenate([pair[i].ravel() for pair in pairs]) for i in (0, 1))
    known = (first >= 0) & (second >= 0)
    places = first[known], second[known]
    ways = csr_array((np.ones(known.sum()), places), shape=(core.sum(),) * 2)
    lengths, before = dijkstra(ways, False, int(numbers[start]), return_predecessors=True)
    way = [int(lengths.argmax())]
    while before[way[-1]] >= 0:
        way.append(int(before[way[-1]]))
    rows, columns = (part[way[:: -(-len(way) // 20)]] for part in np.nonzero(core))
    top, left = place[0].start - 1, place[1].start - 1
    points = tuple((float(x + left), float(y + top)) for y, x in zip(rows, columns, strict=True))
    return points, float(min(4, max(1, depth.max() / 2)))


def mend(review: Review, photos: Sequence[str], strokes: int, crf: bool) -> list[float]:
    """Mend photos by strokes, keep their masks, and print and give the mIoU of all, by strokes."""
    figures: list[float] = []
    found = [ConfusionMatrix(review.run.classes) for _ in range(strokes + 1)]
    seconds = []
    for number, photo in enumerate(photos, 1):
        true, mask = true_mask(review, photo), review.base(photo)
        mender = review.mender(photo)
        drawn: list[Stroke] = []
        found[0].update(true, mask)
        for after in found[1:]:
            if stroke := largest_wrong(true, mask):
                drawn.append(stroke)
                start = time.perf_counter()
                mask = review.mask_of(mender.mend(drawn, review.crf if crf else None))
                seconds.append(time.perf_counter() - start)
            after.update(true, mask)
        write_mask(review.reviewed.mended(photo), mask)
        if number % 10 == 0 or number == len(photos):
            figures = [100 * float(one.summary()["miou"]) for one in found]
            said = " ".join(f"{figure:.1f}" for figure in figures)
            print(f"{number} photos, mIoU after 0, 1, ... strokes: {said}", flush=True)
    median, most = np.median(seconds), np.quantile(seconds, 0.95)
    print(f"seconds a stroke: median {median:.2f}, p95 {most:.2f}")
    return figures


def teach(review: Review, photos: Sequence[str]) -> None:
    """Have the other photos follow, and print their figures before and after."""
    others = [photo for photo in review.order if photo not in photos]
    before = measured(review, others)
    taught = Teacher(review).teach()
    after = measured(review, others)
    print(f"mIoU of {len(others)} others: {before:.1f} before, {after:.1f} after")
    print(f"{len(taught.changed)} masks changed in {taught.seconds:.1f} s")


def fit(review: Review, photos: Sequence[str], strokes: int) -> None:
    """Print the coefficients of `weakseg.refine.strokes`, with and without features and scores.

    What they are fitted to: of cells that the mask has as another class than the stroke's, whether
    they are of that class. 500 cells a stroke; regions are put right one after another.
    """
    from sklearn.linear_model import LogisticRegression

    rng = np.random.default_rng(0)
    for with_features, with_scores in itertools.product((True, False), repeat=2):
        shown: list[NDArray[np.float32]] = []
        right: list[NDArray[np.bool_]] = []
        for photo in photos:
            true, mask = true_mask(review, photo), review.base(photo)
            pixels = read_photo(review.sample(photo).image)
            levels = review.levels(photo) if with_features else []
            scores = review.scores(photo) if with_scores else {}
            mender = Mender(pixels, mask.astype(np.int16), levels, scores)
            start, drawn = mask, list[Stroke]()
            while len(drawn) < strokes and (stroke := largest_wrong(true, mask)):
                drawn.append(stroke)
                evidence = mender.evidence(stroke)
                assert evidence is not None
                every = mender.stride
                cells = (true != IGNORE) & (start != stroke.label)
                chosen = np.flatnonzero(cells[::every, ::every])
                chosen = rng.choice(chosen, min(500, len(chosen)), replace=False)
                shown.append(evidence.reshape(len(evidence), -1)[:, chosen].T)
                right.append((true == stroke.label)[::every, ::every].ravel()[chosen])
                mask = review.mask_of(mender.mend(drawn))
        x, y = np.concatenate(shown), np.concatenate(right)
        found = LogisticRegression(max_iter=1000).fit(x, y)
        numbers = [*found.coef_[0].round(2).tolist(), round(float(found.intercept_[0]), 2)]
        print(f"features {with_features}, scores {with_scores}: {numbers}", flush=True)


def measured(review: Review, photos: Sequence[str]) -> float:
    matrix = ConfusionMatrix(review.run.classes)
    for photo in photos:
        matrix.update(true_mask(review, photo), review.base(photo))
    return 100 * float(matrix.summary()["miou"])


def true_mask(review: Review, photo: str) -> NDArray[np.uint8]:
    mask = review.sample(photo).mask
    if mask is None:
        raise SystemExit(f"{photo} has no true mask.")
    return mask.read()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", type=Path, required=True, help="a finished run's folder")
    parser.add_argument("--step", help="whose masks are mended; by default the last")
    parser.add_argument("--photos", type=int, default=100)
    parser.add_argument("--skip", type=int, default=0, help="of the least certain photos")
    parser.add_argument("--strokes", type=int, default=5, help="on each photo")
    parser.add_argument("--crf", action="store_true")
    parser.add_argument("--teach", action="store_true")
    parser.add_argument("--fit", action="store_true", help="print coefficients, and end")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        review = Review.of(open_run(arguments.run), arguments.step)
        review = replace(review, reviewed=Reviewed(Path(folder)))
        chosen = review.order[arguments.skip :][: arguments.photos]
        if arguments.fit:
            fit(review, chosen, arguments.strokes)
            return
        mend(review, chosen, arguments.strokes, arguments.crf)
        if arguments.teach:
            teach(review, chosen)


if __name__ == "__main__":
    main()
