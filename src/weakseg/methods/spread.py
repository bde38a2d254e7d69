"""Maps spread over a photo's cells of like features."""

from typing import Any

import numpy as np

from weakseg.grid import CELL
from weakseg.methods.base import Artefact, Kind, PhotoMaps, Photos, PhotoTask, PhotoWork, Slot, Step
from weakseg.methods.features import check_features, on_cells, open_cells
from weakseg.methods.maps import open_class_maps
from weakseg.refine.settings import SpreadSettings


def work(step: Step) -> PhotoWork:
    """Maps (K, h, w) in [0, 1] on a photo's cells; see `weakseg.refine.spread.spread`.

    A classifier's confidence that the maps come with is kept.
    """
    import torch

    from weakseg.networks.features import resized
    from weakseg.refine.spread import spread

    other = step.get("features")
    parts = {"features": other is None, "confidence": step["maps"].has_confidence}
    maps = open_class_maps(step["maps"], *(part for part, wanted in parts.items() if wanted))
    describe = open_cells(other) if other else None

    def compute(task: PhotoTask) -> PhotoMaps:
        scores, own, confidence = maps(task)
        features = describe(task) if describe else on_cells([np.asarray(own)], step, task)
        height, width = features.shape[1:]
        given = resized(torch.from_numpy(scores), (height, width))
        found = spread(given.numpy(), features.numpy(), step.settings, step.device)
        return PhotoMaps(found, confidence=confidence)

    return compute


def _check(step: Step, photos: Photos, device: Any) -> None:
    check_features(step, step.get("features") or step["maps"])


def _has_confidence(step: Step) -> bool:
    return step["maps"].has_confidence


def _cell(step: Step) -> int | None:
    return CELL


KIND = Kind(
    name="spread",
    summary="maps spread over a photo's cells of like features",
    settings=SpreadSettings,
    gives=frozenset({Artefact.MAPS}),
    takes=(
        Slot("maps", frozenset({Artefact.MAPS})),
        Slot("features", frozenset({Artefact.FEATURES, Artefact.MAPS}), optional=True),
    ),
    role="refiner",
    work=work,
    version=2,
    cell=_cell,
    network=True,
    confidence=_has_confidence,
    check=_check,
)
