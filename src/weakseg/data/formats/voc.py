"""A folder of the PASCAL VOC devkit, or one laid out like it."""

from collections.abc import Collection, Mapping
from pathlib import Path
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

from weakseg.data.formats.base import (
    Format,
    Photos,
    TagRow,
    TagTable,
    is_printable,
    list_by_stem,
    list_photos,
    normal,
    read_classes,
)
from weakseg.data.formats.tags_csv import TAGS_CSV, read_tags_csv
from weakseg.errors import WeaksegError

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
        if (root / TAGS_CSV).is_file():
            return read_tags_csv(root / TAGS_CSV)
        annotations = list_by_stem(root / "Annotations", ".xml")
        if not annotations:
            raise WeaksegError(f"{root} has no tags. Add {TAGS_CSV} or Annotations/ID.xml.")
        rows, faults = [], []
        for image in ids:
            if image not in annotations:
                continue
            where = f"Annotations/{annotations[image].name}"
            try:
                rows.append(TagRow(image, _object_names(annotations[image]), where))
            except (ValueError, LookupError, OSError, expat.ExpatError) as error:
                faults.append(f"{where} can't be read: {error}. Mend or remove it.")
        return TagTable(tuple(rows), tuple(faults))

    def classes(self, root: Path) -> tuple[str, ...]:
        return read_classes(root / "classes.txt") or VOC_CLASSES

    def masks(self, root: Path) -> Mapping[str, Path]:
        augmented = root / "SegmentationClassAug"
        folder = augmented if augmented.is_dir() else root / "SegmentationClass"
        return list_by_stem(folder, ".png")

    def splits(self, root: Path) -> Mapping[str, Path]:
        return list_by_stem(root / "ImageSets" / "Segmentation", ".txt")


def _object_names(path: Path) -> tuple[str, ...]:
    names = [normal((e.text or "").strip()) for e in _parse(path).iterfind("object/name")]
    if not all(name and is_printable(name) for name in names):
        raise ValueError("an object has no name, or one with control characters")
    return tuple(names)


def _parse(path: Path) -> Element:
    """Parse XML that has no document type, so that no entity can expand."""
    builder = TreeBuilder()
    parser = expat.ParserCreate()
    parser.buffer_text = True
    parser.StartElementHandler = builder.start
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.data
    parser.StartDoctypeDeclHandler = _refuse_doctype
    parser.Parse(path.read_bytes(), True)
    return builder.close()


def _refuse_doctype(*_: object) -> None:
    raise ValueError("document types aren't allowed")
