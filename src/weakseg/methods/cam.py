"""Class activation maps and shallow features of every photo, by a classifier."""

from typing import Annotated, Any

from pydantic import Field, model_validator

from weakseg.data.images import photo_size, shrunk_size
from weakseg.errors import WeaksegError
from weakseg.grid import as_levels, grid_size
from weakseg.localize.settings import Merging
from weakseg.methods.base import (
    Artefact,
    Kind,
    PhotoMaps,
    Photos,
    PhotoTask,
    PhotoWork,
    Slot,
    Step,
    with_confidence,
)
from weakseg.methods.classifier import CLASSIFIER, backbone_of, learned_from
from weakseg.methods.features import check_scales, check_stages, open_tensors
from weakseg.methods.settings import Precision, Scales, Section
from weakseg.names import final


class Cam(Section):
    """CAMs over several scales, and features of some of the backbone's stages for an SVM.

    CAMs of a step's features need no pass of the backbone; those features serve an SVM as well.
    They are means over the mirror image already, so that `merging.flip` can't be set there.

    Attributes:
        scales: factors on the photo's size, at which the classifier looks at it.
        feature_stages: indices of the backbone's stages, fine to coarse, from 0; none: no features.
        feature_scales: those of `scales` at which features are kept.
        precision: what the network computes in.
        merging: how the maps of the scales become one.
    """

    scales: Scales
    feature_stages: tuple[Annotated[int, Field(ge=0)], ...] = ()
    feature_scales: Scales = (1.0,)
    precision: Precision = "32-true"
    merging: Merging = Merging()

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
    if features := step.get("features"):
        return _of_features(step, features)
    import torch

    from weakseg.localize.cam import localize_tags
    from weakseg.methods.networks import prepare, read_classifier

    settings, file = step.settings, step["classifier"].folder / CLASSIFIER
    device = torch.device(step.device)
    network, computing = prepare(read_classifier(file, device), settings.precision, device)
    outputs = network.outputs()

    def compute(task: PhotoTask) -> PhotoMaps:
        with computing():
            found = localize_tags(
                network,
                step.photo(task),
                [outputs[tag] for tag in task.sample.tags],
                settings.scales,
                settings.feature_stages,
                settings.feature_scales,
                settings.merging,
            )
        return PhotoMaps(found.cam, as_levels(found.features), found.confidence)

    return compute


def _of_features(step: Step, features: Step) -> PhotoWork:
    """Maps and confidence, of the features that a step keeps."""
    import torch

    from weakseg.localize.cam import merge, outputs_of
    from weakseg.methods.networks import read_classifier
    from weakseg.networks.cam_classifier import confidences

    settings, given = step.settings, step["classifier"]
    network = read_classifier(given.folder / CLASSIFIER, torch.device("cpu"))
    outputs = network.outputs()
    names = [learned_from(given.settings), *map(final, settings.scales)]
    read = open_tensors(features, *names)

    @torch.inference_mode()
    def compute(task: PhotoTask) -> PhotoMaps:
        rows, _ = outputs_of([outputs[tag] for tag in task.sample.tags])
        learned, *finals = (torch.from_numpy(tensor).float() for tensor in read(task))
        maps = (network.maps_of(final[None])[:, rows] for final in finals)
        size = grid_size(*shrunk_size(*photo_size(task.sample.image), step.long_side))
        cam = merge((torch.cat([m, m.flip(-1)]) for m in maps), size, settings.merging)
        confidence = confidences(network.classify_kept(learned)[:, rows])
        return PhotoMaps(cam.numpy(), confidence=confidence.numpy())

    return compute


def _has_features(step: Step) -> bool:
    return bool(step.settings.feature_stages)


def _cell_bytes(step: Step) -> float:
    from weakseg.methods.networks import build_classifier

    stages = build_classifier(backbone_of(step["classifier"]), 1).backbone.stages
    channels: int = sum(stages[i].channels for i in step.settings.feature_stages)
    return channels


def _check(step: Step, photos: Photos, device: Any) -> None:
    given, features = step["classifier"], step.get("features")
    backbone, settings = backbone_of(given), step.settings
    check_stages(f"{step.name}.feature_stages", settings.feature_stages, backbone)
    if features is None:
        return
    if settings.feature_stages or given.get("features") is not features:
        raise WeaksegError(
            f"{step.name}: the CAMs of features are those of a classifier that learned from them, "
            "and come without features of their own: have the classifier read "
            f"{features.name}, and leave out feature_stages."
        )
    if settings.merging.flip != Merging().flip:
        raise WeaksegError(
            f"{step.name}.merging.flip is {settings.merging.flip}, and {features.name} keeps the "
            "mean of a photo and of its mirror image. Leave it out, or leave the features out of "
            "`of`."
        )
    check_scales(step, features, settings.scales)


KIND = Kind(
    name="cam",
    summary="multi-scale class activation maps of a classifier, with shallow features",
    settings=Cam,
    gives=frozenset({Artefact.MAPS}),
    takes=(
        Slot("classifier", frozenset({Artefact.CLASSIFIER})),
        Slot("features", frozenset({Artefact.FEATURES}), optional=True),
    ),
    role="seed",
    work=work,
    network=True,
    features=_has_features,
    confidence=with_confidence,
    cell_bytes=_cell_bytes,
    check=_check,
)
