"""`Annotations/ID.xml`: the objects of an image, as in PASCAL VOC and ILSVRC."""

import re
from collections.abc import Collection
from pathlib import Path
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

from weakseg.data.formats.base import TagRow, TagTable, is_printable, list_by_stem, normal
from weakseg.data.formats.tags_csv import TAGS_CSV, find_tags_csv, read_tags_csv
from weakseg.errors import WeaksegError

_ROOTS = frozenset({"annotation", "annotations"})
_DEEPEST = 100  # objects are looked at with all that is in them
_ENCODING = re.compile(rb"""<\?xml[^>]*encoding=["']([A-Za-z0-9._-]+)["']""")
_CHINESE = frozenset({b"gb2312", b"gbk", b"gb18030"})  # the last of them holds the others


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
    """Names of the objects, wherever they are nested and in whatever case their tags are.

    An object is an `object`, or one of several `objects` that have a name themselves.
    """
    root = _parse(path)
    if root.tag.lower() not in _ROOTS:
        raise ValueError(f"it is <{root.tag[:40]}>, where <annotation> is expected")
    names = []
    boxes = 0
    for element in root.iter():
        kind = element.tag.lower()
        own = [child.text or "" for child in element if child.tag.lower() == "name"]
        if kind == "object" or (kind == "objects" and own):
            names.append(normal(own[0].strip()) if own else "")
            boxes += sum(inner.tag.lower() == "bndbox" for inner in element.iter())
    if not all(name and is_printable(name) for name in names):
        raise ValueError("an object has no name, or one with control characters")
    if boxes < sum(element.tag.lower() == "bndbox" for element in root.iter()):
        raise ValueError("it has boxes outside of any <object>")
    return tuple(names)


def _parse(path: Path) -> Element:
    """Parse XML that declares no entity, so that none can expand; nothing else is ever opened."""
    builder = TreeBuilder()
    parser = expat.ParserCreate()
    parser.buffer_text = True
    open_tags: list[str] = []

    def start(tag: str, attributes: dict[str, str]) -> None:
        open_tags.append(tag)
        if len(open_tags) > _DEEPEST:
            raise ValueError(f"its elements are nested over {_DEEPEST} deep")
        builder.start(tag, attributes)

    def end(tag: str) -> None:
        open_tags.pop()
        builder.end(tag)

    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.CharacterDataHandler = builder.data
    parser.EntityDeclHandler = _refuse_entity
    parser.SkippedEntityHandler = _refuse_entity
    content = path.read_bytes()
    encoding = _ENCODING.match(content)
    if encoding and encoding[1].lower() in _CHINESE:
        # expat reads no such encoding by itself, and passes over the declaration in a str.
        parser.Parse(content.decode("gb18030"), True)
    else:
        parser.Parse(content, True)
    return builder.close()


def _refuse_entity(name: str, *_: object) -> None:
    raise ValueError(f"it uses an entity, {name[:40]!r}, which isn't allowed")
