"""Pseudo masks from CAMs: the per-image SVM, and the dense CRF over any labels."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray

from weakseg.data.images import read_photo, shrink
from weakseg.files import write_bytes, written_by_run
from weakseg.localize.grid import upsample
from weakseg.recipe import Crf
from weakseg.refine.crf import dense_crf, unary_from_labels, unary_from_probabilities
from weakseg.refine.samples import image_rng
from weakseg.refine.settings import SVMSettings
from weakseg.refine.svm import refine_with_svm, zscore
from weakseg.stages import localize
from weakseg.stages.base import Context, PhotoTask, map_photos, maps_of, masks_of, naming, together

SVM = "svm"
SVM_CRF = "svm+crf"
CAM_CRF = "cam+crf"
SCORES = ".safetensors"

svm_outputs = together(maps_of(SVM, "scores", SCORES, background=True), masks_of(SVM))

Scores = Callable[[], Callable[[PhotoTask], NDArray[np.float32]]]
"""Makes, in a worker, what gives a photo's scores (K+1, h, w), row 0 the background."""


def run_svm(context: Context) -> None:
    """Write `svm/ID.png` and `svm/ID.safetensors`: `scores` (K+1, h, w) on the grid."""
    make = _ScoresWriter(
        _svm_scores(context, localize.from_files(context)), context.stage_folder(SVM)
    )
    map_photos(context, SVM, make, (SCORES, ".png"))


def run_svm_crf(context: Context) -> None:
    """Write `svm+crf/ID.png`."""
    scores = _StoredScores(context.stage_folder(SVM))
    _refine_by_crf(context, SVM_CRF, scores, context.recipe.crf)


def run_cam_crf(context: Context) -> None:
    """Write `cam+crf/ID.png`: the CRF over the CAM and its constant background."""
    scores = _cam_scores(context, localize.from_files(context))
    _refine_by_crf(context, CAM_CRF, scores, context.recipe.cam_crf)


def run_from_photos(
    context: Context, name: str, by_network: Callable[[Context], localize.Localizations]
) -> None:
    """Write `NAME/ID.png` of `svm`, `svm+crf` or `cam+crf`, and nothing in between.

    A photo goes from the classifier to its mask in one worker. The masks are those that the stages
    make one after the other, byte for byte, since files hold what is passed on here.

    Args:
        by_network: `localizer.by_network`, from a module that needs torch.
    """
    found = by_network(context)
    if name == SVM:
        make = _HighestWriter(_svm_scores(context, found), context.stage_folder(SVM))
        map_photos(context, SVM, make, by_size=True)
    elif name == SVM_CRF:
        scores = _svm_scores(context, found)
        _refine_by_crf(context, SVM_CRF, scores, context.recipe.crf, by_size=True)
    else:
        scores = _cam_scores(context, found)
        _refine_by_crf(context, CAM_CRF, scores, context.recipe.cam_crf, by_size=True)


def _refine_by_crf(
    context: Context, name: str, scores: Scores, settings: Crf | None, by_size: bool = False
) -> None:
    assert settings is not None
    folder = context.stage_folder(name)
    make = CrfRefiner(scores, folder, settings, context.recipe.data.long_side)
    map_photos(context, name, make, by_size=by_size)


def _svm_scores(context: Context, localizations: localize.Localizations) -> Scores:
    assert context.recipe.svm is not None
    return _SvmScores(localizations, context.recipe.svm, context.recipe.seed)


def _cam_scores(context: Context, localizations: localize.Localizations) -> Scores:
    return _CamScores(localizations, context.recipe.evaluate.cam_threshold)


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
class _SvmScores:
    localizations: localize.Localizations
    settings: SVMSettings
    seed: int

    def __call__(self) -> Callable[[PhotoTask], NDArray[np.float32]]:
        localization = self.localizations()

        def work(task: PhotoTask) -> NDArray[np.float32]:
            cam, features, _ = localization(task)
            rng = image_rng(self.seed, task.id)
            with naming(task):
                normalized = zscore(features.astype(np.float32))
                return refine_with_svm(normalized, cam, self.settings, rng).scores

        return work


@dataclass(frozen=True)
class _StoredScores:
    folder: Path

    def __call__(self) -> Callable[[PhotoTask], NDArray[np.float32]]:
        def work(task: PhotoTask) -> NDArray[np.float32]:
            path = self.folder / f"{task.id}{SCORES}"
            with written_by_run(path):
                scores: NDArray[np.float32] = safetensors.numpy.load_file(path)["scores"]
            return scores

        return work


@dataclass(frozen=True)
class _CamScores:
    localizations: localize.Localizations
    threshold: float

    def __call__(self) -> Callable[[PhotoTask], NDArray[np.float32]]:
        localization = self.localizations()
        return lambda task: against_background(localization(task).cam, self.threshold)


@dataclass(frozen=True)
class _HighestWriter:
    scores: Scores
    folder: Path

    def __call__(self) -> Callable[[PhotoTask], None]:
        scores = self.scores()
        return lambda task: write_highest(self.folder / f"{task.id}.png", scores(task), task)


@dataclass(frozen=True)
class _ScoresWriter:
    scores: Scores
    folder: Path

    def __call__(self) -> Callable[[PhotoTask], None]:
        scores = self.scores()

        def work(task: PhotoTask) -> None:
            found = scores(task)
            content = safetensors.numpy.save({"scores": found})
            write_bytes(self.folder / f"{task.id}{SCORES}", content)
            write_highest(self.folder / f"{task.id}.png", found, task)

        return work


@dataclass(frozen=True)
class CrfRefiner:
    scores: Scores
    folder: Path
    settings: Crf
    long_side: int

    def __call__(self) -> Callable[[PhotoTask], None]:
        scores = self.scores()

        def work(task: PhotoTask) -> None:
            photo = shrink(read_photo(task.sample.image), self.long_side)
            probabilities = crf_probabilities(photo, scores(task), self.settings, task)
            write_highest(self.folder / f"{task.id}.png", probabilities, task)

        return work


def crf_probabilities(
    photo: NDArray[np.uint8], scores: NDArray[np.float32], settings: Crf, task: PhotoTask
) -> NDArray[np.float32]:
    """What the dense CRF makes of scores (K+1, h, w) on a photo (H, W, 3), float32 (K+1, H, W)."""
    with naming(task):
        unary = crf_unary(upsample(scores, *photo.shape[:2]), settings)
        return dense_crf(photo, unary, settings.kernels)


def crf_unary(scores: NDArray[np.float32], settings: Crf) -> NDArray[np.float32]:
    """The energies that the dense CRF starts from, float32, of scores (K+1, H, W)."""
    if settings.unary == "labels":
        return unary_from_labels(scores.argmax(axis=0), len(scores), settings.confidence)
    logits = scores / settings.temperature
    odds = np.exp(logits - logits.max(axis=0))
    return unary_from_probabilities(odds / odds.sum(axis=0))
