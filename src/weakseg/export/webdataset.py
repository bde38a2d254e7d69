"""WebDataset: tar files of photos with their tags and masks, to be read in a row."""

import io
import json
import tarfile
from pathlib import Path
from typing import Any

from PIL import Image

from weakseg.export.base import Exporter, Job, Masked, Photo
from weakseg.export.pictures import picture_of, png
from weakseg.files import write_atomically, write_text


def write(job: Job, folder: Path) -> None:
    """`SPLIT-000000.tar`, ...: of each photo `NUMBER.jpg`, `NUMBER.mask.png` and `NUMBER.json`.

    A key ends at its first dot, so that it is the photo's number and no name. Masks are 8-bit grey,
    which keeps its ids when a decoder makes it RGB. The JSON has the photo's `tags`, null if nobody
    tagged it. `classes.txt`: what ids 1, 2, 3, ... are.
    """
    for path, photos in job.map_shards(lambda n: folder / f"{job.split}-{n:06}.tar", pack):
        with write_atomically(path, durable=True) as temporary, _tar(temporary) as tar:
            for photo, files in photos:
                about = json.dumps(
                    _about(photo, job.tags.get(photo.id)), ensure_ascii=False
                ).encode()
                for suffix, content in {**files, ".json": about}.items():
                    entry = tarfile.TarInfo(f"{photo.number - 1:09}{suffix}")
                    entry.size = len(content)
                    tar.addfile(entry, io.BytesIO(content))
    write_text(folder / "classes.txt", "".join(f"{name}\n" for name in job.run.classes))


def _tar(path: Path) -> tarfile.TarFile:
    return tarfile.open(path, "w", format=tarfile.USTAR_FORMAT)


def pack(masked: Masked) -> dict[str, bytes]:
    """A photo's pictures by their suffix."""
    suffix, content = picture_of(masked.photo.image)
    return {suffix: content, ".mask.png": png(Image.fromarray(masked.ids))}


def _about(photo: Photo, tags: tuple[str, ...] | None) -> dict[str, Any]:
    return {
        "id": photo.id,
        "tags": tags,
        "confidence": photo.confidence,
        "accepted": photo.accepted,
    }


EXPORTER = Exporter(
    name="webdataset",
    summary='WebDataset: tar files of photo, mask (8-bit grey) and JSON ("tags")',
    write=write,
    sharded=True,
)
