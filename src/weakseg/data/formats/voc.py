"""A folder of the PASCAL VOC devkit, or one laid out like it."""

from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path

from weakseg.data.formats.annotations import read_tags
from weakseg.data.formats.base import (
    Format,
    Masks,
    Photos,
    Split,
    TagTable,
    find_folder,
    find_photos,
    list_by_stem,
    list_masks,
    read_classes,
)
from weakseg.data.masks import TrueMask

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
_MASKS = ("SegmentationClassAug", "SegmentationClass", "SegmentationClassPNG")
_OBJECTS = ("SegmentationObject", "SegmentationObjectPNG")
_NO_CLASSES = frozenset({"__ignore__", "_background_"})


class Voc(Format):
    """PASCAL VOC's devkit, or what labelme exports in its layout.

    - `JPEGImages/ID.jpg`: the photos.
    - `tags.csv`, else `Annotations/ID.xml`: the tags.
    - `SegmentationClassAug/`, else `SegmentationClass/`, else labelme's `SegmentationClassPNG/`:
      the masks, with ids in the order of the classes.
    - `SegmentationObject/`, else `SegmentationObjectPNG/`: the masks of objects.
    - `classes.txt`, else labelme's `class_names.txt`: the classes, else they are VOC's.
    """

    name = "voc"
    summary = "JPEGImages/, with tags.csv or Annotations/*.xml, as in PASCAL VOC's devkit"

    def matches(self, root: Path) -> bool:
        return find_folder(root, _PHOTOS) is not None

    def photos(self, root: Path) -> Photos:
        return find_photos(find_folder(root, _PHOTOS) or root / _PHOTOS)

    def tags(self, root: Path, ids: Collection[str]) -> TagTable:
        return read_tags(root, "Annotations", ids)

    def classes(self, root: Path) -> tuple[str, ...]:
        declared = read_classes(root / "classes.txt")
        return declared or _classes_of_labelme(root) or VOC_CLASSES

    def masks(self, root: Path, photos: Photos) -> Masks:
        folders = [root / name for name in _MASKS if (root / name).is_dir()]
        if not folders:
            return Masks({})
        masks = list_masks(folders[0], photos)
        of_labelme = _classes_of_labelme(root)
        if masks.of and of_labelme not in (None, classes := self.classes(root)):
            note = (
                f"{folders[0].name}/ is not read: its ids are numbered by class_names.txt, whose"
                f" {len(of_labelme or ())} names are not the {len(classes)} of classes.txt."
            )
            return Masks({}, (*masks.notes, note))
        return masks

    def objects(self, root: Path, photos: Photos) -> Mapping[str, TrueMask]:
        folders = [root / name for name in _OBJECTS if (root / name).is_dir()]
        return list_masks(folders[0], photos).of if folders else {}

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


def _classes_of_labelme(root: Path) -> tuple[str, ...] | None:
    """The names in `class_names.txt`, or None if there is no such file."""
    names = read_classes(root / "class_names.txt")
    return names and tuple(name for name in names if name not in _NO_CLASSES)
