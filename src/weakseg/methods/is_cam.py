"""Image-specific class activation maps, which have a background of their own (Chen et al. 2022)."""

from collections.abc import Mapping
from typing import Any

from weakseg.methods.base import Artefact, Kind, PhotoMaps, PhotoTask, PhotoWork, Slot, Step
from weakseg.methods.classifier import CLASSIFIER
from weakseg.methods.settings import Precision, Scales, Section
from weakseg.methods.sipe import SIPE


class IsCam(Section):
    """IS-CAMs, summed over several scales.

    Attributes:
        scales: factors on the photo's size, at which the network looks at it.
        precision: what the network computes in.
    """

    scales: Scales
    precision: Precision = "32-true"


def work(step: Step) -> PhotoWork:
    """Scores (K+1, h, w) in [0, 1]; see `weakseg.localize.sipe.localize_by_prototypes`."""
    import torch

    from weakseg.localize.sipe import localize_by_prototypes
    from weakseg.methods.networks import prepare, read_classifier, read_sides

    settings, trained = step.settings, step["sipe"]
    device = torch.device(step.device)
    network, computing = prepare(
        read_classifier(trained.folder / CLASSIFIER, device), settings.precision, device
    )
    sides = read_sides(trained.folder / SIPE, network.backbone, trained.settings.normalized, device)
    outputs = {name: index for index, name in enumerate(network.classes)}

    def compute(task: PhotoTask) -> PhotoMaps:
        classes = [outputs[tag] for tag in task.sample.tags]
        with computing():
            scores = localize_by_prototypes(
                network,
                sides,
                step.photo(task),
                classes,
                settings.scales,
                trained.settings.background_factor,
            )
        return PhotoMaps(scores)

    return compute


def _protocol(step: Step) -> Mapping[str, Any]:
    return {"crf": False}


KIND = Kind(
    name="is_cam",
    summary="image-specific CAMs with a background of their own, by SIPE (Chen et al. 2022)",
    settings=IsCam,
    gives=frozenset({Artefact.MAPS, Artefact.MASKS}),
    takes=(Slot("sipe", frozenset({Artefact.SIDES})),),
    role="seed",
    work=work,
    network=True,
    protocol=_protocol,
    compared_as="cam",
)
