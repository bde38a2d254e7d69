"""The fully connected CRF over maps or masks of any other step."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from weakseg.data.images import resize
from weakseg.grid import upsample
from weakseg.methods.base import Artefact, Kind, PhotoMaps, PhotoTask, PhotoWork, Slot, Step
from weakseg.methods.maps import open_scores
from weakseg.methods.settings import Section, Share
from weakseg.refine.settings import CRFSettings

_LIKELY = 0.02
"""A class that no pixel of a photo has at this probability is none of its CRF's labels."""

_SMALL = 250
"""Pixels of a longer side that `scale` doesn't go below: there masks lose more than time is won."""

_LEAST = np.float32(1e-6)
"""Probability that no class is under: a logarithm of 0 is no score."""


class Crf(Section):
    """The dense CRF, and the unary it starts from.

    Attributes:
        unary: `labels`: the hard labels, with `confidence`. `scores`: the softmax of the scores
            over `temperature`.
        confidence: the probability of a pixel's label at the start, with `labels`.
        temperature: the higher, the less the scores are believed; beyond its limits they are the
            hard labels, or the same for all.
        kernels: which pixels speak with each other, and how much.
        scale: the size that is worked at, as a share of the photo's, where its longer side keeps
            250 pixels; the kernels are as much narrower.
    """

    unary: Literal["labels", "scores"]
    confidence: Share = 0.7
    temperature: Annotated[float, Field(ge=1e-3, le=1e3)] = 1.0
    kernels: CRFSettings
    scale: Annotated[float, Field(ge=0.05, le=1)] = 1.0


def work(step: Step) -> PhotoWork:
    """Probabilities (K+1, h, w) at `scale` times the size that photos are worked on."""
    given, settings = step["scores"], step.settings
    scores, of_masks = open_scores(given), Artefact.MAPS not in given.gives

    def compute(task: PhotoTask) -> PhotoMaps:
        return PhotoMaps(refine(step.photo(task), scores(task), settings, of_masks))

    return compute


def refine(
    photo: NDArray[np.uint8], scores: NDArray[np.float32], settings: Crf, of_masks: bool = False
) -> NDArray[np.float32]:
    """The dense CRF's probabilities (N, h, w) of scores (N, h', w'); see `unary_of`."""
    from weakseg.refine.crf import dense_crf

    long_side = max(photo.shape[:2])
    scale = max(settings.scale, min(1, _SMALL / long_side))
    if scale < 1:
        photo = resize(photo, round(long_side * scale))
    unary = unary_of(upsample(scores, *photo.shape[:2]), settings, of_masks)
    return dense_crf(photo, unary, settings.kernels.scaled(scale))


def logarithms(probabilities: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scores, of any shape, of probabilities."""
    found: NDArray[np.float32] = np.log(np.maximum(probabilities, _LEAST))
    return found


def refine_all(
    photo: NDArray[np.uint8], probabilities: NDArray[np.float32], crf: Crf
) -> NDArray[np.float32]:
    """The dense CRF's probabilities (C+1, h', w') of a network's (C+1, h, w).

    Between the background and the classes that some pixel has at 2 % or more, for time and memory
    grow with the labels; of the others they are 0.

    Args:
        photo: uint8 (H, W, 3).
        crf: its `scale` says how large h' by w' is.
    """
    likely = probabilities.max(axis=(1, 2)) >= _LIKELY
    likely[0] = True
    if likely.sum() == 1:
        return probabilities
    refined = refine(photo, logarithms(probabilities[likely]), crf)
    found = np.zeros((len(probabilities), *refined.shape[1:]), np.float32)
    found[likely] = refined
    return found


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
    version=2,
    work=work,
    protocol=_protocol,
)
