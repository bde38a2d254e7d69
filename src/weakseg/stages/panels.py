"""Panel pictures: what each stage made of a photo, side by side."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from weakseg.data.dataset import Sample
from weakseg.data.images import read_photo, shrink
from weakseg.data.masks import IGNORE, MaskFile, TrueMask
from weakseg.drawing import draw_panel, overlay_heat, overlay_mask
from weakseg.files import write_atomically
from weakseg.localize.grid import upsample
from weakseg.stages import localize
from weakseg.stages.base import Context, PhotoTask
from weakseg.stages.evaluate import MaskStage, truth_fault
from weakseg.stages.outputs import Output

NAME = "panels"
_LONG_SIDE = 500


def run(context: Context, stages: Sequence[MaskStage]) -> None:
    """Write `panels/ID.jpg` for the recipe's number of photos, spread evenly over the set.

    Photos held out get as many, where a segmentation network is tried on them.
    """
    drawn = _groups(context, stages)
    with context.progress.track(NAME, sum(len(samples) for _, samples in drawn)) as advance:
        for names, samples in drawn:
            for _ in _draw(context, names, samples):
                advance(1)


def outputs(context: Context, stages: Sequence[MaskStage]) -> Iterator[Output]:
    """The pictures of the photos chosen."""
    for _, samples in _groups(context, stages):
        for sample in samples:
            yield Output(context.stage_folder(NAME) / f"{sample.id}.jpg")


def _groups(context: Context, stages: Sequence[MaskStage]) -> list[tuple[list[str], list[Sample]]]:
    """Names of stages, and the photos that they are shown on."""
    own = [stage.name for stage in stages if not stage.held_out]
    its = [stage.name for stage in stages if stage.held_out]
    groups = [(own, context.masked_samples()), (its, context.tried_on())]
    if not its or context.recipe.data.held_out is None:
        groups = [(own + its, context.masked_samples())]
    return [(names, chosen(context, samples)) for names, samples in groups]


def chosen(context: Context, samples: Sequence[Sample]) -> list[Sample]:
    """The photos that get a panel: the recipe's number of them, spread evenly."""
    count = min(context.recipe.report.panels, len(samples))
    return [samples[i * len(samples) // count] for i in range(count)]


def draw(context: Context, stages: Sequence[str], samples: Sequence[Sample]) -> None:
    """Write `panels/ID.jpg` of some photos, with what the named stages have made of them."""
    for _ in _draw(context, stages, samples):
        pass


def _draw(context: Context, stages: Sequence[str], samples: Sequence[Sample]) -> Iterator[None]:
    make = _PanelDrawer(context.folder, context.dataset.classes, tuple(stages))
    return context.executor.map(make, [context.task(sample) for sample in samples])


@dataclass(frozen=True)
class _PanelDrawer:
    run: Path
    classes: tuple[str, ...]
    stages: tuple[str, ...]

    def __call__(self) -> Callable[[PhotoTask], None]:
        def work(task: PhotoTask) -> None:
            photo = shrink(read_photo(task.sample.image), _LONG_SIDE)
            size = photo.shape[:2]
            columns = [("photo", photo)]
            shown = set(task.class_ids)
            for stage in self.stages:
                if stage == localize.CAM:
                    found = localize.read_localization(self.run / localize.NAME, task.id)
                    heat = upsample(found.cam, *size).max(axis=0, initial=0)
                    columns.append(("CAM", overlay_heat(photo, heat)))
                else:
                    mask = _read_mask(MaskFile(self.run / stage / f"{task.id}.png"), size)
                    shown |= set(np.unique(mask).tolist()) - {0, IGNORE}
                    columns.append((stage, overlay_mask(photo, mask)))
            if task.sample.mask and not truth_fault(task.sample, len(self.classes)):
                truth = _read_mask(task.sample.mask, size)
                columns.append(("ground truth", overlay_mask(photo, truth)))
            legend = [(self.classes[class_id - 1], class_id) for class_id in sorted(shown)]
            with write_atomically(self.run / NAME / f"{task.id}.jpg") as temporary:
                draw_panel(columns, legend).save(temporary, quality=90)

        return work


def _read_mask(mask: TrueMask, size: tuple[int, int]) -> NDArray[np.uint8]:
    height, width = size
    return np.array(Image.fromarray(mask.read()).resize((width, height), Image.Resampling.NEAREST))
