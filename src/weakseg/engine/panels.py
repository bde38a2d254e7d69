"""Panel pictures: what each step made of a photo, side by side."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from weakseg.data.dataset import Sample
from weakseg.data.images import read_photo, shrink
from weakseg.data.masks import IGNORE, read_mask, resized_mask
from weakseg.drawing import draw_panel, overlay_heat, overlay_mask
from weakseg.engine.context import Context
from weakseg.engine.evaluate import truth_fault
from weakseg.engine.outputs import Output
from weakseg.files import write_atomically
from weakseg.grid import upsample
from weakseg.methods.base import PhotoTask, Step
from weakseg.methods.maps import MASK, open_class_maps

NAME = PLACE = "panels"
_LONG_SIDE = 500


def run(context: Context) -> None:
    """Write `panels/ID.jpg` for the recipe's number of photos, spread evenly over the set.

    Photos held out get as many, where a segmentation network is tried on them.
    """
    drawn = _groups(context)
    with context.progress.track(NAME, sum(len(samples) for _, samples in drawn)) as advance:
        for steps, samples in drawn:
            for _ in _draw(context, steps, samples):
                advance(1)


def outputs(context: Context) -> Iterator[Output]:
    """The pictures of the photos chosen."""
    for _, samples in _groups(context):
        for sample in samples:
            yield Output(context.folder / NAME / f"{sample.id}.jpg")


def _groups(context: Context) -> list[tuple[tuple[Step, ...], list[Sample]]]:
    """Steps, and the photos that they are shown on."""
    own, its = context.mask_steps(held_out=False), context.mask_steps(held_out=True)
    groups = [(own, context.masked_samples()), (its, context.tried_on())]
    if not its or context.recipe.data.held_out is None:
        groups = [(own + its, context.masked_samples())]
    return [(steps, chosen(context, samples)) for steps, samples in groups]


def chosen(context: Context, samples: Sequence[Sample]) -> list[Sample]:
    """The photos that get a panel: the recipe's number of them, spread evenly."""
    count = min(context.recipe.report.panels, len(samples))
    return [samples[i * len(samples) // count] for i in range(count)]


def draw(context: Context, steps: Sequence[Step], samples: Sequence[Sample]) -> None:
    """Write `panels/ID.jpg` of some photos, with what some steps have made of them."""
    for _ in _draw(context, steps, samples):
        pass


def _draw(context: Context, steps: Sequence[Step], samples: Sequence[Sample]) -> Iterator[None]:
    make = _PanelDrawer(context.folder / NAME, context.dataset.classes, tuple(steps))
    return context.cpu.map(make, [context.task(sample) for sample in samples])


@dataclass(frozen=True)
class _PanelDrawer:
    folder: Path
    classes: tuple[str, ...]
    steps: tuple[Step, ...]

    def __call__(self) -> Callable[[PhotoTask], None]:
        maps = {
            s.name: open_class_maps(s) for s in self.steps if s.kind.reuses_maps and s.source.kept
        }

        def work(task: PhotoTask) -> None:
            photo = shrink(read_photo(task.sample.image), _LONG_SIDE)
            size = photo.shape[:2]
            columns = [("photo", photo)]
            shown = set(task.class_ids)
            for step in self.steps:
                if step.name in maps:
                    heat = upsample(maps[step.name](task).scores, *size).max(axis=0, initial=0)
                    columns.append((step.name, overlay_heat(photo, heat)))
                else:
                    mask = resized_mask(read_mask(step.folder / f"{task.id}{MASK}"), *size)
                    shown |= set(np.unique(mask).tolist()) - {0, IGNORE}
                    columns.append((step.name, overlay_mask(photo, mask)))
            if task.sample.mask and not truth_fault(task.sample, len(self.classes)):
                truth = resized_mask(task.sample.mask.read(), *size)
                columns.append(("ground truth", overlay_mask(photo, truth)))
            legend = [(self.classes[class_id - 1], class_id) for class_id in sorted(shown)]
            with write_atomically(self.folder / f"{task.id}.jpg") as temporary:
                draw_panel(columns, legend).save(temporary, quality=90)

        return work
