"""A self-enhanced SVM for each photo, on shallow features, from confident samples of maps."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from weakseg.grid import upsample
from weakseg.methods.base import Artefact, Kind, PhotoMaps, Photos, PhotoTask, PhotoWork, Slot, Step
from weakseg.methods.features import check_features, open_features
from weakseg.methods.maps import open_class_maps
from weakseg.refine.settings import SVMSettings


def work(step: Step) -> PhotoWork:
    """Scores (K+1, h, w) on the features' grid; see `weakseg.refine.svm.refine_with_svm`."""
    from weakseg.refine.samples import image_rng
    from weakseg.refine.svm import refine_with_svm, zscore

    other = step.get("features")
    maps = open_class_maps(step["maps"], *([] if other else ["features"]))
    describe = open_features(other) if other else None

    def compute(task: PhotoTask) -> PhotoMaps:
        cam, own, _ = maps(task)
        features = describe(task) if describe else np.asarray(own, np.float32)
        if cam.shape[1:] != features.shape[1:]:
            cam = upsample(cam, *features.shape[1:])
        rng = image_rng(step.seed, task.id)
        return PhotoMaps(refine_with_svm(zscore(features), cam, step.settings, rng).scores)

    return compute


def _check(step: Step, photos: Photos, device: Any) -> None:
    check_features(step, step.get("features") or step["maps"])


def _protocol(step: Step) -> Mapping[str, Any]:
    thresholds = [step.settings.background_threshold, step.settings.foreground_threshold]
    return {"threshold": thresholds, "threshold_source": "recipe", "crf": False}


KIND = Kind(
    name="svm",
    summary="an SVM per photo on shallow features, from confident samples (Lyu et al.)",
    settings=SVMSettings,
    gives=frozenset({Artefact.MAPS, Artefact.MASKS}),
    takes=(
        Slot("maps", frozenset({Artefact.MAPS})),
        Slot("features", frozenset({Artefact.FEATURES, Artefact.MAPS}), optional=True),
    ),
    role="refiner",
    work=work,
    draws=True,
    check=_check,
    protocol=_protocol,
)
