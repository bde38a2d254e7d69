"""How sure each of a run's last masks is, without ground truth: `confidence.json`."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel

from weakseg.confidence import mask_confidence, mean_margin, probabilities
from weakseg.data.masks import read_mask
from weakseg.engine.context import Context
from weakseg.engine.executor import Each
from weakseg.engine.outputs import Output
from weakseg.files import as_written, read_entries, write_entries
from weakseg.methods.base import Artefact, Photos, PhotoTask, Step
from weakseg.methods.maps import MASK, open_maps, open_scores
from weakseg.methods.settings import Fraction

NAME = "confidence"
PLACE = CONFIDENCE = "confidence.json"

_LOOKED_AT = 200
"""Photos by which the scale of scores is told."""


class PhotoConfidence(BaseModel):
    """How sure a photo's mask is, and those of its classes."""

    confidence: Fraction
    classes: dict[str, Fraction] = {}


class _Content(BaseModel):
    step: str | None
    photos: dict[str, PhotoConfidence]


@dataclass(frozen=True)
class _Judged:
    """What tells how sure masks are.

    Attributes:
        masks: the step that made them.
        others: the other steps that made masks of these photos.
        scores: the nearest step behind it that keeps maps with a background, if there is one.
        sight: see `sight_behind`.
    """

    masks: Step
    others: tuple[Step, ...]
    scores: Step | None
    sight: Step | None


def run(context: Context) -> None:
    """Write `confidence.json`: of the recipe's last masks, how sure each photo and each class is.

    A photo is as sure as the least sure of its classes; one without a tag can't be wrong. What
    `weakseg.confidence` says of a class's mask is multiplied with how sure a network that was not
    trained with the tags is of the class. Where nothing tells (masks alone, and no others of the
    same photos), there is no photo in it.
    """
    judged = _judged(context)
    found: Iterable[tuple[str, Any]] = ()
    if judged.others or judged.scores:
        photos = context.photos(judged.masks)
        work = _Work(judged, _margin(context, judged.scores, photos) if judged.scores else 0.0)
        found = _judge(context, photos, work)
    beside = {"step": judged.masks.name}
    write_entries(context.folder / CONFIDENCE, found, under="photos", beside=beside)


def _judge(context: Context, photos: Photos, work: "_Work") -> Iterator[tuple[str, Any]]:
    names, samples = context.dataset.classes, photos.samples
    judged = context.cpu.map(work, map(photos.task, samples))
    with context.progress.track(NAME, len(samples)) as advance:
        for sample, values in zip(samples, judged, strict=True):
            pairs = zip(photos.task(sample).class_ids, values, strict=True)
            classes = {names[class_id - 1]: round(value, 4) for class_id, value in pairs}
            yield (
                sample.id,
                {"confidence": min(classes.values(), default=1.0), "classes": classes},
            )
            advance(1)


def outputs(context: Context) -> list[Output]:
    return [Output(context.folder / CONFIDENCE)]


def reads(context: Context) -> list[Step]:
    """The steps whose files are read."""
    judged = _judged(context)
    maps = [judged.scores.source] if judged.scores else []
    sight = [judged.sight] if judged.sight and judged.sight not in maps else []
    return [judged.masks, *judged.others, *maps, *sight]


def read_confidence(folder: Path) -> tuple[str | None, Iterator[tuple[str, PhotoConfidence]]]:
    """What `confidence.json` in a run's folder holds; nothing before the run has come so far.

    Returns:
        The step whose masks it is of, and how sure each photo's is, by id, as they are read.

    Raises:
        WeaksegError: it is damaged.
    """
    path = folder / CONFIDENCE
    if not path.exists():
        return None, iter(())
    content, entries = read_entries(path, "photos")
    with as_written(path):
        step = _Content.model_validate(content).step
    return step, _validated(path, entries)


def _validated(
    path: Path, entries: Iterable[tuple[str, Any]]
) -> Iterator[tuple[str, PhotoConfidence]]:
    for photo, value in entries:
        with as_written(path):
            entry = PhotoConfidence.model_validate(value)
        yield photo, entry


def _judged(context: Context) -> _Judged:
    *others, masks = context.mask_steps(held_out=False)
    alike = tuple(step for step in others if step.tags is masks.tags)
    return _Judged(masks, alike, scores_behind(masks), sight_behind(masks))


def scores_behind(masks: Step) -> Step | None:
    """The nearest step behind some masks that keeps maps with a background, of the same tags."""
    kept = (
        step
        for step in masks.behind()
        if {Artefact.MAPS, Artefact.MASKS} <= step.gives
        and step.source.kept
        and step.tags is masks.tags
    )
    return next(kept, None)


def sight_behind(masks: Step) -> Step | None:
    """The nearest step behind some masks whose maps say how sure the network is of each tag.

    None where one was trained with the photos' own tags, of which it is sure in any case.
    """
    if trained_behind(masks):
        return None
    kept = (
        step.source
        for step in masks.behind()
        if step.has_confidence and step.source.kept and step.tags is masks.tags
    )
    return next(kept, None)


def trained_behind(masks: Step) -> Step | None:
    """The nearest trained classifier of tags that some masks go back to, if to any."""
    trained = (
        step
        for step in masks.behind()
        if Artefact.CLASSIFIER in step.gives and not step.kind.untrained
    )
    return next(trained, None)


def _margin(context: Context, scores: Step, photos: Photos) -> float:
    tagged = [sample for sample in photos.samples if sample.tags]
    chosen = tagged[:: max(1, len(tagged) // _LOOKED_AT)]
    margins = list(context.cpu.map(Each(_margin_of, (scores,)), map(photos.task, chosen)))
    return float(np.mean(margins)) if margins else 0.0


def _margin_of(scores: Step, task: PhotoTask) -> float:
    return mean_margin(open_scores(scores)(task))


@dataclass(frozen=True)
class _Work:
    judged: _Judged
    margin: float

    def __call__(self) -> Callable[[PhotoTask], list[float]]:
        judged = self.judged
        scores = open_scores(judged.scores) if judged.scores else None
        sight = open_maps(judged.sight, "confidence") if judged.sight else None

        def work(task: PhotoTask) -> list[float]:
            if not task.class_ids:
                return []
            mask, *others = (
                read_mask(step.folder / f"{task.id}{MASK}")
                for step in (judged.masks, *judged.others)
            )
            probability = probabilities(scores(task), self.margin) if scores else None
            found = mask_confidence(mask, task.class_ids, others, probability)
            if sight is None:
                return found
            seen = sight(task).confidence
            assert seen is not None
            return [float(one * sure) for one, sure in zip(found, seen, strict=True)]

        return work
