"""Pseudo masks from CAMs: the per-image SVM, and the dense CRF over any labels."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray

from weakseg.data.images import read_photo, shrink
from weakseg.errors import WeaksegError
from weakseg.files import write_bytes
from weakseg.localize.cam import upsample
from weakseg.recipe import Crf
from weakseg.refine.crf import dense_crf, unary_from_labels, unary_from_probabilities
from weakseg.refine.samples import image_rng
from weakseg.refine.svm import SVMSettings, refine_with_svm, zscore
from weakseg.stages import localize
from weakseg.stages.base import Context, PhotoTask, map_photos

SVM = "svm"
SVM_CRF = "svm+crf"
CAM_CRF = "cam+crf"
SCORES = ".safetensors"

Scores = Callable[[PhotoTask], NDArray[np.float32]]
"""Reads a photo's scores (K+1, h, w), row 0 the background."""


def run_svm(context: Context) -> None:
    """Write `svm/ID.png` and `svm/ID.safetensors`: `scores` (K+1, h, w) on the grid."""
    settings = context.recipe.svm
    assert settings is not None
    make = _SvmRefiner(
        context.stage_folder(localize.NAME),
        context.stage_folder(SVM),
        settings,
        context.recipe.seed,
    )
    map_photos(context, SVM, make, (SCORES, ".png"))


def run_svm_crf(context: Context) -> None:
    """Write `svm+crf/ID.png`."""
    settings = context.recipe.crf
    assert settings is not None
    make = CrfRefiner(
        _SvmScores(context.stage_folder(SVM)),
        context.stage_folder(SVM_CRF),
        settings,
        context.recipe.data.long_side,
    )
    map_photos(context, SVM_CRF, make)


def run_cam_crf(context: Context) -> None:
    """Write `cam+crf/ID.png`: the CRF over the CAM and its constant background."""
    settings = context.recipe.cam_crf
    assert settings is not None
    make = CrfRefiner(
        _CamScores(context.stage_folder(localize.NAME), context.recipe.evaluate.cam_threshold),
        context.stage_folder(CAM_CRF),
        settings,
        context.recipe.data.long_side,
    )
    map_photos(context, CAM_CRF, make)


def write_highest(path: Path, scores: NDArray[np.float32], task: PhotoTask) -> None:
    """Write a photo's mask of the highest of scores (K+1, h, w); row 0 is the background."""
    localize.write_labels(path, scores, task, _highest)


def against_background(maps: NDArray[np.float32], threshold: float) -> NDArray[np.float32]:
    """Scores (K+1, h, w): maps (K, h, w) behind a background of constant score."""
    background = np.full((1, *maps.shape[1:]), threshold, np.float32)
    return np.concatenate([background, maps])


def _highest(scores: NDArray[np.float32]) -> NDArray[np.int16]:
    labels: NDArray[np.int16] = scores.argmax(axis=0).astype(np.int16)
    return labels


@dataclass(frozen=True)
class _SvmRefiner:
    source: Path
    folder: Path
    settings: SVMSettings
    seed: int

    def __call__(self) -> Callable[[PhotoTask], None]:
        def work(task: PhotoTask) -> None:
            cam, features, _ = localize.read_localization(self.source, task.id)
            refined = refine_with_svm(
                zscore(features.astype(np.float32)),
                cam,
                self.settings,
                image_rng(self.seed, task.id),
            )
            content = safetensors.numpy.save({"scores": refined.scores})
            write_bytes(self.folder / f"{task.id}{SCORES}", content)
            write_highest(self.folder / f"{task.id}.png", refined.scores, task)

        return work


@dataclass(frozen=True)
class _SvmScores:
    folder: Path

    def __call__(self, task: PhotoTask) -> NDArray[np.float32]:
        scores: NDArray[np.float32] = safetensors.numpy.load_file(
            self.folder / f"{task.id}{SCORES}"
        )["scores"]
        return scores


@dataclass(frozen=True)
class _CamScores:
    folder: Path
    threshold: float

    def __call__(self, task: PhotoTask) -> NDArray[np.float32]:
        cam = localize.read_localization(self.folder, task.id).cam
        return against_background(cam, self.threshold)


@dataclass(frozen=True)
class CrfRefiner:
    scores: Scores
    folder: Path
    settings: Crf
    long_side: int

    def __call__(self) -> Callable[[PhotoTask], None]:
        def work(task: PhotoTask) -> None:
            photo = shrink(read_photo(task.sample.image), self.long_side)
            probabilities = crf_probabilities(photo, self.scores(task), self.settings, task)
            write_highest(self.folder / f"{task.id}.png", probabilities, task)

        return work


def crf_probabilities(
    photo: NDArray[np.uint8], scores: NDArray[np.float32], settings: Crf, task: PhotoTask
) -> NDArray[np.float32]:
    """What the dense CRF makes of scores (K+1, h, w) on a photo (H, W, 3), float32 (K+1, H, W)."""
    scores = upsample(scores, *photo.shape[:2])
    if settings.unary == "labels":
        unary = unary_from_labels(scores.argmax(axis=0), len(scores), settings.confidence)
    else:
        logits = scores / settings.temperature
        odds = np.exp(logits - logits.max(axis=0))
        unary = unary_from_probabilities(odds / odds.sum(axis=0))
    try:
        return dense_crf(photo, unary, settings.kernels)
    except ValueError as error:
        raise WeaksegError(f"{task.sample.image}: {error}.") from error
