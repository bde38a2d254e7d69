"""What IRNet learns from CAMs: two masks of each, and 255 where they differ (Ahn et al. 2019)."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from weakseg.methods.base import Artefact, Kind, PhotoMask, PhotoTask, PhotoWork, Slot, Step
from weakseg.methods.crf import Crf, refine
from weakseg.methods.maps import against_background, highest, labelled, open_class_maps
from weakseg.methods.seed import Seed, by_two_thresholds
from weakseg.methods.settings import Fraction


class IrnLabels(Seed, Crf):
    """Two constant backgrounds, each of whose masks goes through the CRF.

    Attributes:
        foreground_threshold: the background of the first mask, which says what is a class.
        background_threshold: that of the second; what the first calls background and the second
            doesn't is 255.
    """

    foreground_threshold: Fraction = 0.3
    background_threshold: Fraction = 0.05


def _protocol(step: Step) -> Mapping[str, Any]:
    return {**by_two_thresholds(step), "crf": True}


def work(step: Step) -> PhotoWork:
    """Masks with 255 where the two disagree."""
    maps, settings = open_class_maps(step["maps"]), step.settings
    thresholds = settings.foreground_threshold, settings.background_threshold

    def compute(task: PhotoTask) -> PhotoMask:
        photo, found = step.photo(task), maps(task).scores

        both = np.concatenate(
            [refine(photo, against_background(found, level), settings) for level in thresholds]
        )
        return PhotoMask(labelled(both, task, _agreed))

    return compute


def _agreed(both: NDArray[np.float32]) -> NDArray[np.int16]:
    sure, lenient = (highest(scores) for scores in np.split(both, 2))
    sure[(sure == 0) & (lenient != 0)] = -1
    return sure


KIND = Kind(
    name="irn_labels",
    summary="what IRNet learns from CAMs: masks by two backgrounds through the CRF, 255 between",
    settings=IrnLabels,
    gives=frozenset({Artefact.MASKS}),
    takes=(Slot("maps", frozenset({Artefact.MAPS})),),
    role="seed",
    work=work,
    protocol=_protocol,
)
