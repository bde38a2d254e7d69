"""Semantic segmentation from image tags.

`label` makes masks of photos by what is in them, without training. `run` takes a recipe from tags
to masks, `open_run` reads what a run has made, `predict` segments other photos with its network;
the algorithms work alone, on arrays. Nothing is imported before it is used, and nothing of the
process is changed before a run is started.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from weakseg.version import VERSION

__version__ = VERSION

if TYPE_CHECKING:
    from weakseg.api import export_run as export_run
    from weakseg.api import label as label
    from weakseg.api import predict as predict
    from weakseg.api import report_run as report_run
    from weakseg.api import run as run
    from weakseg.engine.opened import Run as Run
    from weakseg.engine.opened import open_run as open_run
    from weakseg.errors import WeaksegError as WeaksegError
    from weakseg.localize.cam import localize_tags as localize_tags
    from weakseg.localize.seeds import mask_from_cam as mask_from_cam
    from weakseg.localize.seeds import seed_from_cam as seed_from_cam
    from weakseg.localize.settings import Merging as Merging
    from weakseg.metrics import ConfusionMatrix as ConfusionMatrix
    from weakseg.recipe import load_recipe as load_recipe
    from weakseg.refine.crf import dense_crf as dense_crf
    from weakseg.refine.crf import unary_from_labels as unary_from_labels
    from weakseg.refine.crf import unary_from_scores as unary_from_scores
    from weakseg.refine.par import refine_with_par as refine_with_par
    from weakseg.refine.random_walk import random_walk as random_walk
    from weakseg.refine.settings import CRFSettings as CRFSettings
    from weakseg.refine.settings import PARSettings as PARSettings
    from weakseg.refine.settings import RandomWalkSettings as RandomWalkSettings
    from weakseg.refine.settings import SpreadSettings as SpreadSettings
    from weakseg.refine.settings import SVMSettings as SVMSettings
    from weakseg.refine.spread import spread as spread
    from weakseg.refine.svm import refine_with_svm as refine_with_svm
    from weakseg.refine.svm import zscore as zscore

_HOMES = {
    "run": "weakseg.api",
    "predict": "weakseg.api",
    "label": "weakseg.api",
    "report_run": "weakseg.api",
    "export_run": "weakseg.api",
    "open_run": "weakseg.engine.opened",
    "Run": "weakseg.engine.opened",
    "load_recipe": "weakseg.recipe",
    "WeaksegError": "weakseg.errors",
    "localize_tags": "weakseg.localize.cam",
    "Merging": "weakseg.localize.settings",
    "seed_from_cam": "weakseg.localize.seeds",
    "mask_from_cam": "weakseg.localize.seeds",
    "zscore": "weakseg.refine.svm",
    "refine_with_svm": "weakseg.refine.svm",
    "SVMSettings": "weakseg.refine.settings",
    "spread": "weakseg.refine.spread",
    "SpreadSettings": "weakseg.refine.settings",
    "refine_with_par": "weakseg.refine.par",
    "PARSettings": "weakseg.refine.settings",
    "unary_from_labels": "weakseg.refine.crf",
    "unary_from_scores": "weakseg.refine.crf",
    "dense_crf": "weakseg.refine.crf",
    "CRFSettings": "weakseg.refine.settings",
    "random_walk": "weakseg.refine.random_walk",
    "RandomWalkSettings": "weakseg.refine.settings",
    "ConfusionMatrix": "weakseg.metrics",
}

__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'weakseg' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
