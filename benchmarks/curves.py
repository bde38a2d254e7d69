"""What each method costs against the size of its input: points, exponents and a picture.

    pip install weakseg[bench]
    python benchmarks/curves.py --out docs/curves.png

CPU seconds and added memory of one call on one thread, in a fresh process, on generated input.
Against the number of photos, CPU seconds of a whole small run and the most that all its processes
hold (see `memory.py`). An exponent is the slope of a line through the logarithms of all points.
"""

import argparse
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

import random_walk
from memory import run_peaks
from side_by_side import measure
from weakseg.grid import Localization, grid_size
from weakseg.localize.cam import localize_tags
from weakseg.methods.networks import build_classifier
from weakseg.methods.settings import BackboneSection
from weakseg.networks.cam_classifier import CamClassifier
from weakseg.networks.cpu.fused import fuse
from weakseg.refine.crf import CRFSettings, dense_crf, unary_from_labels
from weakseg.refine.samples import image_rng
from weakseg.refine.svm import SVMSettings, refine_with_svm, zscore

try:
    from matplotlib import pyplot
except ImportError:
    sys.exit("matplotlib is missing; install it with: pip install weakseg[bench]")

SIDES = (128, 256, 512, 1024)
CLASSES = (2, 4, 8, 16)
SAMPLES = (100, 300, 900, 2700)
PHOTOS = (250, 500, 1000, 2000)
CHANNELS = 176
REPEATS = 2
SMALLEST_MIB = 1.0
"""Memory below this is noise, and drawn as this much."""


@dataclass(frozen=True)
class Size:
    """One point: the side of a square photo, the photo's classes, the SVM's samples of each."""

    side: int = 512
    classes: int = 3
    samples: int = 300


SMALL = Size(32, 2, 10)


class Point(NamedTuple):
    x: int
    seconds: float
    mib: float


class Curve(NamedTuple):
    method: str
    axis: str
    points: list[Point]

    def exponent(self, figure: str) -> float:
        """The slope of the logarithm of a point's `figure` against that of x."""
        values = [getattr(point, figure) for point in self.points]
        return float(np.polyfit(np.log([point.x for point in self.points]), np.log(values), 1)[0])


def discs(classes: int, side: int) -> NDArray[np.float32]:
    """A CAM (K, side, side): for each class a smooth disc in a square of its own."""
    across = math.ceil(math.sqrt(classes))
    places = (np.stack(np.divmod(np.arange(classes), across)) + 0.5) / across
    y, x = ((np.arange(side) + 0.5) / side - place[:, None] for place in places)
    squared = np.square(y)[:, :, None] + np.square(x)[:, None, :]
    found: NDArray[np.float32] = np.exp(-squared * (across / 0.4) ** 2).astype(np.float32)
    return found


def photo(side: int) -> NDArray[np.uint8]:
    """Smooth colours (side, side, 3) with grain."""
    rng = np.random.default_rng(1)
    colours = ndimage.gaussian_filter(rng.normal(size=(3, side, side)), (0, side / 16, side / 16))
    grainy = 128 + 50 * colours / colours.std() + rng.normal(0, 3, colours.shape)
    pixels: NDArray[np.uint8] = np.moveaxis(grainy, 0, 2).clip(0, 255).astype(np.uint8)
    return pixels


def crf_call(size: Size) -> Callable[[], Any]:
    labels = discs(size.classes, size.side).argmax(axis=0)
    unary = unary_from_labels(labels, size.classes)
    return partial(dense_crf, photo(size.side), unary, CRFSettings(3, 3, 50, 5, 10))


def svm_call(size: Size) -> Callable[[], Any]:
    cam = discs(size.classes, grid_size(size.side, size.side)[0])
    rng = np.random.default_rng(2)
    mixed = np.tensordot(rng.normal(size=(CHANNELS, size.classes)), cam, axes=1)
    features = zscore(mixed + rng.normal(0, 0.3, mixed.shape))
    settings = SVMSettings(0.55, 0.3, size.samples, exclusion_threshold=None, gamma=5.7e-4)
    return partial(refine_with_svm, features, cam, settings, image_rng(0, "curves"))


def walk_call(size: Size) -> Callable[[], Any]:
    example = random_walk.example(*grid_size(size.side, size.side), size.classes)
    return partial(random_walk.ours, *example)


def cam_call(size: Size) -> Callable[[], Any]:
    section = BackboneSection(name="efficientnet_lite1", weights="none", head_convolution=False)
    network = build_classifier(section, size.classes).eval()
    network.backbone = fuse(network.backbone, torch.bfloat16)
    return partial(cams, network, photo(size.side), range(size.classes))


def cams(network: CamClassifier, photo: NDArray[np.uint8], classes: Sequence[int]) -> Localization:
    with torch.autocast("cpu", torch.bfloat16):
        return localize_tags(network, photo, classes, (0.5, 1.0, 1.5, 2.0), (1, 2, 3))


CALLS = {"CAM": cam_call, "SVM": svm_call, "CRF": crf_call, "random walk": walk_call}
PIXELS, TAGS, DRAWN, COUNT = "pixels", "classes of a photo", "samples a class", "photos"


def curve(method: str, axis: str, sizes: dict[int, Size]) -> Curve:
    points = []
    for x, size in sizes.items():
        found = measure(CALLS[method](SMALL), CALLS[method](size), REPEATS)
        points.append(Point(x, found.seconds, max(SMALLEST_MIB, found.mib)))
    return said(Curve(method, axis, points))


def run_curve(counts: Sequence[int]) -> Curve:
    points = []
    for count in counts:
        peaks = run_peaks(count)
        points.append(Point(count, peaks.seconds, peaks.together))
    return said(Curve("a whole run", COUNT, points))


def said(curve: Curve) -> Curve:
    """Print a curve."""
    points = ", ".join(f"{x}: {seconds:.3g} s {mib:.0f} MiB" for x, seconds, mib in curve.points)
    time, memory = curve.exponent("seconds"), curve.exponent("mib")
    print(f"{curve.method} against {curve.axis}: time^{time:.2f}, memory^{memory:.2f} ({points})")
    sys.stdout.flush()
    return curve


def measured() -> list[Curve]:
    usual = Size()
    curves = []
    for method in CALLS:
        by_side = {side**2: replace(usual, side=side) for side in SIDES}
        by_class = {count: replace(usual, classes=count) for count in CLASSES}
        curves += [curve(method, PIXELS, by_side), curve(method, TAGS, by_class)]
    by_sample = {count: replace(usual, side=1024, samples=count) for count in SAMPLES}
    return [*curves, curve("SVM", DRAWN, by_sample), run_curve(PHOTOS)]


def draw(curves: Sequence[Curve], path: Path) -> None:
    axes = (PIXELS, TAGS, DRAWN, COUNT)
    figures = {"seconds": "CPU seconds", "mib": "MiB"}
    colours = {method: f"C{index}" for index, method in enumerate([*CALLS, "a whole run"])}
    size = (14, 7.5)
    figure, grid = pyplot.subplots(len(figures), len(axes), figsize=size, layout="constrained")
    for row, (key, label) in zip(grid, figures.items(), strict=True):
        for cell, axis in zip(row, axes, strict=True):
            shown = [line for line in curves if line.axis == axis]
            for line in shown:
                x, y = zip(*((point.x, getattr(point, key)) for point in line.points), strict=True)
                name = f"{line.method}, exponent {line.exponent(key):.2f}"
                cell.loglog(x, y, "o-", color=colours[line.method], label=name)
            values = [getattr(point, key) for line in shown for point in line.points]
            cell.set_ylim(10 ** math.floor(math.log10(min(values))), 30 * max(values))
            cell.set(xlabel=axis, ylabel=label)
            cell.set_xticks(x, [f"{number:,}" for number in x], fontsize=8)
            cell.minorticks_off()
            cell.grid(alpha=0.3)
            cell.legend(fontsize=8, loc="upper left")
    figure.savefig(path, dpi=80)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="the picture, PNG")
    draw(measured(), parser.parse_args().out)


if __name__ == "__main__":
    main()
