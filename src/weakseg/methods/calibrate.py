"""Maps whose values mean the same for every class: up to 1/3 background, from 2/3 on the class."""

import numpy as np

from weakseg.methods.base import (
    Artefact,
    Kind,
    PhotoMaps,
    PhotoTask,
    PhotoWork,
    Slot,
    Step,
    first_cell,
)
from weakseg.methods.levels import read_levels
from weakseg.methods.maps import open_class_maps
from weakseg.methods.settings import Section


class Calibrate(Section):
    """There is nothing to set."""


def work(step: Step) -> PhotoWork:
    """Maps (K, h, w) in [0, 1]: straight lines from 0 over a class's levels to 1.

    What was 0, the low level, the high one and 1 is 0, 1/3, 2/3 and 1.
    """
    maps, levels = open_class_maps(step["maps"]), read_levels(step["levels"])

    def compute(task: PhotoTask) -> PhotoMaps:
        scores = maps(task).scores
        for row, tag in zip(scores, task.sample.tags, strict=True):
            row[:] = np.interp(row, (0, *levels[tag], 1), (0, 1 / 3, 2 / 3, 1))
        return PhotoMaps(scores)

    return compute


KIND = Kind(
    name="calibrate",
    summary="maps on one scale for all classes: low up to 1/3, high from 2/3 on",
    settings=Calibrate,
    gives=frozenset({Artefact.MAPS}),
    takes=(
        Slot("maps", frozenset({Artefact.MAPS})),
        Slot("levels", frozenset({Artefact.LEVELS})),
    ),
    role="refiner",
    work=work,
    cell=first_cell,
)
