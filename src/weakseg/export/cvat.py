"""CVAT's "Segmentation mask 1.1": an archive of coloured masks to upload to a task."""

import json
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from weakseg.data.masks import BACKGROUND, IGNORE, VOC_PALETTE, hex_colour
from weakseg.engine.opened import Run
from weakseg.errors import WeaksegError, quoted
from weakseg.export.base import Exporter, Job, Masked
from weakseg.export.pictures import copy_photo, png
from weakseg.files import write_text

ARCHIVE = "annotations.zip"
_OLDEST = (1980, 1, 1, 0, 0, 0)  # the same bytes whenever an archive is written

_MOST_REGIONS = 255  # that have a colour


class _Masks(NamedTuple):
    classes: bytes
    objects: bytes


def check(run: Run) -> None:
    """Refuse classes whose names `labelmap.txt` has no way to write.

    Raises:
        WeaksegError: there is one.
    """
    for name in run.classes:
        if ":" in name or name.startswith("#"):
            raise WeaksegError(
                f"CVAT's labelmap.txt has no way to write the class {quoted(name)}: a colon ends a "
                "name, and # begins a comment. Rename it in the data set, or choose another format."
            )


def write(job: Job, folder: Path) -> None:
    """`annotations.zip` for a task's "Upload annotations", `labels.json` and `images/` to make one.

    Masks are in colours, as CVAT writes them itself. SegmentationObject has a number for each
    region: without it CVAT takes the background for a label. Uncertain pixels are background, for
    a colour that is no label's is refused.
    """
    colours = {name: VOC_PALETTE[i] for i, name in enumerate((BACKGROUND, *job.run.classes))}
    label_map = ["# label:color_rgb:parts:actions"]
    label_map += [f"{name}:{','.join(map(str, colour))}::" for name, colour in colours.items()]
    with zipfile.ZipFile(folder / ARCHIVE, "w") as archive:
        for photo, masks in job.map(paint, folder):
            _add(archive, f"SegmentationClass/{photo.id}.png", masks.classes)
            _add(archive, f"SegmentationObject/{photo.id}.png", masks.objects)
        names = "".join(f"{photo.id}\n" for photo in job.photos)
        _add(archive, "ImageSets/Segmentation/default.txt", names.encode())
        _add(archive, "labelmap.txt", "".join(f"{line}\n" for line in label_map).encode())
    labels = [
        {"name": name, "color": hex_colour(number), "attributes": []}
        for number, name in enumerate(job.run.classes, start=1)
    ]
    write_text(folder / "labels.json", json.dumps(labels, indent=2, ensure_ascii=False) + "\n")


def paint(folder: Path, masked: Masked) -> _Masks:
    copy_photo(masked.photo.image, folder / "images", masked.photo.id)
    labels, found = masked.regions()
    if len(found) > _MOST_REGIONS:
        labels, _ = masked._replace(objects=None).regions()
    classes = np.where(masked.ids == IGNORE, 0, masked.ids)
    return _Masks(_coloured(classes), _coloured(labels))


def _coloured(ids: NDArray[np.unsignedinteger[Any]]) -> bytes:
    return png(Image.fromarray(VOC_PALETTE[ids]))


def _add(archive: zipfile.ZipFile, name: str, content: bytes) -> None:
    entry = zipfile.ZipInfo(name, _OLDEST)
    entry.compress_type = zipfile.ZIP_DEFLATED
    entry.external_attr = 0o644 << 16
    archive.writestr(entry, content)


EXPORTER = Exporter(
    name="cvat",
    summary='CVAT: annotations.zip ("Segmentation mask 1.1"), labels.json, images/',
    write=write,
    uncertain="become background",
    check=check,
)
