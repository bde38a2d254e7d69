"""What a segmentation network makes of the photos that it learned from, kept to their tags.

A network sees all photos, and learns what their pseudo masks have in common; faults that differ
from photo to photo it does not. With the tags to hold it to, its masks are better than those that
it was taught.
"""

from collections.abc import Mapping
from typing import Any

from weakseg.data.images import read_photo
from weakseg.errors import WeaksegError
from weakseg.grid import CELL
from weakseg.methods.base import Artefact, Kind, PhotoMaps, Photos, PhotoTask, PhotoWork, Slot, Step
from weakseg.methods.crf import logarithms
from weakseg.methods.deeplab import SEGMENTER
from weakseg.methods.pixel_head import open_scorer
from weakseg.methods.segment import TTA, SegmentationModel, Views, describe
from weakseg.methods.settings import Scales


class Relabel(Views):
    """The views of a photo that are averaged; by default those of test-time augmentation.

    A pixel head, given the features that it learned from, scores those, and has no views.
    """

    scales: Scales = TTA.scales
    flip: bool = TTA.flip


def work(step: Step) -> PhotoWork:
    """Scores (K+1, h, w) of the background and of a photo's own tags.

    They are logarithms of probabilities, or a pixel head's logits.
    """
    import torch

    if features := step.get("features"):
        score = open_scorer(step["network"], features)
        return lambda task: PhotoMaps(score(task)[[0, *task.class_ids]])

    model = SegmentationModel(step["network"].folder / SEGMENTER, torch.device(step.device))

    def compute(task: PhotoTask) -> PhotoMaps:
        (found,) = model.probabilities([read_photo(task.sample.image)], step.settings)
        return PhotoMaps(logarithms(found[[0, *task.class_ids]]))

    return compute


def _check(step: Step, photos: Photos, device: Any) -> None:
    features = step.get("features")
    if features and step["network"].get("features") is not features:
        raise WeaksegError(
            f"{step.name} reads the features of {features.name}, from which {step['network'].name} "
            "did not learn: leave them out."
        )


def _protocol(step: Step) -> Mapping[str, Any]:
    return {"crf": False, **describe(Views() if step.get("features") else step.settings)}


def _cell(step: Step) -> int | None:
    return CELL if step.get("features") else None


KIND = Kind(
    name="relabel",
    summary="a segmentation network's maps of the photos it learned from, kept to their tags",
    settings=Relabel,
    gives=frozenset({Artefact.MAPS, Artefact.MASKS}),
    takes=(
        Slot("network", frozenset({Artefact.SEGMENTER})),
        Slot("features", frozenset({Artefact.FEATURES}), optional=True),
    ),
    role="refiner",
    work=work,
    cell=_cell,
    network=True,
    check=_check,
    protocol=_protocol,
)
