"""Pseudo masks from CAMs: the per-image SVM, and the dense CRF over any labels."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray

from weakseg.data.images import photo_size, read_photo, shrink
from weakseg.data.masks import write_mask
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
    make = _CrfRefiner(
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
    make = _CrfRefiner(
        _CamScores(context.stage_folder(localize.NAME), context.recipe.evaluate.cam_threshold),
        context.stage_folder(CAM_CRF),
        settings,
        context.recipe.data.long_side,
    )
    map_photos(context, CAM_CRF, make)


def write_labels(path: Path, scores: NDArray[np.float32], class_ids: tuple[int, ...]) -> None:
    """Write the mask of the highest of scores (K+1, H, W); row 0 is the background."""
    labels = scores.argmax(axis=0).astype(np.int16)
    write_mask(path, localize.class_mask(labels, class_ids))


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
            scores = upsample(refined.scores, *photo_size(task.sample.image))
            write_labels(self.folder / f"{task.id}.png", scores, task.class_ids)

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
        background = np.full((1, *cam.shape[1:]), self.threshold, np.float32)
        return np.concatenate([background, cam])


@dataclass(frozen=True)
class _CrfRefiner:
    scores: Callable[[PhotoTask], NDArray[np.float32]]
    folder: Path
    settings: Crf
    long_side: int

    def __call__(self) -> Callable[[PhotoTask], None]:
        def work(task: PhotoTask) -> None:
            whole = read_photo(task.sample.image)
            photo = shrink(whole, self.long_side)
            scores = upsample(self.scores(task), *photo.shape[:2])
            try:
                probabilities = dense_crf(photo, self._unary(scores), self.settings.kernels)
            except ValueError as error:
                raise WeaksegError(f"{task.sample.image}: {error}.") from error
            if photo is not whole:
                probabilities = upsample(probabilities, *whole.shape[:2])
            write_labels(self.folder / f"{task.id}.png", probabilities, task.class_ids)

        return work

    def _unary(self, scores: NDArray[np.float32]) -> NDArray[np.float32]:
        if self.settings.unary == "labels":
            labels = scores.argmax(axis=0)
            return unary_from_labels(labels, len(scores), self.settings.confidence)
        logits = scores / self.settings.temperature
        odds = np.exp(logits - logits.max(axis=0))
        return unary_from_probabilities(odds / odds.sum(axis=0))
