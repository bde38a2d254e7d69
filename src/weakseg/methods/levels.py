"""Which values of each class's maps are low and which high, by all photos' and without masks."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from weakseg.files import read_json, write_json
from weakseg.localize.levels import Levels, Rule, find_levels
from weakseg.methods.base import Artefact, File, Kind, Photos, PhotoTask, Slot, Step, Tools
from weakseg.methods.maps import open_class_maps
from weakseg.methods.settings import Section

LEVELS = "levels.json"

_MOST_VALUES = 1000
"""Of a photo's map that are looked at, evenly apart."""


class LevelsSettings(Section):
    """The rule, and how many photos a class needs for levels of its own, not those of all."""

    rule: Rule = "otsu"
    least_photos: int = Field(default=20, ge=1)


def run(step: Step, tools: Tools) -> None:
    """Write `levels.json`: of each class, and of all together, `low` and `high`."""
    classes = tools.photos.classes
    values: dict[int, list[NDArray[np.float32]]] = {}
    tasks = [tools.photos.task(sample) for sample in tools.photos.samples]
    with tools.progress.track(step.name, len(tasks)) as advance:
        for task, found in zip(tasks, tools.cpu.map(_Values(step), tasks), strict=True):
            for class_id, row in zip(task.class_ids, found, strict=True):
                values.setdefault(class_id, []).append(row)
            advance(1)
    if not values:
        write_json(step.folder / LEVELS, {})
        return
    settings = step.settings
    every = [row for rows in values.values() for row in rows]
    common = find_levels(np.concatenate(every), settings.rule)
    levels = {
        classes[class_id - 1]: find_levels(np.concatenate(rows), settings.rule)
        if len(rows) >= settings.least_photos
        else common
        for class_id, rows in sorted(values.items())
    }
    write_json(step.folder / LEVELS, {name: found._asdict() for name, found in levels.items()})


def read_levels(step: Step) -> dict[str, Levels]:
    """The levels of each class, by its name."""
    return {name: Levels(**found) for name, found in read_json(step.folder / LEVELS).items()}


@dataclass(frozen=True)
class _Values:
    step: Step

    def __call__(self) -> Callable[[PhotoTask], NDArray[np.float32]]:
        maps = open_class_maps(self.step["maps"])

        def work(task: PhotoTask) -> NDArray[np.float32]:
            found = maps(task).scores
            cells = found.shape[1] * found.shape[2]
            rows = found.reshape(len(found), cells)
            return rows[:, :: -(-cells // _MOST_VALUES)].clip(0, 1)

        return work


def _files(step: Step, photos: Photos) -> tuple[File, ...]:
    return (File(LEVELS),)


KIND = Kind(
    name="levels",
    summary="low and high values of each class's maps, by their distribution alone",
    settings=LevelsSettings,
    gives=frozenset({Artefact.LEVELS}),
    takes=(Slot("maps", frozenset({Artefact.MAPS})),),
    run=run,
    files=_files,
)
