"""Our dense CRF against pydensecrf2 on real photos: agreement, time and memory.

    pip install weakseg[bench]
    python benchmarks/crf.py --data VOC2012

The unaries come from smooth random fields, seeded, so that every photo can be run with any number
of classes. For each row of settings and number of classes:

1. Both label all photos; 99.5 % of the labels must be equal before anything is timed.
2. The first of them over all cores, wall time: ours by the executor that a run has, the peer by as
   many processes of one thread. The processes are there already; each reads the photo and makes
   the unary, and gives back the labels.
3. The same, one after the other on one thread, CPU time of nothing but the CRF, both in turn in one
   process; with it, what one call adds to the memory of a fresh process.
"""

import argparse
import multiprocessing
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from side_by_side import Row, added_mib, record, some_photos
from weakseg.data.images import read_photo
from weakseg.engine.executor import LocalExecutor
from weakseg.memory import cores_here
from weakseg.refine.crf import (
    CRFSettings,
    dense_crf,
    unary_from_labels,
    unary_from_probabilities,
)

try:
    from pydensecrf import densecrf
except ImportError:
    sys.exit("pydensecrf2 is missing; on Python 3.11 or 3.12: pip install weakseg[bench]")

PEER = "pydensecrf2"
SETTINGS = {
    "labels": CRFSettings(3, 3, 50, 5, 10),
    "probabilities": CRFSettings(3, 3, 80, 13, 10),
    "network": CRFSettings(1, 3, 67, 3, 4),
}
CLASSES = (2, 4, 8, 21)
REQUIRED_AGREEMENT = 0.995

Floats = NDArray[np.float32]
Labels = NDArray[np.uint8]
Crf = Callable[[NDArray[np.uint8], Floats, CRFSettings], Floats]


def peer_crf(image: NDArray[np.uint8], unary: Floats, settings: CRFSettings) -> Floats:
    n, height, width = unary.shape
    model = densecrf.DenseCRF2D(width, height, n)
    model.setUnaryEnergy(unary.reshape(n, -1))
    model.addPairwiseGaussian(
        sxy=settings.gaussian_sxy,
        compat=settings.gaussian_compat,
        kernel=densecrf.DIAG_KERNEL,
        normalization=densecrf.NORMALIZE_SYMMETRIC,
    )
    model.addPairwiseBilateral(
        sxy=settings.bilateral_sxy,
        srgb=settings.bilateral_srgb,
        rgbim=image,
        compat=settings.bilateral_compat,
        kernel=densecrf.DIAG_KERNEL,
        normalization=densecrf.NORMALIZE_SYMMETRIC,
    )
    return np.array(model.inference(settings.iterations)).reshape(unary.shape)


IMPLEMENTATIONS: tuple[Crf, Crf] = (dense_crf, peer_crf)


@dataclass(frozen=True)
class Problem:
    """A photo with a unary; `seed` draws it."""

    path: Path
    seed: int
    settings: str
    classes: int

    def arrays(self) -> tuple[NDArray[np.uint8], Floats]:
        image = read_photo(self.path)
        height, width = image.shape[:2]
        return image, make_unary(self.settings, self.classes, height, width, self.seed)


@dataclass(frozen=True)
class Labelling:
    """What a worker does with a problem."""

    crf: Crf

    def __call__(self) -> Callable[[Problem], Labels]:
        return self.label

    def label(self, problem: Problem) -> Labels:
        marginals = self.crf(*problem.arrays(), SETTINGS[problem.settings])
        labels: Labels = marginals.argmax(axis=0).astype(np.uint8)
        return labels


LabelAll = Callable[[Sequence[Problem]], Iterator[Labels]]


def make_unary(settings: str, n: int, height: int, width: int, seed: int) -> Floats:
    rng = np.random.default_rng(seed)
    coarse = rng.normal(0, 2, (n, height // 40 + 2, width // 40 + 2)).astype(np.float32)
    scores = np.stack(
        [
            np.asarray(Image.fromarray(field).resize((width, height), Image.Resampling.BICUBIC))
            for field in coarse
        ]
    )
    if settings == "labels":
        return unary_from_labels(scores.argmax(axis=0), n)
    numerator = np.exp(scores - scores.max(axis=0))
    return unary_from_probabilities(numerator / numerator.sum(axis=0))


@contextmanager
def folder_runs() -> Iterator[tuple[LabelAll, LabelAll]]:
    """Ours and the peer's way of labelling many photos on all cores."""
    spawn = multiprocessing.get_context("spawn")
    with LocalExecutor() as executor, spawn.Pool(cores_here()) as pool:
        yield (
            partial(executor.map, Labelling(dense_crf)),
            partial(pool.imap, Labelling(peer_crf).label),
        )


def agreement(problems: Sequence[Problem], ours: LabelAll, peers: LabelAll) -> float:
    same = total = 0
    for our_labels, peer_labels in zip(ours(problems), peers(problems), strict=True):
        same += int((our_labels == peer_labels).sum())
        total += our_labels.size
    return same / total


def wall_seconds(label_all: LabelAll, problems: Sequence[Problem]) -> float:
    start = time.perf_counter()
    for _ in label_all(problems):
        pass
    return time.perf_counter() - start


def cpu_seconds(problems: Sequence[Problem]) -> tuple[float, float]:
    seconds = dict.fromkeys(IMPLEMENTATIONS, 0.0)
    dense_crf(*problems[0].arrays(), SETTINGS[problems[0].settings])  # compiles
    for index, problem in enumerate(problems):
        image, unary = problem.arrays()
        for crf in IMPLEMENTATIONS[:: -1 if index % 2 else 1]:
            start = time.process_time()
            crf(image, unary, SETTINGS[problem.settings])
            seconds[crf] += time.process_time() - start
    return seconds[dense_crf], seconds[peer_crf]


def call_mib(crf: Crf, problem: Problem) -> float:
    image, unary = problem.arrays()
    crop = np.ascontiguousarray(image[:4, :4]), np.ascontiguousarray(unary[:, :4, :4])
    settings = SETTINGS[problem.settings]
    return added_mib(partial(crf, *crop, settings), partial(crf, image, unary, settings))


def compare(
    problems: Sequence[Problem], timed: int, ours: LabelAll, peers: LabelAll
) -> tuple[Row, Row]:
    """The rows of some settings and number of classes, or an exit where the labels differ."""
    same = agreement(problems, ours, peers)
    measure = f"share of equal labels, {len(problems)} photos"
    problems = problems[:timed]
    case = f"{problems[0].settings}, {problems[0].classes} classes, {len(problems)} photos"
    if same < REQUIRED_AGREEMENT:
        sys.exit(f"{case}: only {same:.2%} of the labels are equal; nothing timed")
    row = partial(Row, "crf", peer=PEER, agreement=same, measure=measure)
    folder = wall_seconds(ours, problems), wall_seconds(peers, problems)
    one_by_one = cpu_seconds(problems)
    memory = [call_mib(crf, problems[0]) for crf in IMPLEMENTATIONS]
    return (
        row(
            f"{case}, 1 thread, CPU s",
            seconds=one_by_one[0],
            peer_seconds=one_by_one[1],
            peak_mib=memory[0],
            peer_peak_mib=memory[1],
        ),
        row(
            f"{case}, {cores_here()} processes, wall s",
            seconds=folder[0],
            peer_seconds=folder[1],
        ),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="VOC devkit folder")
    parser.add_argument("--images", type=int, default=50, help="photos to agree on")
    parser.add_argument("--timed", type=int, default=10, help="how many of them are timed")
    arguments = parser.parse_args()
    photos = some_photos(arguments.data, arguments.images)
    with folder_runs() as (ours, peers):
        for settings in SETTINGS:
            for n in CLASSES:
                problems = [Problem(path, seed, settings, n) for seed, path in enumerate(photos)]
                record(compare(problems, arguments.timed, ours, peers))


if __name__ == "__main__":
    main()
