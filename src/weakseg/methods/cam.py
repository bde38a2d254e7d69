"""Class activation maps and shallow features of every photo, by a classifier."""

from typing import Annotated, Any

from pydantic import Field, model_validator

from weakseg.errors import WeaksegError
from weakseg.grid import as_levels
from weakseg.methods.base import Artefact, Kind, PhotoMaps, Photos, PhotoTask, PhotoWork, Slot, Step
from weakseg.methods.classifier import CLASSIFIER, backbone_of
from weakseg.methods.settings import Precision, Scales, Section


class Cam(Section):
    """CAMs over several scales, and features of some of the backbone's stages for an SVM.

    `feature_stages` are indices of the backbone's stages, fine to coarse, from 0;
    `feature_scales` is a subset of `scales`.
    """

    scales: Scales
    feature_stages: tuple[Annotated[int, Field(ge=0)], ...] = ()
    feature_scales: Scales = (1.0,)
    precision: Precision = "32-true"

    @model_validator(mode="after")
    def _subset(self) -> "Cam":
        missing = sorted(set(self.feature_scales) - set(self.scales))
        if missing and self.feature_stages:
            raise ValueError(f"feature_scales has {missing}, which scales has not")
        if len(set(self.feature_stages)) < len(self.feature_stages):
            raise ValueError(f"feature_stages names a stage twice: {list(self.feature_stages)}")
        return self


def work(step: Step) -> PhotoWork:
    """Maps without a background (Lyu et al. eq. 2), features as levels, and confidence."""
    import torch

    from weakseg.localize.cam import localize_tags
    from weakseg.methods.networks import prepare, read_classifier

    settings, file = step.settings, step["classifier"].folder / CLASSIFIER
    device = torch.device(step.device)
    network, computing = prepare(read_classifier(file, device), settings.precision, device)
    outputs = {name: index for index, name in enumerate(network.classes)}

    def compute(task: PhotoTask) -> PhotoMaps:
        with computing():
            found = localize_tags(
                network,
                step.photo(task),
                [outputs[tag] for tag in task.sample.tags],
                settings.scales,
                settings.feature_stages,
                settings.feature_scales,
            )
        return PhotoMaps(found.cam, as_levels(found.features), found.confidence)

    return compute


def _has_features(step: Step) -> bool:
    return bool(step.settings.feature_stages)


def _channels(step: Step) -> int:
    from weakseg.methods.networks import build_classifier

    stages = build_classifier(backbone_of(step["classifier"]), 1).backbone.stages
    return sum(stages[i].channels for i in step.settings.feature_stages)


def _check(step: Step, photos: Photos, device: Any) -> None:
    from weakseg.methods.networks import build_classifier

    section = backbone_of(step["classifier"])
    stages = build_classifier(section, 1).backbone.stages
    missing = [i for i in step.settings.feature_stages if i >= len(stages)]
    if missing:
        raise WeaksegError(
            f"{step.name}.feature_stages has {missing}; {section.name} has the stages 0 to "
            f"{len(stages) - 1}, with strides {[stage.stride for stage in stages]}."
        )


KIND = Kind(
    name="cam",
    summary="multi-scale class activation maps of a classifier, with shallow features",
    settings=Cam,
    gives=frozenset({Artefact.MAPS}),
    takes=(Slot("classifier", frozenset({Artefact.CLASSIFIER})),),
    role="seed",
    work=work,
    network=True,
    features=_has_features,
    confidence=True,
    channels=_channels,
    check=_check,
)
