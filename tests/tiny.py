"""A recipe so small that a run takes seconds, and helpers to run it."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from weakseg.recipe import Recipe, check_recipe

CRF: dict[str, Any] = {
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

SGD = {"name": "sgd", "lr": 0.01, "head_lr": 0.1, "momentum": 0.9, "weight_decay": 0}

BACKBONE = {"name": "test_efficientnet", "weights": "none"}

STEPS: dict[str, dict[str, Any]] = {
    "classify": {
        "kind": "classifier",
        "backbone": {**BACKBONE, "frozen_stages": 1},
        "epochs": 3,
        "batch_size": 4,
        "long_side": [64, 96],
        "crop": 64,
        "optimizer": SGD,
        "validation_fraction": 0.25,
    },
    "localize": {
        "kind": "cam",
        "of": "classify",
        "scales": [0.5, 1.0],
        "feature_stages": [0, 1],
        "feature_scales": [0.5, 1.0],
    },
    "cam": {"kind": "threshold", "of": "localize", "background": 0.4},
    "cam+crf": {"kind": "crf", "of": "cam", **CRF},
    "seed": {
        "kind": "seed",
        "of": "localize",
        "foreground_threshold": 0.5,
        "background_threshold": 0.2,
    },
    "svm": {
        "kind": "svm",
        "of": "localize",
        "foreground_threshold": 0.5,
        "background_threshold": 0.2,
        "samples_per_class": 50,
        "cycles": 1,
    },
    "svm+crf": {"kind": "crf", "of": "svm", **CRF},
}

POOLED: dict[str, Any] = {
    "pool": {"kind": "features", "backbone": {**BACKBONE, "frozen_stages": -1}},
    "classify": {
        "of": "pool",
        **dict.fromkeys(("backbone", "long_side", "crop"), ...),
    },
}
"""Steps for `tiny_recipe` whose classifier learns from pooled features."""

NETWORK = {
    "backbone": {**BACKBONE, "output_stride": 16},
    "epochs": 2,
    "batch_size": 4,
    "long_side": [48, 80],
    "crop": 48,
    "optimizer": SGD,
}
"""What the training of an IRNet and that of a segmentation network share."""

IRN: dict[str, Any] = {
    "irn-labels": {"kind": "irn_labels", "of": "localize", **CRF},
    "irnet": {"kind": "irnet", "of": ["irn-labels", "localize"], **NETWORK},
    "irn": {
        "kind": "walk",
        "of": ["irnet", "localize"],
        "walk": {"radius": 3, "beta": 4, "steps": 8},
        "threshold": 0.5,
    },
}
"""Steps for `tiny_recipe`: IRNet, taught by CAMs, which walk."""

SEGMENT: dict[str, Any] = {
    "segmenter": {"kind": "deeplab", "of": "cam", **NETWORK},
    "segment": {"kind": "segment", "of": "segmenter"},
    "segment+tta": {"kind": "segment", "of": "segmenter", "scales": [0.5, 1.0], "flip": True},
}
"""Steps for `tiny_recipe`: a segmentation network, and its masks."""


CELLS: dict[str, Any] = {
    "features": {
        "kind": "features",
        "backbone": {**BACKBONE, "frozen_stages": -1},
        "scales": [1.0, 2.0],
        "stages": [0, 1],
    },
    "heads": {
        "kind": "classifier",
        "of": "features",
        "pooling": {"name": "best", "share": 0.2},
        "scale": 2.0,
        "epochs": 2,
        "batch_size": 4,
        "optimizer": SGD,
    },
    "heads-cam": {"kind": "cam", "of": ["heads", "features"], "scales": [1.0, 2.0]},
    "spread": {"kind": "spread", "of": ["heads-cam", "features"]},
    "levels": {"kind": "levels", "of": "spread", "least_photos": 2},
    "calibrated": {"kind": "calibrate", "of": ["spread", "levels"]},
    "spread-mask": {"kind": "threshold", "of": "calibrated", "background": 0.5},
    "pixels": {
        "kind": "pixel_head",
        "of": ["features", "spread-mask"],
        "epochs": 2,
        "batch_size": 64,
        "optimizer": {"name": "adamw", "lr": 0.005, "head_lr": 0.005, "weight_decay": 0.001},
        "folds": 2,
    },
    "pixel-masks": {"kind": "relabel", "of": ["pixels", "features"]},
}
"""Steps for `tiny_recipe`: CAMs and a pixel head of features that are kept."""

EVERY_KIND: dict[str, Any] = {
    **IRN,
    **SEGMENT,
    "first": STEPS["classify"],
    "screen": {"kind": "missing_tags", "of": "first", "folds": 2},
    "classify": {"of": "screen"},
    "pool": POOLED["pool"],
    "imagenet": {"kind": "imagenet", "backbone": {"name": "efficientnet_lite0"}},
    "tags": {"kind": "tags", "only": ["car"]},
    "pooled": {
        "kind": "classifier",
        "of": ["pool", "tags"],
        "epochs": 1,
        "batch_size": 4,
        "optimizer": SGD,
    },
    "layer-cam": {"kind": "gradcam", "of": "classify", "layer": 1, "scales": [0.5, 1.0]},
    "oaa": {
        "kind": "oaa",
        "backbone": BACKBONE,
        "head": "linear",
        "long_side": 64,
        "epochs": 3,
        "batch_size": 2,
        "optimizer": SGD,
    },
    "taught": {
        "kind": "sipe",
        **{key: STEPS["classify"][key] for key in STEPS["classify"] if key != "kind"},
    },
    "is-cam": {"kind": "is_cam", "of": "taught", "scales": [0.5, 1.0]},
    "objects": {"kind": "instances", "of": ["irnet", "irn"]},
    "relabel": {"kind": "relabel", "of": "segmenter"},
    "segment+crf": {"kind": "segment", "of": "segmenter", "crf": CRF},
    "seeded": {"kind": "deeplab", "of": "seed", "loss": {"name": "dsrg"}, **NETWORK},
    "diffused": {"kind": "par", "of": "cam", "iterations": 2},
    "given": {"kind": "folder", "path": "/masks", "holds": "masks"},
    "pieces": {"kind": "components", "of": ["irn", "seed"], "least_share": 0.01},
    "both": {"kind": "combine", "of": ["svm", "irn"], "how": "mean", "weights": [1, 2]},
    **CELLS,
}
"""Steps for `tiny_recipe`: with its own, one of each kind at least."""

UNKEPT: dict[str, Any] = {
    **dict.fromkeys(("cam", "cam+crf", "seed")),
    "localize": {"keep": False},
    "svm": {"keep": False},
}
"""Changes for `tiny_recipe` that leave nothing but the last masks."""


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


class CutOff(Exception):  # noqa: N818
    """Ends a run that has `Cutting` for its progress."""


class Cutting(Lines):
    """Cuts a run off when a line begins in some way."""

    def __init__(self, start: str) -> None:
        super().__init__()
        self._start = start

    def say(self, text: str) -> None:
        super().say(text)
        if text.startswith(self._start):
            raise CutOff


def tiny_values(**changes: Any) -> dict[str, Any]:
    """A tiny recipe's values, with changes: of `data`, `report` and `seed`, and of steps by name.

    A number as `seed` is the recipe's; there is a step of that name as well. A step's changes are
    merged into it, `...` takes a key away, and None leaves the step out.
    """
    values: dict[str, Any] = {"data": {"split": "all"}, "report": {"panels": 2}}
    steps: dict[str, Any] = {name: dict(step) for name, step in STEPS.items()}
    for name, change in changes.items():
        if name in ("data", "report"):
            values[name] = {**values[name], **change}
        elif isinstance(change, int):
            values[name] = change
        elif change is None:
            steps.pop(name, None)
        else:
            merged = {**steps.get(name, {}), **change}
            steps[name] = {key: value for key, value in merged.items() if value is not ...}
    return {**values, "steps": steps}


def tiny_recipe(**changes: Any) -> Recipe:
    """The recipe of `tiny_values`."""
    return check_recipe(tiny_values(**changes), "tiny")


Start = Callable[..., Lines]


def masks(out: Path) -> dict[str, bytes]:
    """Every mask, map and picture of a run."""
    return {
        str(path.relative_to(out)): path.read_bytes()
        for path in sorted(out.rglob("*"))
        if path.suffix in (".png", ".safetensors")
    }
