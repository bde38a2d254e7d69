"""Let maps or masks walk between the class boundaries that an IRNet finds (Ahn et al. 2019)."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from weakseg.methods.base import Artefact, Kind, PhotoMaps, Photos, PhotoTask, PhotoWork, Slot, Step
from weakseg.methods.irnet import IRNET_SLOT, open_relations
from weakseg.methods.maps import open_class_maps, open_masks
from weakseg.methods.settings import Fraction, Precision, Section
from weakseg.refine.settings import RandomWalkSettings


class Walk(Section):
    """The walk, and the mask that is made of it.

    Attributes:
        threshold: the constant background of the walked maps.
        walk: how far it goes.
        precision: what IRNet computes in.
    """

    threshold: Fraction
    walk: RandomWalkSettings = Field(default_factory=RandomWalkSettings)
    precision: Precision = "32-true"


def work(step: Step) -> PhotoWork:
    """Walked maps (K, h, w) on IRNet's grid, with a peak of 1."""
    import torch

    from weakseg.refine.random_walk import random_walk, scale_to_peak

    relations, start, settings = open_relations(step), _open_start(step["start"]), step.settings
    device = torch.device(step.device)
    gpu = device if device.type == "cuda" else None

    def compute(task: PhotoTask) -> PhotoMaps:
        boundary = relations(task).boundary
        height, width = boundary.shape
        walking = start(task, (height, width))
        return PhotoMaps(scale_to_peak(random_walk(walking, boundary, settings.walk, gpu)))

    return compute


def _open_start(step: Step) -> Callable[[PhotoTask, tuple[int, int]], NDArray[np.float32]]:
    """What walks: the share of each class of a mask in every cell, or, without masks, the maps."""
    if Artefact.MASKS not in step.gives:
        maps = open_class_maps(step)
        return lambda task, size: maps(task).scores
    from weakseg.refine.random_walk import class_shares

    masks = open_masks(step)
    return lambda task, size: class_shares(masks(task), task.class_ids, size)


def _check(step: Step, photos: Photos, device: Any) -> None:
    if Artefact.MASKS not in step["start"].gives:
        step.check_rows("start")


def _background(step: Step) -> float | None:
    threshold: float = step.settings.threshold
    return threshold


def _protocol(step: Step) -> Mapping[str, Any]:
    return {
        "start": step["start"].name,
        "threshold": step.settings.threshold,
        "threshold_source": "recipe",
        "crf": False,
    }


KIND = Kind(
    name="walk",
    summary="a random walk of maps or masks between an IRNet's class boundaries",
    settings=Walk,
    gives=frozenset({Artefact.MAPS, Artefact.MASKS}),
    takes=(IRNET_SLOT, Slot("start", frozenset({Artefact.MAPS, Artefact.MASKS}))),
    role="refiner",
    version=2,
    work=work,
    network=True,
    background=_background,
    check=_check,
    protocol=_protocol,
)
