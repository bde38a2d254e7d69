"""`Annotations/ID.xml`: the objects of an image, as in PASCAL VOC and ILSVRC."""

from collections.abc import Collection
from pathlib import Path
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

from weakseg.data.formats.base import TagRow, TagTable, is_printable, list_by_stem, normal
from weakseg.data.formats.tags_csv import TAGS_CSV, find_tags_csv, read_tags_csv
from weakseg.errors import WeaksegError


def read_tags(root: Path, folder: str, ids: Collection[str], depth: int = 0) -> TagTable:
    """Read `tags.csv`, or where there is none the objects' names in the folder's `ID.xml`.

    Args:
        root: the data folder.
        folder: the annotations' folder, relative to it.
        ids: the images whose annotations are read; one that has none has no row.
        depth: how many folders below `folder` an annotation may lie.

    Raises:
        WeaksegError: if there is neither, or `tags.csv` can't be read as such a table.
    """
    if table := find_tags_csv(root):
        return read_tags_csv(table, ids)
    annotations = list_by_stem(root / folder, ".xml", depth)
    if not annotations:
        raise WeaksegError(f"{root} has no tags. Add {TAGS_CSV} or {folder}/ID.xml.")
    rows, faults = [], []
    for image in ids:
        if image not in annotations:
            continue
        path = annotations[image]
        where = f"{path.parent.name}/{path.name}"
        try:
            rows.append(TagRow(image, _object_names(path), where))
        except (ValueError, LookupError, OSError, expat.ExpatError) as error:
            faults.append(f"{where} can't be read: {error}. Mend or remove it.")
    return TagTable(tuple(rows), tuple(faults))


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
