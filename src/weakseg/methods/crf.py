"""The fully connected CRF over maps or masks of any other step."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from weakseg.grid import upsample
from weakseg.methods.base import Artefact, Kind, PhotoMaps, PhotoTask, PhotoWork, Slot, Step
from weakseg.methods.maps import open_scores
from weakseg.methods.settings import Section, Share
from weakseg.refine.settings import CRFSettings


class Crf(Section):
    """The dense CRF, and the unary it starts from.

    `labels`: the hard labels, with `confidence`. `scores`: the softmax of the scores over
    `temperature`; beyond its limits that is the hard labels, or the same for all.
    """

    unary: Literal["labels", "scores"]
    confidence: Share = 0.7
    temperature: Annotated[float, Field(ge=1e-3, le=1e3)] = 1.0
    kernels: CRFSettings


def work(step: Step) -> PhotoWork:
    """Probabilities (K+1, H, W) at the size that photos are worked on."""
    from weakseg.refine.crf import dense_crf

    given, settings = step["scores"], step.settings
    scores, of_masks = open_scores(given), Artefact.MAPS not in given.gives

    def compute(task: PhotoTask) -> PhotoMaps:
        photo = step.photo(task)
        unary = unary_of(upsample(scores(task), *photo.shape[:2]), settings, of_masks)
        return PhotoMaps(dense_crf(photo, unary, settings.kernels))

    return compute


def unary_of(
    scores: NDArray[np.float32], settings: Crf, of_masks: bool = False
) -> NDArray[np.float32]:
    """The energies that the dense CRF starts from, float32, of scores (K+1, H, W).

    Args:
        of_masks: whether they are a mask's, where an uncertain pixel has the same for all labels.
    """
    from weakseg.refine.crf import unary_from_labels, unary_from_scores

    if settings.unary == "scores":
        return unary_from_scores(scores, settings.temperature)
    labels = scores.argmax(axis=0)
    if of_masks:
        labels[(scores == scores[:1]).all(axis=0)] = -1
    return unary_from_labels(labels, len(scores), settings.confidence)


def _protocol(step: Step) -> Mapping[str, Any]:
    return {"crf": True}


KIND = Kind(
    name="crf",
    summary="the fully connected CRF over maps or masks (Krähenbühl and Koltun 2011)",
    settings=Crf,
    gives=frozenset({Artefact.MASKS}),
    takes=(Slot("scores", frozenset({Artefact.MASKS})),),
    role="refiner",
    work=work,
    protocol=_protocol,
)
