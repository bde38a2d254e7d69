"""Panel pictures: what each stage made of a photo, side by side."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from weakseg.data.images import read_photo
from weakseg.data.masks import read_mask
from weakseg.drawing import draw_panel, overlay_heat, overlay_mask
from weakseg.files import write_atomically
from weakseg.stages import localize, refine
from weakseg.stages.base import Context, PhotoTask

NAME = "panels"


def run(context: Context) -> None:
    """Write `panels/ID.jpg` for the recipe's number of photos, spread evenly over the set."""
    samples = context.masked_samples()
    count = min(context.recipe.report.panels, len(samples))
    chosen = [samples[i * len(samples) // count] for i in range(count)]
    tasks = [PhotoTask(sample, context.class_ids(sample)) for sample in chosen]
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
            photo = read_photo(task.sample.image)
            cam = localize.full_size_cam(self.run / localize.NAME, task)
            heat = cam.max(axis=0) if len(cam) else np.zeros(photo.shape[:2], np.float32)
            columns = [("photo", photo), ("CAM", overlay_heat(photo, heat))]
            for stage, caption in (
                (localize.SEED, "seed"),
                (refine.SVM, "SVM"),
                (refine.SVM_CRF, "SVM + CRF"),
            ):
                mask = read_mask(self.run / stage / f"{task.id}.png")
                columns.append((caption, overlay_mask(photo, mask)))
            if task.sample.mask:
                columns.append(("ground truth", overlay_mask(photo, read_mask(task.sample.mask))))
            legend = [(self.classes[class_id - 1], class_id) for class_id in task.class_ids]
            with write_atomically(self.run / NAME / f"{task.id}.jpg") as temporary:
                draw_panel(columns, legend).save(temporary, quality=90)

        return work
