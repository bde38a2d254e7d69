"""Label Studio: tasks with predictions that its brush shows and mends."""

from pathlib import Path
from typing import Any
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

from weakseg.data.brush import encode_brush
from weakseg.data.masks import hex_colour
from weakseg.export.base import Exporter, Job, Masked
from weakseg.export.lists import json_list
from weakseg.export.pictures import copy_photo
from weakseg.files import write_text

IMAGE, BRUSH = "image", "mask"
"""What the labelling interface calls the photo and its brush."""

_PHOTOS = "images"
_LOCAL = "/data/local-files/?d="


def write(job: Job, folder: Path) -> None:
    """`tasks.json` to import, `labels.xml` for the labelling interface, `images/ID.jpg`.

    Photos are local files: their addresses begin with `images/`, for a document root that is the
    export's folder. A prediction's score is the mask's confidence, by which tasks can be ordered.
    """
    with json_list(folder / "tasks.json") as tasks:
        for photo, task in job.map(describe, folder, job.run.classes):
            if photo.confidence is not None:
                task["predictions"][0]["score"] = photo.confidence
            tasks.add(task)
    labels = "".join(
        f'    <Label value={quoteattr(name)} background="{hex_colour(i)}"/>\n'
        for i, name in enumerate(job.run.classes, start=1)
    )
    write_text(
        folder / "labels.xml",
        f'<View>\n  <Image name="{IMAGE}" value="${IMAGE}" zoom="true"/>\n'
        f'  <BrushLabels name="{BRUSH}" toName="{IMAGE}">\n{labels}  </BrushLabels>\n</View>\n',
    )


def describe(folder: Path, names: tuple[str, ...], masked: Masked) -> dict[str, Any]:
    """Copy a photo; its task."""
    height, width = masked.size
    name = copy_photo(masked.photo.image, folder / _PHOTOS, masked.photo.id)
    labels, classes = masked.regions()
    result = [
        {
            "id": str(number),
            "type": "brushlabels",
            "from_name": BRUSH,
            "to_name": IMAGE,
            "original_width": width,
            "original_height": height,
            "image_rotation": 0,
            "value": {
                "format": "rle",
                "rle": encode_brush(labels == number),
                "brushlabels": [names[class_id - 1]],
            },
        }
        for number, class_id in enumerate(classes, start=1)
    ]
    return {
        "data": {IMAGE: f"{_LOCAL}{quote(f'{_PHOTOS}/{name}')}"},
        "predictions": [{"model_version": "weakseg", "result": result}],
    }


EXPORTER = Exporter(
    name="label-studio",
    summary="Label Studio: tasks.json with brush predictions, labels.xml, images/",
    write=write,
    uncertain="are left out",
)
