"""A classifier of tags that is not trained: ImageNet's, with outputs for what the tags mean."""

from typing import Any

from pydantic import field_validator

from weakseg.data.imagenet import match_tags
from weakseg.files import write_json
from weakseg.methods.base import Artefact, File, Kind, Photos, Step, Tools
from weakseg.methods.classifier import CLASSIFIER
from weakseg.methods.settings import BackboneSection, Section
from weakseg.names import ALIASES, PACKAGED

MATCHES = "matches.json"


class ImageNet(Section):
    """A backbone whose package carries the classifier that it was trained with.

    Attributes:
        backbone: one of `efficientnet_lite0/1/2`, as it is.
    """

    backbone: BackboneSection

    @field_validator("backbone")
    @classmethod
    def _with_classifier(cls, backbone: BackboneSection) -> BackboneSection:
        if ALIASES.get(backbone.name, backbone.name) not in PACKAGED:
            raise ValueError(f"only {', '.join(ALIASES)} come with ImageNet's classifier")
        if backbone.weights != "imagenet" or not backbone.head_convolution:
            raise ValueError("the classifier needs weights: imagenet and head_convolution: true")
        return backbone


def run(step: Step, tools: Tools) -> None:
    """Write `classifier.safetensors`, and `matches.json`: ImageNet's classes for each tag.

    The outputs have the names of the tags that they stand for.
    """
    from weakseg.methods.networks import build_classifier, write_classifier
    from weakseg.networks.weights import read_rows

    backbone, matches = step.settings.backbone, match_tags(tools.photos.learned)
    for match in matches:
        tools.progress.say(f"{step.name}: {match}")
    outputs = [(match.tag, output) for match in matches for output in match.outputs]
    network = build_classifier(backbone, len(outputs))
    rows = read_rows(backbone.name)[[output for _, output in outputs]]
    network.head.weight.data.copy_(rows[..., None, None])
    names = tuple(tag for tag, _ in outputs)
    write_json(step.folder / MATCHES, {match.tag: match.names for match in matches})
    write_classifier(step.folder / CLASSIFIER, network, backbone, "linear", names)


def _check(step: Step, photos: Photos, device: Any) -> None:
    match_tags(photos.learned)


def _files(step: Step, photos: Photos) -> tuple[File, ...]:
    return File(MATCHES), File(CLASSIFIER)


KIND = Kind(
    name="imagenet",
    summary="ImageNet's classifier, untrained, for tags that mean some of its classes by WordNet",
    settings=ImageNet,
    gives=frozenset({Artefact.CLASSIFIER}),
    role="network",
    run=run,
    files=_files,
    photos="all",
    untrained=True,
    check=_check,
)
