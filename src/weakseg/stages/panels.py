"""Panel pictures: what each stage made of a photo, side by side."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from weakseg.data.images import read_photo, shrink
from weakseg.data.masks import read_mask
from weakseg.drawing import draw_panel, overlay_heat, overlay_mask
from weakseg.files import write_atomically
from weakseg.localize.cam import upsample
from weakseg.stages import localize, refine
from weakseg.stages.base import Context, PhotoTask
from weakseg.stages.evaluate import truth_fault

NAME = "panels"
_LONG_SIDE = 500


def run(context: Context) -> None:
    """Write `panels/ID.jpg` for the recipe's number of photos, spread evenly over the set."""
    samples = context.masked_samples()
    count = min(context.recipe.report.panels, len(samples))
    chosen = [samples[i * len(samples) // count] for i in range(count)]
    tasks = [context.task(sample) for sample in chosen]
    make = _PanelDrawer(context.folder, context.dataset.classes)
    with context.progress.track(NAME, count) as advance:
        for _ in context.executor.map(make, tasks):
            advance(1)


@dataclass(frozen=True)
class _PanelDrawer:
    run: Path
    classes: tuple[str, ...]

    def __call__(self) -> Callable[[PhotoTask], None]:
        def work(task: PhotoTask) -> None:
            photo = shrink(read_photo(task.sample.image), _LONG_SIDE)
            size = photo.shape[:2]
            cam = upsample(localize.read_localization(self.run / localize.NAME, task.id).cam, *size)
            heat = cam.max(axis=0, initial=0)
            columns = [("photo", photo), ("CAM", overlay_heat(photo, heat))]
            for stage, caption in (
                (localize.SEED, "seed"),
                (refine.SVM, "SVM"),
                (refine.SVM_CRF, "SVM + CRF"),
            ):
                mask = _read_mask(self.run / stage / f"{task.id}.png", size)
                columns.append((caption, overlay_mask(photo, mask)))
            if task.sample.mask and not truth_fault(task.sample, len(self.classes)):
                truth = _read_mask(task.sample.mask, size)
                columns.append(("ground truth", overlay_mask(photo, truth)))
            legend = [(self.classes[class_id - 1], class_id) for class_id in task.class_ids]
            with write_atomically(self.run / NAME / f"{task.id}.jpg") as temporary:
                draw_panel(columns, legend).save(temporary, quality=90)

        return work


def _read_mask(path: Path, size: tuple[int, int]) -> NDArray[np.uint8]:
    height, width = size
    mask = Image.fromarray(read_mask(path))
    return np.array(mask.resize((width, height), Image.Resampling.NEAREST))
