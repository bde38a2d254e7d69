"""Refiners in torch's operators on a device, against the compiled loops on one thread.

    python benchmarks/devices.py --data VOC2012 --run runs/cpu --device cuda

Settings, maps and features are those of the run's steps `localize`, `svm` and `svm+crf`. The SVM
gets all photos at once; the CRF (over the SVM's scores) and the walk get one after the other. Wall
time, with what goes to the device and back, after a first call on other photos. 99.5 % of the
labels must be equal, and the walk's maps to 1e-4, before a row is kept.
"""

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from random_walk import example
from side_by_side import Row, record
from weakseg import open_run
from weakseg.data.dataset import load_dataset
from weakseg.data.images import read_photo
from weakseg.grid import upsample
from weakseg.methods.crf import unary_of
from weakseg.refine.crf import dense_crf
from weakseg.refine.random_walk import RandomWalkSettings, random_walk
from weakseg.refine.samples import image_rng
from weakseg.refine.svm import refine_many_with_svm, refine_with_svm, zscore

REQUIRED_AGREEMENT = 0.995
TOLERANCE = 1e-4
GRID = (94, 125)  # a photo of 375x500

Floats = NDArray[np.float32]
Arrays = Sequence[NDArray[np.generic]]


def seconds(work: Callable[[slice], Arrays], count: int) -> tuple[Arrays, float]:
    """What `work` makes of all but the first quarter, and its time; it does that quarter first."""
    first = max(1, count // 4)
    work(slice(0, first))
    start = time.perf_counter()
    made = work(slice(first, count))
    return made, time.perf_counter() - start


def equal_labels(found: Arrays, expected: Arrays) -> float:
    pairs = zip(found, expected, strict=True)
    return float(np.mean([(one == other).mean() for one, other in pairs]))


def largest_difference(found: Arrays, expected: Arrays) -> float:
    pairs = zip(found, expected, strict=True)
    return max(float(np.abs(np.subtract(one, other)).max()) for one, other in pairs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--run", type=Path, required=True, help="a finished run with CAMs and SVMs")
    parser.add_argument("--device", default="cuda", help="cuda, or cpu")
    parser.add_argument("--images", type=int, default=32)
    arguments = parser.parse_args()
    if arguments.images < 2:
        parser.error("--images: 2 at least")
    device = torch.device(arguments.device)
    run = open_run(arguments.run)
    seed, svm, crf = (run.recipe.seed, *(run.steps[name].settings for name in ("svm", "svm+crf")))
    samples = load_dataset(arguments.data, run.recipe.data.split).samples
    samples = samples[:: max(1, len(samples) // arguments.images)][: arguments.images]
    images = []
    for sample in samples:
        found = run.maps(sample.id, "localize", "features")
        assert found.features is not None
        images.append((zscore(found.features.astype(np.float32)), found.scores, sample.id))
    photos = [read_photo(sample.image) for sample in samples]
    unaries: list[Floats] = []
    for photo, (features, cam, name) in zip(photos, images, strict=True):
        scores = refine_with_svm(features, cam, svm, image_rng(seed, name)).scores
        unaries.append(unary_of(upsample(scores, *photo.shape[:2]), crf))
    walks = [example(*GRID, seed=number) for number in range(len(samples))]

    def svm_labels(where: torch.device | None) -> Callable[[slice], Arrays]:
        def work(some: slice) -> Arrays:
            drawn = [(f, c, image_rng(seed, name)) for f, c, name in images[some]]
            if where is None:
                return [refine_with_svm(f, c, svm, rng).labels for f, c, rng in drawn]
            return [refined.labels for refined in refine_many_with_svm(drawn, svm, where)]

        return work

    def crf_labels(where: torch.device | None) -> Callable[[slice], Arrays]:
        return lambda some: [
            dense_crf(photo, unary, crf.kernels, where).argmax(axis=0)
            for photo, unary in zip(photos[some], unaries[some], strict=True)
        ]

    def walked(where: torch.device | None) -> Callable[[slice], Arrays]:
        return lambda some: [
            random_walk(*walk, RandomWalkSettings(), where) for walk in walks[some]
        ]

    rows = []
    with threadpool_limits(1):
        for method, make in (("svm", svm_labels), ("crf", crf_labels), ("random walk", walked)):
            ours, taken = seconds(make(device), len(samples))
            theirs, peer_taken = seconds(make(None), len(samples))
            if method == "random walk":
                agreement = largest_difference(ours, theirs)
                measure, agrees = "max difference", agreement <= TOLERANCE
            else:
                agreement = equal_labels(ours, theirs)
                measure, agrees = "share of equal labels", agreement >= REQUIRED_AGREEMENT
            if not agrees:
                sys.exit(f"{method}: {measure} {agreement:.5g}; no ratio")
            name = torch.cuda.get_device_name(device) if device.type == "cuda" else "the CPU"
            case = f"{len(ours)} photos, torch's operators on {name}, wall s"
            peer = "compiled loops, 1 thread"
            rows.append(Row(method, case, peer, agreement, measure, taken, peer_taken))
    record(rows)


if __name__ == "__main__":
    main()
