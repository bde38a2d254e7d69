"""COCO's instances: a JSON file of regions as compressed run lengths, and the photos."""

from pathlib import Path
from typing import Any

from weakseg.data.outlines import bounds, pixels, run_lengths, runs_of
from weakseg.export.base import Exporter, Job, Masked
from weakseg.export.lists import json_lists
from weakseg.export.pictures import copy_photo

PHOTOS = "images"


def write(job: Job, folder: Path) -> None:
    """`annotations/instances_SPLIT.json`, `images/ID.jpg`.

    An annotation is a class's pixels in a photo, or those of one of its objects where the run tells
    them apart. None is a crowd: pycocotools and trainers pass crowds over.
    """
    categories = [
        {"id": number, "name": name, "supercategory": name}
        for number, name in enumerate(job.run.classes, start=1)
    ]
    path = folder / "annotations" / f"instances_{job.split}.json"
    head = {"info": {"description": "weakseg"}, "licenses": [], "categories": categories}
    number = 0
    with json_lists(path, head, ["images", "annotations"]) as (images, annotations):
        for photo, (image, found) in job.map(describe, folder):
            images.add({"id": photo.number, **image})
            for annotation in found:
                number += 1  # from 1: pycocotools takes a match with 0 for none
                annotations.add({"id": number, "image_id": photo.number, **annotation})


def describe(folder: Path, masked: Masked) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Copy a photo; its entry, and those of its regions, without their ids."""
    height, width = masked.size
    labels, classes = masked.regions()
    found = []
    for number, runs in runs_of(labels).items():
        segmentation = run_lengths(runs, height, width)
        found.append(
            {
                "category_id": classes[number - 1],
                "segmentation": segmentation,
                "area": pixels([runs]),
                "bbox": list(bounds(runs, height)),
                "iscrowd": 0,
            }
        )
    return image_entry(folder, masked), found


def image_entry(folder: Path, masked: Masked) -> dict[str, Any]:
    """Copy a photo; what COCO says of it, without an id."""
    height, width = masked.size
    name = copy_photo(masked.photo.image, folder / PHOTOS, masked.photo.id)
    return {"file_name": name, "height": height, "width": width}


EXPORTER = Exporter(
    name="coco",
    summary="COCO instances: run lengths in annotations/instances_SPLIT.json, and images/",
    write=write,
    uncertain="are left out",
)
