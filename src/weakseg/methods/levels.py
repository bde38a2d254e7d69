"""Which values of each class's maps are low and which high, by all photos' and without masks."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from weakseg.data.masks import IGNORE, resized_mask
from weakseg.errors import WeaksegError
from weakseg.files import read_json, write_json
from weakseg.localize.levels import Levels, Rule, count, find_levels
from weakseg.methods.base import Artefact, File, Kind, Photos, PhotoTask, Slot, Step, Tools
from weakseg.methods.maps import open_class_maps, open_masks
from weakseg.methods.settings import Section

LEVELS = "levels.json"

_MOST_VALUES = 1000
"""Of a photo's map that are looked at, evenly apart."""


class LevelsSettings(Section):
    """How the levels of a class are found.

    Attributes:
        rule: `otsu` cuts a class's values into three (Otsu 1979), `mixture` fits three Gaussians
            (Yang et al. 2024), `masks` goes by the masks of a second step that `of` names, for
            instance an SVM's.
        least_photos: how many photos a class needs for levels of its own, not those of all classes.
    """

    rule: Rule = "otsu"
    least_photos: int = Field(default=20, ge=1)


def run(step: Step, tools: Tools) -> None:
    """Write `levels.json`: of each class, and of all together, `low` and `high`.

    Raises:
        WeaksegError: no photo has a tag, or no mask a pixel that is certain.
    """
    classes = tools.photos.classes
    photos = np.zeros(len(classes), np.int64)
    counts = np.zeros((len(classes), *count(np.empty(0)).shape), np.int64)
    tasks = [tools.photos.task(sample) for sample in tools.photos.samples]
    with tools.progress.track(step.name, len(tasks)) as advance:
        for task, found in zip(tasks, tools.cpu.map(_Counts(step), tasks), strict=True):
            for class_id, counted in zip(task.class_ids, found, strict=True):
                photos[class_id - 1] += counted.any()
                counts[class_id - 1] += counted
            advance(1)
    if not counts.any():
        raise WeaksegError(f"{step.name}: no photo has a tag, or no mask a pixel that is certain.")
    settings = step.settings
    common = find_levels(counts.sum(axis=0), settings.rule)
    levels = {
        name: find_levels(counted, settings.rule) if own >= settings.least_photos else common
        for name, own, counted in zip(classes, photos, counts, strict=True)
    }
    write_json(step.folder / LEVELS, {name: found._asdict() for name, found in levels.items()})


def read_levels(step: Step) -> dict[str, Levels]:
    """The levels of each class, by its name."""
    return {name: Levels(**found) for name, found in read_json(step.folder / LEVELS).items()}


@dataclass(frozen=True)
class _Counts:
    step: Step

    def __call__(self) -> Callable[[PhotoTask], list[NDArray[np.int64]]]:
        maps, others = open_class_maps(self.step["maps"]), self.step.get("masks")
        masks = open_masks(others) if others else None

        def work(task: PhotoTask) -> list[NDArray[np.int64]]:
            found = maps(task).scores
            every = max(1, -(-found.shape[1] * found.shape[2] // _MOST_VALUES))
            rows = [row.ravel()[::every].clip(0, 1) for row in found]
            if masks is None:
                return [count(row) for row in rows]
            mask = resized_mask(masks(task), *found.shape[1:]).ravel()[::every]
            known = mask != IGNORE
            return [
                count(row[known], mask[known] == class_id)
                for row, class_id in zip(rows, task.class_ids, strict=True)
            ]

        return work


def _check(step: Step, photos: Photos, device: Any) -> None:
    masks = step.get("masks")
    if (step.settings.rule == "masks") != (masks is not None):
        raise WeaksegError(
            f"{step.name}: rule masks, and no other, goes by the masks of a second step: "
            + (f"give it, or leave out {masks.name}." if masks else "`of` names the maps alone.")
        )


def _files(step: Step, photos: Photos) -> tuple[File, ...]:
    return (File(LEVELS),)


KIND = Kind(
    name="levels",
    summary="low and high values of each class's maps, by their distribution or by masks",
    settings=LevelsSettings,
    gives=frozenset({Artefact.LEVELS}),
    takes=(
        Slot("maps", frozenset({Artefact.MAPS})),
        Slot("masks", frozenset({Artefact.MASKS}), optional=True),
    ),
    run=run,
    files=_files,
    check=_check,
)
