"""What can be said of a run's masks without ground truth: figures of each class, and remarks."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from weakseg.data.masks import read_mask
from weakseg.data.tags import TagFaults, find_tag_faults
from weakseg.files import read_json, write_json
from weakseg.names import CLASSIFY, FIGURES
from weakseg.recipe import Recipe
from weakseg.stages import localize
from weakseg.stages.base import Context, PhotoTask

NAME = "assess"
ASSESSMENT = "assessment.json"

EMPTY, FULL = 0.005, 0.9
"""Shares of a photo: a mask that covers less is nearly empty, one that covers more nearly full."""

MANY = 0.25
"""The share of a class's photos from which on something is said of it."""

LEARNED = 0.2
"""How far from guessing to perfect a classifier that has learned a tag gets, at least."""

DISAGREEMENT = 0.2
"""The IoU of CAM and mask under which one of them is elsewhere."""


class _Found(NamedTuple):
    """What a mask says of one of its photo's tags."""

    class_id: int
    coverage: float
    agreement: float | None
    seeded: bool | None


def run(context: Context, masks: str) -> None:
    """Write `assessment.json`: an entry a class, of the photos tagged with it; see `assess`.

    Args:
        masks: the stage whose masks are judged.
    """
    samples = context.masked_samples()
    make = _Comparison(
        masks=context.stage_folder(masks),
        cam=_folder_of(context, localize.CAM, masks),
        seeds=_folder_of(context, localize.SEED, masks),
    )
    found: dict[int, list[_Found]] = {}
    with context.progress.track(NAME, len(samples)) as advance:
        for of_photo in context.executor.map(make, [context.task(s) for s in samples]):
            for one in of_photo:
                found.setdefault(one.class_id, []).append(one)
            advance(1)
    faults = find_tag_faults([sample.tags for sample in context.dataset.samples])
    scores = read_json(context.stage_folder(CLASSIFY) / FIGURES)["per_class"]
    classes = [
        _summary(name, found.get(class_id, []), faults, scores)
        for class_id, name in enumerate(context.dataset.classes, 1)
        if name in faults.counts
    ]
    content = {"masks": masks, "photos": len(samples), "classes": classes}
    write_json(context.folder / ASSESSMENT, content)


def needs(recipe: Recipe) -> tuple[str, ...]:
    """The stages whose files are read."""
    read = [name for name in (localize.CAM, localize.SEED) if name in recipe.mask_stages]
    return tuple(dict.fromkeys((CLASSIFY, *read, recipe.final_masks)))


def _folder_of(context: Context, name: str, masks: str) -> Path | None:
    there = name in context.recipe.mask_stages and name != masks
    return context.stage_folder(name) if there else None


@dataclass(frozen=True)
class _Comparison:
    masks: Path
    cam: Path | None
    seeds: Path | None

    def __call__(self) -> Callable[[PhotoTask], list[_Found]]:
        def work(task: PhotoTask) -> list[_Found]:
            mask, cam, seeds = (
                read_mask(folder / f"{task.id}.png") if folder else None
                for folder in (self.masks, self.cam, self.seeds)
            )
            assert mask is not None
            return [
                _Found(
                    class_id,
                    float(np.mean(mask == class_id)),
                    None if cam is None else _iou(mask, cam, class_id),
                    None if seeds is None else bool((seeds == class_id).any()),
                )
                for class_id in task.class_ids
            ]

        return work


def _iou(mask: NDArray[np.uint8], other: NDArray[np.uint8], class_id: int) -> float:
    one, two = mask == class_id, other == class_id
    union = np.count_nonzero(one | two)
    return float(np.count_nonzero(one & two) / union) if union else 0.0


def _summary(
    name: str,
    found: Sequence[_Found],
    faults: TagFaults,
    scores: dict[str, dict[str, float | None]],
) -> dict[str, Any]:
    """A class's entry; figures that nothing is known of are None.

    `average_precision` and `base_rate` are of tags held out from the classifier: a guess has the
    base rate. `coverage` is the median share of a photo that its mask covers, over the photos
    tagged with the class; of these, `nearly_empty`, `nearly_full` and `without_seeds` count those
    with less than `EMPTY` covered, with more than `FULL`, and with no pixel from which the SVM
    could learn the class. `cam_agreement` is the median IoU of the bare CAM's mask and the mask,
    where that is not nearly empty.
    """
    coverage = [one.coverage for one in found]
    agreement = [
        one.agreement
        for one in found
        if one.agreement is not None and one.coverage >= EMPTY  # or it says no more than that
    ]
    seeded = [one.seeded for one in found if one.seeded is not None]
    summary: dict[str, Any] = {
        "name": name,
        "photos": faults.counts[name],
        "masks": len(found),
        "average_precision": scores["average_precision"][name],
        "base_rate": scores["base_rate"][name],
        "coverage": float(np.median(coverage)) if coverage else None,
        "nearly_empty": sum(value < EMPTY for value in coverage),
        "nearly_full": sum(value > FULL for value in coverage),
        "without_seeds": sum(not value for value in seeded) if seeded else None,
        "cam_agreement": float(np.median(agreement)) if agreement else None,
    }
    fault = faults.of(name)
    return {**summary, "remarks": [*([fault] if fault else []), *_remarks(summary)]}


def _remarks(summary: dict[str, Any]) -> list[str]:
    """What looks wrong with a class's masks."""
    precision, base = summary["average_precision"], summary["base_rate"]
    many = max(1, MANY * summary["masks"])
    agreement = summary["cam_agreement"]
    rules = {
        "the classifier guesses": (
            precision is not None and precision < base + LEARNED * (1 - base)
        ),
        "often nearly empty": summary["nearly_empty"] >= many,
        "often nearly the whole photo": summary["nearly_full"] >= many,
        "often without seeds": (summary["without_seeds"] or 0) >= many,
        "elsewhere than its CAM": agreement is not None and agreement < DISAGREEMENT,
    }
    return [remark for remark, applies in rules.items() if applies]


def table(classes: Iterable[dict[str, Any]]) -> list[tuple[str, ...]]:
    """Entries for people: shares in percent, counts, remarks."""

    def percent(value: float | None) -> str:
        return "-" if value is None else f"{100 * value:.0f}"

    def number(value: int | None) -> str:
        return "-" if value is None else str(value)

    return [
        (
            entry["name"],
            str(entry["photos"]),
            f"{percent(entry['average_precision'])} ({percent(entry['base_rate'])})",
            percent(entry["coverage"]),
            str(entry["nearly_empty"]),
            str(entry["nearly_full"]),
            number(entry["without_seeds"]),
            percent(entry["cam_agreement"]),
            "; ".join(entry["remarks"]),
        )
        for entry in classes
    ]
