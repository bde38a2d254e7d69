"""PASCAL VOC's devkit: palette PNG masks, lists of a split, JPEG photos."""

from pathlib import Path

from weakseg.data.masks import write_mask
from weakseg.export.base import Exporter, Job, Masked
from weakseg.export.pictures import copy_photo
from weakseg.files import write_text


def write(job: Job, folder: Path) -> None:
    """`JPEGImages/ID.jpg`, `SegmentationClass/ID.png`, `ImageSets/Segmentation/SPLIT.txt`.

    And `SegmentationObject/ID.png` where the run tells objects apart, and `classes.txt`: what ids
    1, 2, 3, ... are, a name a line. Readers of VOC look for `.jpg` alone, so that other photos
    become JPEGs.
    """
    ids = [photo.id for photo, _ in job.map(put_photo, folder)]
    lists = folder / "ImageSets" / "Segmentation"
    write_text(lists / f"{job.split}.txt", "".join(f"{name}\n" for name in ids))
    write_text(folder / "classes.txt", "".join(f"{name}\n" for name in job.run.classes))


def put_photo(folder: Path, masked: Masked) -> None:
    name = masked.photo.id
    copy_photo(masked.photo.image, folder / "JPEGImages", name, jpeg=True)
    write_mask(folder / "SegmentationClass" / f"{name}.png", masked.ids)
    if masked.objects is not None:
        write_mask(folder / "SegmentationObject" / f"{name}.png", masked.objects)


EXPORTER = Exporter(
    name="voc",
    summary="PASCAL VOC: SegmentationClass/, JPEGImages/, ImageSets/Segmentation/, classes.txt",
    write=write,
)
