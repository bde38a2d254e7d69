"""COCO's panoptic task: PNG files of segments, a JSON file that says what they are."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from weakseg.data.masks import BACKGROUND, VOC_PALETTE
from weakseg.data.outlines import bounds, pixels, runs_of
from weakseg.export.base import Exporter, Job, Masked
from weakseg.export.coco import image_entry
from weakseg.export.lists import json_lists
from weakseg.export.pictures import png, put


def write(job: Job, folder: Path) -> None:
    """`annotations/panoptic_SPLIT.json`, `annotations/panoptic_SPLIT/ID.png`, `images/ID.jpg`.

    The background is a category of its own, behind the others, and what is uncertain is void: a
    reader that passes over void compares what a mask says, and no more. Classes are things where
    the run tells their objects apart, else stuff.
    """
    names = [*job.run.classes, BACKGROUND]
    things = any(photo.objects for photo in job.photos)
    categories = [
        {
            "id": number,
            "name": name,
            "supercategory": name,
            "isthing": int(things and name != BACKGROUND),
            "color": VOC_PALETTE[0 if name == BACKGROUND else number].tolist(),
        }
        for number, name in enumerate(names, start=1)
    ]
    path = folder / "annotations" / f"panoptic_{job.split}.json"
    head = {"info": {"description": "weakseg"}, "licenses": [], "categories": categories}
    with json_lists(path, head, ["images", "annotations"]) as (images, annotations):
        for photo, (image, found) in job.map(describe, folder, path.stem, len(names)):
            images.add({"id": photo.number, **image})
            annotations.add({"image_id": photo.number, **found})


def describe(
    folder: Path, segments: str, background: int, masked: Masked
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Write a photo and its segments; its entry, and that of its segments, without their ids.

    Args:
        segments: the folder of segments, in that of the annotations.
        background: its category.
    """
    height, _ = masked.size
    labels, classes = masked.regions()
    labels = np.where(masked.ids == 0, len(classes) + 1, labels).astype(np.uint32)
    number = labels[..., None] >> np.arange(0, 24, 8, dtype=np.uint32) & 255  # R + 256 G + 65536 B
    name = f"{masked.photo.id}.png"
    put(folder / "annotations" / segments / name, png(Image.fromarray(number.astype(np.uint8))))
    categories = [*classes, background]
    found = [
        {
            "id": segment,
            "category_id": categories[segment - 1],
            "area": pixels([runs]),
            "bbox": list(bounds(runs, height)),
            "iscrowd": 0,
        }
        for segment, runs in runs_of(labels).items()
    ]
    return image_entry(folder, masked), {"file_name": name, "segments_info": found}


EXPORTER = Exporter(
    name="coco-panoptic",
    summary="COCO panoptic: annotations/panoptic_SPLIT.json with a PNG a photo, and images/",
    write=write,
)
