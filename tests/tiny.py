"""A recipe so small that a run takes seconds, and helpers to run it."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from weakseg.recipe import Recipe, check_recipe

CRF = {
    "unary": "labels",
    "kernels": {
        "gaussian_sxy": 3,
        "gaussian_compat": 3,
        "bilateral_sxy": 30,
        "bilateral_srgb": 5,
        "bilateral_compat": 5,
        "iterations": 2,
    },
}

TINY = {
    "data": {"split": "all"},
    "backbone": {"name": "test_efficientnet", "weights": "none", "frozen_stages": 1},
    "classify": {
        "epochs": 3,
        "batch_size": 4,
        "long_side": [64, 96],
        "crop": 64,
        "optimizer": {
            "name": "sgd",
            "lr": 0.01,
            "head_lr": 0.1,
            "momentum": 0.9,
            "weight_decay": 0,
        },
        "validation_fraction": 0.25,
    },
    "localize": {"scales": [0.5, 1.0], "feature_stages": [0, 1], "feature_scales": [0.5, 1.0]},
    "svm": {
        "foreground_threshold": 0.5,
        "background_threshold": 0.2,
        "samples_per_class": 50,
        "cycles": 1,
    },
    "crf": CRF,
    "cam_crf": CRF,
    "evaluate": {"cam_threshold": 0.4},
    "report": {"panels": 2},
}

NETWORK = {
    "backbone": {"name": "test_efficientnet", "weights": "none", "output_stride": 16},
    "epochs": 2,
    "batch_size": 4,
    "long_side": [48, 80],
    "crop": 48,
    "optimizer": TINY["classify"]["optimizer"],
}
"""What the sections `irn` and `segment` share."""

SEGMENT = {**NETWORK, "masks": "cam", "tta_scales": [0.5, 1.0]}


class Lines:
    """A progress that keeps what was said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)

    def track(
        self, name: str, total: int, done: int = 0
    ) -> AbstractContextManager[Callable[[int], None]]:
        self.said.append(f"{name}: {done} of {total} done before")
        return nullcontext(lambda count: None)


def tiny_recipe(**sections: dict) -> Recipe:
    values = {**TINY, **{k: {**TINY.get(k, {}), **v} for k, v in sections.items()}}
    return check_recipe(values, "tiny")


Start = Callable[..., Lines]


def masks(out: Path) -> dict[str, bytes]:
    """Every mask, map and picture of a run."""
    return {
        str(path.relative_to(out)): path.read_bytes()
        for path in sorted(out.rglob("*"))
        if path.suffix in (".png", ".safetensors")
    }
