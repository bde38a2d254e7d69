"""Pixel-adaptive refinement of maps or masks of any other step."""

from collections.abc import Mapping
from typing import Any

from weakseg.methods.base import (
    Artefact,
    Kind,
    PhotoMaps,
    PhotoTask,
    PhotoWork,
    Slot,
    Step,
    photo_cell,
)
from weakseg.methods.maps import open_scores
from weakseg.refine.settings import PARSettings


def work(step: Step) -> PhotoWork:
    """Scores (K+1, h, w) at `scale` of the size that photos are worked on.

    Scores go in as they are, an SVM's or logarithms as well. Averages keep whatever scale they
    have, so that the result means what its input did, and steps that read either have one set of
    numbers. A softmax would be another input, by a temperature that maps in [0, 1] and an SVM's
    scores can't share.
    """
    from weakseg.refine.par import refine_with_par

    scores, settings = open_scores(step["scores"]), step.settings

    def compute(task: PhotoTask) -> PhotoMaps:
        return PhotoMaps(refine_with_par(step.photo(task), scores(task), settings))

    return compute


def _protocol(step: Step) -> Mapping[str, Any]:
    return {"par": True}


KIND = Kind(
    name="par",
    summary="pixel-adaptive refinement of maps or masks (Ru et al. 2022)",
    settings=PARSettings,
    gives=frozenset({Artefact.MAPS, Artefact.MASKS}),
    takes=(Slot("scores", frozenset({Artefact.MASKS})),),
    role="refiner",
    work=work,
    cell=photo_cell,
    protocol=_protocol,
)
