"""The pixels of which maps are sure, by two thresholds (Lyu et al. eq. 3)."""

from collections.abc import Mapping
from typing import Any

from pydantic import model_validator

from weakseg.localize.seeds import check_thresholds, seed_from_cam
from weakseg.methods.base import Artefact, Kind, PhotoMask, PhotoTask, PhotoWork, Slot, Step
from weakseg.methods.maps import labelled, open_class_maps
from weakseg.methods.settings import Section


class Seed(Section):
    """Thresholds of eq. 3; an SVM has its own, of which this shows what it starts from.

    Attributes:
        foreground_threshold: T_fg: above it a pixel is its highest class; in [background_threshold,
            1].
        background_threshold: T_bg: where all classes are below it, a pixel is background; in [0,
            foreground_threshold].
    """

    foreground_threshold: float
    background_threshold: float

    @model_validator(mode="after")
    def _ordered(self) -> "Seed":
        check_thresholds(self.foreground_threshold, self.background_threshold)
        return self


def work(step: Step) -> PhotoWork:
    """Masks with 255 where the maps are not sure."""
    maps, settings = open_class_maps(step["maps"]), step.settings

    def compute(task: PhotoTask) -> PhotoMask:
        label = lambda band: seed_from_cam(  # noqa: E731
            band, settings.foreground_threshold, settings.background_threshold
        )
        return PhotoMask(labelled(maps(task).scores, task, label))

    return compute


def by_two_thresholds(step: Step) -> Mapping[str, Any]:
    return {
        "threshold": [step.settings.background_threshold, step.settings.foreground_threshold],
        "threshold_source": "recipe",
        "crf": False,
        "uncertain": "counted as wrong",
    }


KIND = Kind(
    name="seed",
    summary="the pixels that maps are sure of, 255 between two thresholds",
    settings=Seed,
    gives=frozenset({Artefact.MASKS}),
    takes=(Slot("maps", frozenset({Artefact.MAPS})),),
    role="seed",
    work=work,
    protocol=by_two_thresholds,
    compared_as="seeds",
)
