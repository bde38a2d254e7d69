"""Self-training: a network relabels the photos that it learned from, for another to learn.

A network sees all photos, and what their pseudo masks have in common; faults that differ from photo
to photo it does not learn. With the tags to hold it to, its own masks are better than those that it
was taught.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from weakseg.data.images import read_photo
from weakseg.recipe import SelfTraining
from weakseg.stages import segment
from weakseg.stages.base import Context, PhotoTask, map_photos, network_executor
from weakseg.stages.refine import CrfRefiner

TEACHER = "teacher"
SELF_TRAINED = "self-trained"

_LEAST = np.float32(1e-6)
"""Probability that no class is under: a logarithm of 0 is no score."""


def train_teacher(context: Context) -> None:
    """Write `teacher/`: a network as `segment` trains it, on the masks of `self_training.masks`."""
    segment.train_on(context, _settings(context).masks, TEACHER)


def run(context: Context) -> None:
    """Write `self-trained/ID.png`: what the teacher makes of a photo and its tags, by the CRF.

    Its probabilities are those with test-time augmentation, of the background and of the photo's
    own tags.
    """
    assert context.recipe.segment is not None
    scores = _TeacherScores(
        context.stage_folder(TEACHER) / segment.SEGMENTER,
        context.recipe.segment.tta_scales,
        str(context.device),
    )
    settings, long_side = _settings(context), context.recipe.data.long_side
    make = CrfRefiner(scores, context.stage_folder(SELF_TRAINED), settings.crf, long_side)
    map_photos(context, SELF_TRAINED, make, executor=network_executor(context))


def _settings(context: Context) -> SelfTraining:
    assert context.recipe.self_training is not None
    return context.recipe.self_training


@dataclass(frozen=True)
class _TeacherScores:
    model: Path
    scales: tuple[float, ...]
    device: str

    def __call__(self) -> Callable[[PhotoTask], NDArray[np.float32]]:
        model = segment.SegmentationModel(self.model, torch.device(self.device))

        def work(task: PhotoTask) -> NDArray[np.float32]:
            photo = read_photo(task.sample.image)
            (found,) = model.probabilities([photo], self.scales, flip=True)
            scores: NDArray[np.float32] = np.log(np.maximum(found[[0, *task.class_ids]], _LEAST))
            return scores

        return work
