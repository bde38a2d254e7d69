"""YOLO segmentation, as Ultralytics reads it: a text file of polygons for each photo."""

from pathlib import Path

import numpy as np
import yaml

from weakseg.data.contours import polygons
from weakseg.export.base import Exporter, Job, Masked
from weakseg.export.pictures import copy_photo, put
from weakseg.files import write_text


def write(job: Job, folder: Path) -> None:
    """`data.yaml`, `images/SPLIT/ID.jpg`, `labels/SPLIT/ID.txt`: a piece a line, `CLASS X Y ...`.

    A piece is of pixels that touch by their sides, of one class and one object. A polygon goes
    along the pixels' edges and joins holes by a seam, so that it holds the piece's pixels exactly;
    a photo of nothing has an empty file. `data.yaml` names no folder, so that it may be moved.
    """
    split = job.split
    for _ in job.map(draw, folder, split):
        pass
    place = f"images/{split}"
    names = dict(enumerate(job.run.classes))
    content = {"train": place, "val": place, "names": names}
    text = yaml.safe_dump(content, allow_unicode=True, sort_keys=False)
    write_text(folder / "data.yaml", text)


def draw(folder: Path, split: str, masked: Masked) -> None:
    copy_photo(masked.photo.image, folder / "images" / split, masked.photo.id)
    height, width = masked.size
    labels, classes = masked.regions()
    lines = []
    for number, class_id in enumerate(classes, start=1):
        for outline in polygons(labels == number):
            shares = np.array(outline) / (width, height)
            points = " ".join(f"{share:.7g}" for share in shares.ravel().tolist())
            lines.append(f"{class_id - 1} {points}\n")
    put(folder / "labels" / split / f"{masked.photo.id}.txt", "".join(lines).encode())


EXPORTER = Exporter(
    name="yolo",
    summary="YOLO segmentation: data.yaml, labels/SPLIT/ID.txt (polygons), images/SPLIT/",
    write=write,
    uncertain="are left out",
)
