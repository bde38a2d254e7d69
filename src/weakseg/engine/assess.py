"""What can be said of a run's masks without ground truth: figures of each class, and remarks."""

from array import array
from collections import Counter, defaultdict
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from weakseg.data.masks import read_mask
from weakseg.data.tag_faults import TagFaults, find_tag_faults
from weakseg.engine.confidence import sight_behind, trained_behind
from weakseg.engine.context import Context
from weakseg.engine.executor import Each
from weakseg.engine.outputs import Output
from weakseg.files import read_json, write_json
from weakseg.methods.base import PhotoTask, Step
from weakseg.methods.maps import MASK, open_maps
from weakseg.names import FIGURES

NAME = "assess"
PLACE = ASSESSMENT = "assessment.json"

EMPTY, FULL = 0.005, 0.9
"""Shares of a photo: a mask that covers less is nearly empty, one that covers more nearly full."""

MANY = 0.25
"""The share of a class's photos from which on something is said of it."""

LEARNED = 0.2
"""How far from guessing to perfect a classifier that has learned a tag gets, at least."""

SEEN = 0.73
"""The least confidence of a network that sees a tag which it was not trained with.

ImageNet's classifier is as sure on 7 in 10 of VOC's photos with a tag, and on 1 in 10 without it.
"""

DISAGREEMENT = 0.2
"""The IoU of CAM and mask under which one of them is elsewhere."""


class _Found(NamedTuple):
    """What a mask says of one of its photo's tags."""

    class_id: int
    coverage: float
    agreement: float | None
    seeded: bool | None
    seen: bool | None


@dataclass
class _Masks:
    """What the masks of a class say: numbers, since a million photos have more than a million.

    Attributes:
        coverage: of each mask.
        agreement: of those that are not nearly empty, or it would say no more than that.
        seeded, seen: how many of the masks are so and how many are not.
    """

    coverage: "array[float]" = field(default_factory=lambda: array("d"))
    agreement: "array[float]" = field(default_factory=lambda: array("d"))
    seeded: Counter[bool] = field(default_factory=Counter)
    seen: Counter[bool] = field(default_factory=Counter)

    def add(self, one: _Found) -> None:
        self.coverage.append(one.coverage)
        if one.agreement is not None and one.coverage >= EMPTY:
            self.agreement.append(one.agreement)
        if one.seeded is not None:
            self.seeded[one.seeded] += 1
        if one.seen is not None:
            self.seen[one.seen] += 1


class _Judged(NamedTuple):
    """The steps whose files are read; of a kind that a recipe has not, there is none.

    Attributes:
        masks: the step that made them.
        cam, seeds: what they are compared with.
        classifier: that of the tags, if it was trained.
        sight: see `weakseg.engine.confidence.sight_behind`.
    """

    masks: Step
    cam: Step | None
    seeds: Step | None
    classifier: Step | None
    sight: Step | None


def run(context: Context) -> None:
    """Write `assessment.json`: an entry a class, of the photos tagged with it; see `_summary`.

    The masks that are judged are those of the last step of the recipe that makes any of the split's
    photos.
    """
    judged = _judged(context)
    photos = context.photos(judged.masks)
    make = Each(_compare, (judged,))
    found: defaultdict[int, _Masks] = defaultdict(_Masks)
    with context.progress.track(NAME, len(photos.samples)) as advance:
        for of_photo in context.cpu.map(make, map(photos.task, photos.samples)):
            for one in of_photo:
                found[one.class_id].add(one)
            advance(1)
    faults = find_tag_faults([sample.tags for sample in context.dataset.samples])
    if not context.learns_tags:
        faults = replace(faults, everywhere=(), together=(), rare=())
    trained = judged.classifier
    scores = read_json(trained.folder / FIGURES)["per_class"] if trained else {}
    classes = [
        _summary(name, found[class_id], faults, scores)
        for class_id, name in enumerate(context.dataset.classes, 1)
        if name in faults.counts
    ]
    content = {"masks": judged.masks.name, "photos": len(photos.samples), "classes": classes}
    write_json(context.folder / ASSESSMENT, content)


def outputs(context: Context) -> list[Output]:
    return [Output(context.folder / ASSESSMENT)]


def reads(context: Context) -> list[Step]:
    """The steps whose files are read."""
    return [step for step in _judged(context) if step]


def _judged(context: Context) -> _Judged:
    made = context.mask_steps(held_out=False)
    last = made[-1]

    def first(compared: str) -> Step | None:
        found = next((step for step in made if step.kind.compared_as == compared), None)
        return None if found is last else found

    return _Judged(last, first("cam"), first("seeds"), trained_behind(last), sight_behind(last))


def _compare(judged: _Judged, task: PhotoTask) -> list[_Found]:
    mask, cam, seeds = (
        read_mask(step.folder / f"{task.id}{MASK}") if step else None
        for step in (judged.masks, judged.cam, judged.seeds)
    )
    assert mask is not None
    sight = open_maps(judged.sight, "confidence")(task).confidence if judged.sight else None
    return [
        _Found(
            class_id,
            float(np.mean(mask == class_id)),
            None if cam is None else _iou(mask, cam, class_id),
            None if seeds is None else bool((seeds == class_id).any()),
            None if sight is None else bool(sight[row] >= SEEN),
        )
        for row, class_id in enumerate(task.class_ids)
    ]


def _iou(mask: NDArray[np.uint8], other: NDArray[np.uint8], class_id: int) -> float:
    one, two = mask == class_id, other == class_id
    union = np.count_nonzero(one | two)
    return float(np.count_nonzero(one & two) / union) if union else 0.0


def _summary(
    name: str,
    found: _Masks,
    faults: TagFaults,
    scores: dict[str, dict[str, float | None]],
) -> dict[str, Any]:
    """A class's entry; figures that nothing is known of are None.

    `average_precision` and `base_rate` are of tags held out from the classifier: a guess has the
    base rate. `coverage` is the median share of a photo that its mask covers, over the photos
    tagged with the class; of these, `nearly_empty`, `nearly_full` and `without_seeds` count those
    with less than `EMPTY` covered, with more than `FULL`, and with no pixel from which the SVM
    could learn the class. `unseen` counts those of whose tag a network is less sure than `SEEN`
    that was not trained with the tags. `cam_agreement` is the median IoU of the bare CAM's mask and
    the mask, where that is not nearly empty.
    """
    coverage, agreement = found.coverage, found.agreement
    summary: dict[str, Any] = {
        "name": name,
        "photos": faults.counts[name],
        "masks": len(coverage),
        "average_precision": scores.get("average_precision", {}).get(name),
        "base_rate": scores.get("base_rate", {}).get(name),
        "coverage": float(np.median(coverage)) if coverage else None,
        "nearly_empty": sum(value < EMPTY for value in coverage),
        "nearly_full": sum(value > FULL for value in coverage),
        "without_seeds": found.seeded[False] if found.seeded else None,
        "unseen": found.seen[False] if found.seen else None,
        "cam_agreement": float(np.median(agreement)) if agreement else None,
    }
    fault = faults.of(name)
    return {**summary, "remarks": [*([fault] if fault else []), *_remarks(summary)]}


def _remarks(summary: dict[str, Any]) -> list[str]:
    """What looks wrong with a class's masks."""
    precision, base = summary["average_precision"], summary["base_rate"]
    many = max(1, MANY * summary["masks"])
    agreement, unseen = summary["cam_agreement"], summary["unseen"] or 0
    rules = {
        "the classifier guesses": (
            precision is not None and precision < base + LEARNED * (1 - base)
        ),
        "often nearly empty": summary["nearly_empty"] >= many,
        "often nearly the whole photo": summary["nearly_full"] >= many,
        f"the network sees none on {unseen} of {summary['masks']}": unseen >= many,
        "often without seeds": (summary["without_seeds"] or 0) >= many,
        "elsewhere than its CAM": agreement is not None and agreement < DISAGREEMENT,
    }
    return [remark for remark, applies in rules.items() if applies]
