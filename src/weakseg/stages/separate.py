"""A classifier of its own for one class, and its CAM's share in the masks (paper B, section 5.1).

Paper B leaves `person` out of the tags that its classifier learns, for they are often missing, and
tries to bring it back into the third step by the CAM of a binary classifier (table 3).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from weakseg.data.dataset import Sample
from weakseg.data.masks import read_mask, write_mask
from weakseg.files import remove_partial_files
from weakseg.recipe import Separate
from weakseg.stages import classify, localize, localizer, pool, refine
from weakseg.stages.base import Context, Outputs, PhotoTask, map_photos, masks_of
from weakseg.stages.outputs import Output

NAME = "separate"
MERGED = "merged"


def run(context: Context) -> None:
    """Write `separate/`: a run of its own, from the class's tags to its `cam+crf` masks."""
    for step in _steps(context):
        folder = step.context.stage_folder(step.name)
        folder.mkdir(exist_ok=True)
        remove_partial_files(folder)
        step.run(step.context)


def outputs(context: Context) -> Iterator[Output]:
    """The files of its steps."""
    for step in _steps(context):
        yield from step.outputs(step.context)


def run_merged(context: Context) -> None:
    """Write `merged/ID.png`: masks of the recipe's stage, their background filled by the class."""
    settings = _settings(context)
    make = _Merger(
        context.stage_folder(settings.masks),
        context.stage_folder(NAME) / refine.CAM_CRF,
        context.stage_folder(MERGED),
        context.dataset.classes.index(settings.class_name) + 1,
    )
    map_photos(context, MERGED, make)


class _Step(NamedTuple):
    name: str
    run: Callable[[Context], None]
    outputs: Outputs
    context: Context


def _steps(context: Context) -> list[_Step]:
    own = _own_context(context)
    masked = own.of([sample for sample in own.masked_samples() if sample.tags])
    steps = [
        _Step(classify.NAME, classify.train, classify.outputs, own),
        _Step(localize.NAME, localizer.run, localize.outputs, masked),
        _Step(refine.CAM_CRF, refine.run_cam_crf, masks_of(refine.CAM_CRF), masked),
    ]
    if context.recipe.trains_on_pooled_features:
        steps.insert(0, _Step(pool.NAME, pool.run, pool.outputs, own))
    return steps


def _own_context(context: Context) -> Context:
    """The run's photos under a single class, which they have or don't."""
    name = _settings(context).class_name

    def alone(sample: Sample) -> Sample:
        carried = name in (*sample.tags, *sample.dropped)
        doubtful = (name,) if name in sample.doubtful else ()
        return replace(sample, tags=(name,) if carried else (), doubtful=doubtful, dropped=())

    samples = tuple(map(alone, context.dataset.samples))
    dataset = replace(context.dataset, classes=(name,), samples=samples)
    return replace(context, folder=context.stage_folder(NAME), dataset=dataset)


def _settings(context: Context) -> Separate:
    assert context.recipe.separate is not None
    return context.recipe.separate


@dataclass(frozen=True)
class _Merger:
    masks: Path
    of_class: Path
    folder: Path
    class_id: int

    def __call__(self) -> Callable[[PhotoTask], None]:
        def work(task: PhotoTask) -> None:
            mask = read_mask(self.masks / f"{task.id}.png")
            path = self.of_class / f"{task.id}.png"
            if path.exists():
                found = (read_mask(path) == 1) & (mask == 0)
                mask[found] = np.uint8(self.class_id)
            write_mask(self.folder / f"{task.id}.png", mask)

        return work
