"""Maps against a background of constant score: the usual mask of a bare CAM."""

from collections.abc import Mapping
from typing import Any

from weakseg.methods.base import Artefact, Kind, PhotoWork, Slot, Step
from weakseg.methods.maps import open_class_maps
from weakseg.methods.settings import Fraction, Section


class Threshold(Section):
    """A background that is the same everywhere.

    Attributes:
        background: its score, chosen without ground truth; maps are in [0, 1].
    """

    background: Fraction


def work(step: Step) -> PhotoWork:
    """The maps as they are; their masks are those of the class that is highest, or of none."""
    return open_class_maps(step["maps"])


def _background(step: Step) -> float | None:
    background: float = step.settings.background
    return background


def _protocol(step: Step) -> Mapping[str, Any]:
    return {"threshold": step.settings.background, "threshold_source": "recipe", "crf": False}


KIND = Kind(
    name="threshold",
    summary="maps against a constant background, and the masks that this gives",
    settings=Threshold,
    gives=frozenset({Artefact.MAPS, Artefact.MASKS}),
    takes=(Slot("maps", frozenset({Artefact.MAPS})),),
    role="seed",
    work=work,
    background=_background,
    reuses_maps=True,
    protocol=_protocol,
    compared_as="cam",
)
