"""A folder of the PASCAL VOC devkit, or one laid out like it."""

from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path

from weakseg.data.formats.annotations import read_tags
from weakseg.data.formats.base import (
    Format,
    Photos,
    Split,
    TagTable,
    find_folder,
    find_photos,
    list_by_stem,
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


_PHOTOS = "JPEGImages"
_OF_ALL_TASKS = "Main"


class Voc(Format):
    name = "voc"
    summary = "JPEGImages/, with tags.csv or Annotations/*.xml, as in PASCAL VOC's devkit"

    def matches(self, root: Path) -> bool:
        return find_folder(root, _PHOTOS) is not None

    def photos(self, root: Path) -> Photos:
        return find_photos(find_folder(root, _PHOTOS) or root / _PHOTOS)

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
        own = list_by_stem(root / "ImageSets" / "Segmentation", ".txt")
        return own or {
            name: path
            for name, path in list_by_stem(root / "ImageSets" / _OF_ALL_TASKS, ".txt").items()
            if name.rpartition("_")[0] not in self.classes(root)
        }

    def read_split(self, path: Path) -> Split:
        split = super().read_split(path)
        if path.parent.name != _OF_ALL_TASKS:
            return split
        note = f"there are no lists in ImageSets/Segmentation/: {path.name} is that of Main/"
        return replace(split, notes=(note,))
