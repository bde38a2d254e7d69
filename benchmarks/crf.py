"""Our dense CRF against pydensecrf2: agreement, CPU time and memory on real photos.

    pip install weakseg[bench]
    python benchmarks/crf.py --data VOC2012 --images 50

Both run in one process, in turn, on the same photos and unaries, on one thread. The unaries come
from smooth random fields, seeded, so that every photo can be run with any number of classes. For
each settings row the argmax of both must agree on 99.5 % of the pixels before anything is timed.
CPU seconds are for all the photos; peak memory is what one call adds to a fresh process (read from
/proc, so Linux only).
"""

import argparse
import multiprocessing
import sys
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from weakseg.refine.crf import (
    CRFSettings,
    dense_crf,
    unary_from_labels,
    unary_from_probabilities,
)

try:
    from pydensecrf import densecrf
except ImportError:
    sys.exit("pydensecrf2 is missing; install it with: pip install weakseg[bench]")

ROWS = {
    "labels": CRFSettings(3, 3, 50, 5, 10),
    "probabilities": CRFSettings(3, 3, 80, 13, 10),
    "network": CRFSettings(1, 3, 67, 3, 4),
}
CLASSES = (2, 4, 8, 21)
REQUIRED_AGREEMENT = 0.995

Floats = NDArray[np.float32]


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


IMPLEMENTATIONS = {"weakseg": dense_crf, "pydensecrf2": peer_crf}


def read_photo(path: Path) -> NDArray[np.uint8]:
    with Image.open(path) as opened:
        return np.array(opened.convert("RGB"))


def make_unary(row: str, n: int, height: int, width: int, seed: int) -> Floats:
    rng = np.random.default_rng(seed)
    coarse = rng.normal(0, 2, (n, height // 40 + 2, width // 40 + 2)).astype(np.float32)
    scores = np.stack(
        [
            np.asarray(Image.fromarray(field).resize((width, height), Image.Resampling.BICUBIC))
            for field in coarse
        ]
    )
    if row == "labels":
        return unary_from_labels(scores.argmax(axis=0), n)
    numerator = np.exp(scores - scores.max(axis=0))
    return unary_from_probabilities(numerator / numerator.sum(axis=0))


def agreement(photos: list[Path], row: str, n: int) -> float:
    same = total = 0
    for seed, path in enumerate(photos):
        image = read_photo(path)
        unary = make_unary(row, n, *image.shape[:2], seed)
        ours, peers = (crf(image, unary, ROWS[row]) for crf in IMPLEMENTATIONS.values())
        same += int((ours.argmax(axis=0) == peers.argmax(axis=0)).sum())
        total += unary[0].size
    return same / total


def cpu_seconds(photos: list[Path], row: str, n: int) -> dict[str, float]:
    seconds = dict.fromkeys(IMPLEMENTATIONS, 0.0)
    for seed, path in enumerate(photos):
        image = read_photo(path)
        unary = make_unary(row, n, *image.shape[:2], seed)
        for name in sorted(IMPLEMENTATIONS, reverse=seed % 2 == 1):
            start = time.process_time()
            IMPLEMENTATIONS[name](image, unary, ROWS[row])
            seconds[name] += time.process_time() - start
    return seconds


def peak_memory() -> int:
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0])


def added_memory(name: str, path: Path, row: str, n: int) -> int:
    """Peak resident memory in KiB that one call adds, run in a process of its own."""
    image = read_photo(path)
    unary = make_unary(row, n, *image.shape[:2], 0)
    crop = np.ascontiguousarray(image[:4, :4]), np.ascontiguousarray(unary[:, :4, :4])
    IMPLEMENTATIONS[name](*crop, ROWS[row])
    before = peak_memory()
    IMPLEMENTATIONS[name](image, unary, ROWS[row])
    return peak_memory() - before


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="VOC devkit folder")
    parser.add_argument("--images", type=int, default=50, help="number of photos")
    arguments = parser.parse_args()
    found = sorted((arguments.data / "JPEGImages").glob("*.jpg"))
    if not 1 <= arguments.images <= len(found):
        parser.error(
            f"--images is {arguments.images}; {arguments.data / 'JPEGImages'} has {len(found)}"
        )
    photos = found[:: len(found) // arguments.images][: arguments.images]
    fresh = multiprocessing.get_context("spawn")

    print(f"{len(photos)} photos, CPU seconds for all of them, peak MiB for the first")
    print(
        f"{'settings':14}{'classes':>8}{'agreement':>11}{'weakseg':>10}{'pydensecrf2':>13}"
        f"{'ratio':>7}{'weakseg':>10}{'pydensecrf2':>13}"
    )
    for row in ROWS:
        for n in CLASSES:
            same = agreement(photos, row, n)
            if same < REQUIRED_AGREEMENT:
                sys.exit(f"{row}, {n} classes: only {same:.2%} of the pixels agree; nothing timed")
            seconds = cpu_seconds(photos, row, n)
            memory = {}
            for name in IMPLEMENTATIONS:
                with fresh.Pool(1) as pool:
                    memory[name] = pool.apply(added_memory, (name, photos[0], row, n)) / 1024
            ratio = seconds["pydensecrf2"] / seconds["weakseg"]
            print(
                f"{row:14}{n:8}{same:11.3%}{seconds['weakseg']:10.2f}"
                f"{seconds['pydensecrf2']:13.2f}{ratio:7.2f}"
                f"{memory['weakseg']:10.0f}{memory['pydensecrf2']:13.0f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
