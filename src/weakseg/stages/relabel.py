"""The trained network's own masks of the photos that it learned from, kept to their tags.

A network sees all photos, and learns what their pseudo masks have in common; faults that differ
from photo to photo it does not. With the tags to hold it to, its masks are better than those that
it was taught.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from weakseg.data.images import read_photo
from weakseg.stages import segment
from weakseg.stages.base import Context, PhotoTask, map_photos, naming, network_executor
from weakseg.stages.refine import CrfRefiner

NAME = "relabel"

_LEAST = np.float32(1e-6)
"""Probability that no class is under: a logarithm of 0 is no score."""


def run(context: Context) -> None:
    """Write `relabel/ID.png`: what the network makes of a photo and its tags, through the CRF.

    Its probabilities are those with test-time augmentation, of the background and of the photo's
    own tags.
    """
    recipe = context.recipe
    assert recipe.segment is not None and recipe.relabel is not None
    scores = _NetworkScores(
        context.stage_folder(segment.NETWORK) / segment.SEGMENTER,
        recipe.segment.tta_scales,
        str(context.device),
    )
    make = CrfRefiner(scores, context.stage_folder(NAME), recipe.relabel, recipe.data.long_side)
    map_photos(context, NAME, make, executor=network_executor(context), by_size=True)


@dataclass(frozen=True)
class _NetworkScores:
    model: Path
    scales: tuple[float, ...]
    device: str

    def __call__(self) -> Callable[[PhotoTask], NDArray[np.float32]]:
        model = segment.SegmentationModel(self.model, torch.device(self.device))

        def work(task: PhotoTask) -> NDArray[np.float32]:
            photo = read_photo(task.sample.image)
            with naming(task):
                (found,) = model.probabilities([photo], self.scales, flip=True)
            scores: NDArray[np.float32] = np.log(np.maximum(found[[0, *task.class_ids]], _LEAST))
            return scores

        return work
