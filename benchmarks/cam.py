"""Our multi-scale CAMs against the plain loop: agreement, CPU time and memory on real photos.

    python benchmarks/cam.py --data VOC2012 --run runs/cpu

The peer is the loop that scripts use: for each scale, and for its mirror image, the photo is
resized and one image goes through the network in float32; maps are brought to the grid and summed.
Both have the classifier and settings of the run's steps `classify` and `localize` and one thread,
and are timed in turn, in one process, so that the peer, too, has our setting that freed memory is
kept.

Before anything is timed, the masks that the constant background of the step `cam` makes of both
are held against the real ones: mIoU over all the photos must agree within 0.1 points. CPU seconds
are those of some of the photos, each the best of some times; peak memory is that of the first.
"""

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from side_by_side import Row, added_mib, record
from weakseg import open_run
from weakseg.data.dataset import Dataset, Sample, load_dataset
from weakseg.data.images import read_photo
from weakseg.grid import grid_size, upsample
from weakseg.localize.cam import localize_tags
from weakseg.localize.seeds import mask_from_cam
from weakseg.memory import keep_freed_memory
from weakseg.methods.base import Step
from weakseg.methods.classifier import CLASSIFIER, backbone_of
from weakseg.methods.networks import prepare, read_classifier
from weakseg.methods.settings import Precision
from weakseg.metrics import ConfusionMatrix
from weakseg.networks.cam_classifier import CamClassifier

CPU = torch.device("cpu")
REQUIRED_POINTS = 0.1
PRECISIONS: tuple[Precision, ...] = ("bf16-mixed", "32-true")

Photo = NDArray[np.uint8]
Maps = NDArray[np.float32]


class Ours:
    """As the step does it, features and all."""

    def __init__(self, localize: Step, precision: Precision) -> None:
        keep_freed_memory()
        self._settings = localize.settings
        self._network, self._computing = prepare(_classifier(localize), precision, CPU)

    def __call__(self, photo: Photo, classes: Sequence[int]) -> Maps:
        own = self._settings
        with self._computing():
            return localize_tags(
                self._network, photo, classes, own.scales, own.feature_stages, own.feature_scales
            ).cam


class Peer:
    """The loops written out."""

    def __init__(self, localize: Step) -> None:
        self._settings, self._network = localize.settings, _classifier(localize)

    def __call__(self, photo: Photo, classes: Sequence[int]) -> Maps:
        return self.localization(photo, classes)[0]

    @torch.no_grad()
    def localization(self, photo: Photo, classes: Sequence[int]) -> tuple[Maps, Maps]:
        """CAMs and shallow features."""
        own = self._settings
        height, width = photo.shape[:2]
        size = grid_size(height, width)
        total = torch.zeros(len(classes), *size)
        features = []
        whole = torch.from_numpy(photo).permute(2, 0, 1).unsqueeze(0).float() / 255
        for scale in own.scales:
            scaled_size = round(height * scale), round(width * scale)
            image = F.interpolate(whole, scaled_size, mode="bilinear", antialias=True)
            for flipped in (False, True):
                wanted = own.feature_stages if scale in own.feature_scales else ()
                found = self._network.class_maps(image.flip(-1) if flipped else image, wanted)
                maps, *stages = (
                    level.flip(-1) if flipped else level for level in (found.maps, *found.stages)
                )
                total += _resize(F.relu(maps[:, list(classes)]), size)
                if wanted:
                    features.append(torch.cat([_resize(stage, size) for stage in stages]))
        cam = total / (total.amax(dim=(1, 2), keepdim=True) + 1e-5)
        return cam.numpy(), torch.stack(features).mean(dim=0).numpy()


def _resize(maps: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    return F.interpolate(maps, size, mode="bilinear", align_corners=False)[0]


def _classifier(localize: Step) -> CamClassifier:
    torch.set_num_threads(1)
    return read_classifier(localize["classifier"].folder / CLASSIFIER, CPU)


def class_indices(sample: Sample, dataset: Dataset) -> list[int]:
    return [dataset.classes.index(name) for name in sample.tags]


def agreement(
    ours: Ours, peer: Peer, samples: Sequence[Sample], dataset: Dataset, threshold: float
) -> tuple[list[float], float]:
    """mIoU of ours and of the peer's masks, in points, and their share of equal pixels."""
    matrices = [ConfusionMatrix(dataset.classes) for _ in range(2)]
    same = pixels = 0
    for sample in samples:
        photo, classes = read_photo(sample.image), class_indices(sample, dataset)
        assert sample.mask is not None
        truth = sample.mask.read()
        ids = np.array([0, *(index + 1 for index in classes)], np.uint8)
        masks = [
            ids[mask_from_cam(upsample(maps(photo, classes), *truth.shape), threshold)]
            for maps in (ours, peer)
        ]
        for matrix, mask in zip(matrices, masks, strict=True):
            matrix.update(truth, mask)
        same += int((masks[0] == masks[1]).sum())
        pixels += truth.size
    return [100 * matrix.summary()["miou"] for matrix in matrices], same / pixels


def seconds(makers: Sequence[Ours | Peer], samples: Sequence[Sample], repeats: int) -> list[float]:
    """CPU seconds of each for all the photos, each photo's the best of `repeats`."""
    best = np.full((len(samples), len(makers)), np.inf)
    for row, sample in zip(best, samples, strict=True):
        photo = read_photo(sample.image)
        for _ in range(repeats):
            for i, maps in enumerate(makers):
                start = time.process_time()
                maps(photo, [0, 1])
                row[i] = min(row[i], time.process_time() - start)
    totals: list[float] = best.sum(axis=0).tolist()
    return totals


def one(maker: Callable[[], Ours | Peer], photo: Photo) -> None:
    maker()(photo, [0, 1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="a data set with masks")
    parser.add_argument("--run", type=Path, required=True, help="a run that has its classifier")
    parser.add_argument("--images", type=int, default=100, help="photos that masks are made of")
    parser.add_argument("--timed", type=int, default=10, help="of these, photos that are timed")
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    run = open_run(arguments.run)
    localize, threshold = run.steps["localize"], run.steps["cam"].settings.background
    dataset = load_dataset(arguments.data, run.recipe.data.split)
    samples = dataset.samples[:: max(1, len(dataset.samples) // arguments.images)]
    samples = samples[: arguments.images]
    timed = samples[:: max(1, len(samples) // arguments.timed)][: arguments.timed]
    photo = read_photo(timed[0].image)
    peer, rows = Peer(localize), []
    for precision in PRECISIONS:
        ours = Ours(localize, precision)
        mious, same = agreement(ours, peer, samples, dataset, threshold)
        print(
            f"{precision}: mIoU {mious[0]:.2f} and the peer's {mious[1]:.2f} on {len(samples)} "
            f"photos; {same:.3%} of the pixels are equal",
            flush=True,
        )
        points = abs(mious[0] - mious[1])
        if points > REQUIRED_POINTS:
            sys.exit("they differ too much; nothing timed")
        times = seconds((ours, peer), timed, arguments.repeats)
        makers: list[Callable[[], Ours | Peer]] = [
            partial(Ours, localize, precision),
            partial(Peer, localize),
        ]
        memory = [
            added_mib(partial(one, maker, photo[:32, :32]), partial(one, maker, photo))
            for maker in makers
        ]
        scales = ", ".join(f"{scale:g}" for scale in localize.settings.scales)
        rows.append(
            Row(
                "localize",
                f"{backbone_of(localize['classifier']).name}, scales {scales}, {precision}, "
                f"{len(timed)} photos, 1 thread",
                "loop over scales and mirror images, float32",
                points,
                f"difference in mIoU, points, {len(samples)} photos",
                *times,
                *memory,
            )
        )
    record(rows)


if __name__ == "__main__":
    main()
