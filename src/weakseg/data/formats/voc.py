"""A folder of the PASCAL VOC devkit, or one laid out like it."""

from collections.abc import Collection, Mapping
from pathlib import Path

from weakseg.data.formats.annotations import read_tags
from weakseg.data.formats.base import (
    Format,
    Photos,
    TagTable,
    list_by_stem,
    list_photos,
    read_classes,
)

VOC_CLASSES = (
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
)


class Voc(Format):
    name = "voc"
    summary = "JPEGImages/, with tags.csv or Annotations/*.xml, as in PASCAL VOC's devkit"

    def matches(self, root: Path) -> bool:
        return (root / "JPEGImages").is_dir()

    def photos(self, root: Path) -> Photos:
        return list_photos(root / "JPEGImages")

    def tags(self, root: Path, ids: Collection[str]) -> TagTable:
        return read_tags(root, "Annotations", ids)

    def classes(self, root: Path) -> tuple[str, ...]:
        return read_classes(root / "classes.txt") or VOC_CLASSES

    def masks(self, root: Path) -> Mapping[str, Path]:
        augmented = root / "SegmentationClassAug"
        folder = augmented if augmented.is_dir() else root / "SegmentationClass"
        return list_by_stem(folder, ".png")

    def objects(self, root: Path) -> Mapping[str, Path]:
        return list_by_stem(root / "SegmentationObject", ".png")

    def splits(self, root: Path) -> Mapping[str, Path]:
        return list_by_stem(root / "ImageSets" / "Segmentation", ".txt")
