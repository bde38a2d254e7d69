"""What `stages.localizer` wrote of every photo; the masks and seeds that a CAM gives by itself."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray

from weakseg.data.images import photo_size
from weakseg.data.masks import IGNORE, write_mask
from weakseg.files import written_by_run
from weakseg.localize.grid import Localization, upsampled_bands
from weakseg.localize.seeds import mask_from_cam, seed_from_cam
from weakseg.stages.base import Context, PhotoTask, map_photos, maps_of, naming

NAME = "localize"
CAM = "cam"
SEED = "seed"
SUFFIX = ".safetensors"

outputs = maps_of(NAME, "cam", SUFFIX)

Localizations = Callable[[], Callable[[PhotoTask], Localization]]
"""Makes, in a worker, what gives a photo's CAM and features: from the network or from a file."""


def from_files(context: Context) -> Localizations:
    """What the stage has written of a photo."""
    return _StoredLocalizations(context.stage_folder(NAME))


def run_cam(context: Context) -> None:
    """Write `cam/ID.png`: the CAM against the recipe's constant background."""
    threshold = context.recipe.evaluate.cam_threshold
    make = _CamMasks(context.stage_folder(NAME), context.stage_folder(CAM), threshold, None)
    map_photos(context, CAM, make)


def run_seed(context: Context) -> None:
    """Write `seed/ID.png`: the initial seed, 255 where it is uncertain."""
    svm = context.recipe.svm
    assert svm is not None
    make = _CamMasks(
        context.stage_folder(NAME),
        context.stage_folder(SEED),
        svm.foreground_threshold,
        svm.background_threshold,
    )
    map_photos(context, SEED, make)


def read_localization(folder: Path, photo_id: str) -> Localization:
    """Read what the stage wrote of one photo.

    Raises:
        WeaksegError: if the file is missing or damaged.
    """
    path = folder / f"{photo_id}{SUFFIX}"
    with written_by_run(path):
        return Localization(**safetensors.numpy.load_file(path))


def class_mask(labels: NDArray[np.int16], class_ids: tuple[int, ...]) -> NDArray[np.uint8]:
    """Mask ids of labels 0 (background), 1..K (a photo's own tags) and -1 (uncertain: 255)."""
    ids = np.array([0, *class_ids, IGNORE], np.uint8)
    mask: NDArray[np.uint8] = ids[labels]
    return mask


def write_labels(
    path: Path,
    maps: NDArray[np.float32],
    task: PhotoTask,
    label: Callable[[NDArray[np.float32]], NDArray[np.int16]],
) -> None:
    """Write a photo's mask, at its own size, by what `label` makes of the maps at that size.

    Args:
        maps: float32 (N, h, w) of any size.
        label: labels (rows, W), as `class_mask` takes them, of a band (N, rows, W).
    """
    height, width = photo_size(task.sample.image)
    mask = np.empty((height, width), np.uint8)
    with naming(task):
        for rows, band in upsampled_bands(maps, height, width):
            mask[rows] = class_mask(label(band), task.class_ids)
    write_mask(path, mask)


@dataclass(frozen=True)
class _StoredLocalizations:
    folder: Path

    def __call__(self) -> Callable[[PhotoTask], Localization]:
        return lambda task: read_localization(self.folder, task.id)


@dataclass(frozen=True)
class _CamMasks:
    """Bare masks of CAMs; with a threshold for the background of its own, seeds."""

    source: Path
    folder: Path
    threshold: float
    background_threshold: float | None

    def __call__(self) -> Callable[[PhotoTask], None]:
        def work(task: PhotoTask) -> None:
            cam = read_localization(self.source, task.id).cam
            write_labels(self.folder / f"{task.id}.png", cam, task, self._label)

        return work

    def _label(self, cam: NDArray[np.float32]) -> NDArray[np.int16]:
        if self.background_threshold is None:
            return mask_from_cam(cam, self.threshold)
        return seed_from_cam(cam, self.threshold, self.background_threshold)
