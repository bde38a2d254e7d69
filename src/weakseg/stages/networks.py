"""The networks that stages share: built by a recipe, kept as files."""

import json
from pathlib import Path

import safetensors
import safetensors.torch
import torch

from weakseg.errors import WeaksegError
from weakseg.files import write_bytes
from weakseg.networks.backbones import Backbone
from weakseg.networks.cam_classifier import CamClassifier, Head
from weakseg.recipe import BackboneSection, Recipe

_MADE_OF = "made_of"


def check_backbone(recipe: Recipe) -> None:
    """Find out, before anything runs, whether the recipe's backbone can be had.

    Raises:
        WeaksegError: if not, or if it lacks a stage that is wanted as a feature.
    """
    section = recipe.backbone
    stages = build_classifier(section, classes=1).backbone.stages
    missing = [i for i in recipe.localize.feature_stages if i >= len(stages)]
    if missing:
        raise WeaksegError(
            f"localize.feature_stages has {missing}; {section.name} has the stages 0 to "
            f"{len(stages) - 1}, with strides {[stage.stride for stage in stages]}."
        )


def build_classifier(
    backbone: BackboneSection, classes: int, head: Head = "linear"
) -> CamClassifier:
    """The network that a recipe asks for, with its ImageNet weights."""
    return CamClassifier(
        Backbone(
            backbone.name,
            backbone.weights,
            backbone.output_stride,
            backbone.dilated,
            backbone.head_convolution,
            backbone.frozen_stages,
        ),
        classes,
        head,
    )


def write_classifier(
    path: Path,
    network: CamClassifier,
    backbone: BackboneSection,
    head: Head,
    classes: tuple[str, ...],
) -> None:
    """Write a classifier with all that it takes to build it again."""
    made_of = json.dumps({"backbone": backbone.model_dump(), "head": head, "classes": classes})
    # One entry: safetensors writes several in an order of its own each time.
    metadata = {_MADE_OF: made_of}
    tensors = {key: value.contiguous() for key, value in network.state_dict().items()}
    write_bytes(path, safetensors.torch.save(tensors, metadata))


def read_classifier(path: Path, device: torch.device) -> CamClassifier:
    """Read what `write_classifier` wrote, in eval mode.

    Raises:
        WeaksegError: if the file is missing or corrupt.
    """
    try:
        with safetensors.safe_open(path, "pt") as file:
            made_of = json.loads(file.metadata()[_MADE_OF])
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        section = BackboneSection.model_validate(made_of["backbone"] | {"weights": "none"})
        network = build_classifier(section, len(made_of["classes"]), made_of["head"])
        network.load_state_dict(tensors)
    except (OSError, safetensors.SafetensorError, KeyError, TypeError, ValueError, RuntimeError):
        raise WeaksegError(
            f"{path} is no whole classifier. Remove the folder {path.parent} and run again to "
            "train it anew."
        ) from None
    return network.to(device).eval()
