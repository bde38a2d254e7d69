"""One of COCO's files: images, categories, and annotations with their outlines."""

import codecs
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote

import numpy as np
from numpy.typing import NDArray

from weakseg.data.formats.base import TagRow, is_photo, is_printable, name_fault, normal
from weakseg.data.images import MAX_PIXELS
from weakseg.data.masks import IGNORE, UnreadableMask
from weakseg.data.names import base_name
from weakseg.data.outlines import paint, pixels, region
from weakseg.errors import WeaksegError
from weakseg.files import stamp

_LISTS = ("images", "annotations", "categories")
_LOOKED_AT = 2**16  # bytes at the start and at the end of a file
_SPACE = re.compile(r"[ \t\n\r]*")
_NUMBER = re.compile(r"(-?[0-9]{1,18})(?:\.0*)?")
_NOTHING = "background"

Key = int | str


@dataclass(frozen=True, slots=True)
class CocoFile:
    """What is used of a file.

    Attributes:
        classes: the categories' names, in the order of their ids; none if it has no categories.
        images: the files' names of the images, without folders.
        rows: the images with their categories; none if nobody annotated any.
        masks: file name -> its mask, of the images whose objects all have an outline.
        notes: what was passed over, a line for each kind.
    """

    classes: tuple[str, ...]
    images: tuple[str, ...]
    rows: tuple[TagRow, ...]
    masks: Mapping[str, "OutlinedMask"]
    notes: tuple[str, ...]


class Outline(NamedTuple):
    """An annotation: its mask id (255 if its category is unknown), and its bytes in the file."""

    mask_id: int
    first: int
    end: int


@dataclass(frozen=True, slots=True)
class OutlinedMask:
    """A mask that is painted from outlines each time that it is read.

    Where regions overlap, the one of fewer pixels lies over the other, and of equal ones the later.
    Crowds are 255, under everything else, as are regions whose category is unknown.

    Attributes:
        file: where the outlines are.
        image: the image's id there, for messages.
        size: height and width.
        stamped: the file's stamp when it was searched.
        outlines: where in the file.
        objects: whether objects are told apart, numbered from 1 in the order of the file, rather
            than classes.
        crowds: whether crowds are of their class, as tools mean it that write masks so.
    """

    file: Path
    image: Key
    size: tuple[int, int]
    stamped: tuple[int, ...]
    outlines: tuple[Outline, ...]
    objects: bool = False
    crowds: bool = False

    def __str__(self) -> str:
        return f"{self.file} (image {_short(self.image)})"

    def stamp(self) -> list[int]:
        return list(self.stamped)

    def read(self) -> NDArray[np.uint8]:
        height, width = self.size
        if height * width > MAX_PIXELS:
            raise UnreadableMask(f"{self} has more than {MAX_PIXELS:,} pixels.")
        if stamp(self.file) != self.stamp():
            raise UnreadableMask(f"{self} was changed while it was in use. Start again.")
        regions = []
        number = 0
        with self.file.open("rb") as file:
            for outline in self.outlines:
                file.seek(outline.first)
                annotation = json.loads(file.read(outline.end - outline.first))
                crowd = _is_crowd(annotation) and not self.crowds
                mask_id = IGNORE if crowd else outline.mask_id
                if self.objects and mask_id not in (0, IGNORE):
                    number += 1
                    mask_id = number
                try:
                    parts = region(annotation["segmentation"], height, width)
                except ValueError as error:
                    raise UnreadableMask(
                        f"{self} can't be used: annotation {_short(annotation.get('id'))}: {error}."
                    ) from None
                regions.append((mask_id, parts))
        if number >= IGNORE:
            raise UnreadableMask(f"{self} has {number} objects, where a mask tells 254 apart.")
        regions.sort(key=lambda r: (r[0] != IGNORE, -pixels(r[1])))
        return paint(regions, height, width)


def looks_like_coco(path: Path) -> bool:
    """Whether a JSON file's start and end have the names of two of COCO's lists."""
    try:
        with path.open("rb") as file:
            seen = file.read(_LOOKED_AT)
            file.seek(max(_LOOKED_AT, path.stat().st_size - _LOOKED_AT))
            seen += file.read()
    except OSError:
        return False
    return sum(f'"{name}"'.encode() in seen for name in _LISTS) >= 2


def read_coco_file(path: Path) -> CocoFile:
    """Read a file; one that has not changed since is not read again.

    Entries that can't be used are passed over and counted. Ids agree if their numbers do, be they
    written as numbers or as text.

    Raises:
        WeaksegError: if it is no JSON, or has no such lists.
    """
    return _read_once(path, *stamp(path))


@lru_cache(maxsize=8)
def _read_once(path: Path, *stamped: int) -> CocoFile:
    try:
        lists = _read_lists(path)
    except (ValueError, RecursionError) as error:
        raise WeaksegError(f"{path} can't be read as JSON: {error}. Save it anew.") from error
    if lists.images is None or (lists.annotations and lists.categories is None):
        raise WeaksegError(
            f"{path} has no lists {', '.join(_LISTS)}. Write it as COCO's instances files are."
        )
    return _join(path, stamped, lists.images, lists.annotations or [], lists.categories or [])


def _join(
    path: Path,
    stamped: tuple[int, ...],
    entries: "list[_Image]",
    annotations: "list[_Annotation]",
    categories: "list[_Category]",
) -> CocoFile:
    notes = _Notes(path.name)
    ids, classes = _number_categories(categories, notes)
    images = _name_images(entries, notes)
    tags: dict[Key, dict[str, None]] = {key: {} for key in images}
    outlines: dict[Key, list[Outline]] = {key: [] for key in images}
    boxed = set()
    for index, annotation in enumerate(annotations):
        of, category = annotation.image, annotation.category
        if of not in images or category not in ids:
            notes.add("annotations", index, "that name no image and category of the file")
        if of is None or of not in images:
            continue
        mask_id = IGNORE if category is None else ids.get(category, IGNORE)
        if 0 < mask_id <= len(classes):
            tags[of][classes[mask_id - 1]] = None
        if annotation.outlined:
            outlines[of].append(Outline(mask_id, annotation.first, annotation.end))
        else:
            boxed.add(of)
    named = {key: image for key, image in images.items() if image.name}
    times = Counter(image.name for image in named.values())
    masks = {}
    for key, image in named.items() if any(outlines.values()) else ():
        if key in boxed:
            notes.add("images", image.place, "with objects without outlines, which get no mask")
        elif image.size is None:
            notes.add("images", image.place, "without width and height, which get no mask")
        elif times[image.name] > 1:
            notes.add("images", image.place, "with a file_name of others, which get no mask")
        else:
            masks[image.name] = OutlinedMask(path, key, image.size, stamped, tuple(outlines[key]))
    rows: tuple[TagRow, ...] = ()
    if annotations:
        rows = tuple(
            TagRow(image.name, tuple(tags[key]), f"{path.name} image {_short(key)}")
            for key, image in named.items()
        )
    else:
        notes.say(f"has no annotations: nobody tagged its {len(named)} images.")
    return CocoFile(classes, tuple(times), rows, masks, notes.lines())


class _Image(NamedTuple):
    place: int
    key: Key | None
    name: str
    size: tuple[int, int] | None


class _Category(NamedTuple):
    key: Key | None
    name: str


class _Annotation(NamedTuple):
    image: Key | None
    category: Key | None
    outlined: bool
    first: int
    end: int


@dataclass
class _Lists:
    """The lists of a file, with no more of their entries than is used; None if there is no list."""

    images: list[_Image] | None = None
    annotations: list[_Annotation] | None = None
    categories: list[_Category] | None = None


class _Notes:
    """Counts entries that are passed over, by what is wrong with them."""

    def __init__(self, file: str) -> None:
        self._file = file
        self._lines: list[str] = []
        self._counts: Counter[tuple[str, str]] = Counter()
        self._first: dict[tuple[str, str], int] = {}

    def add(self, where: str, index: int, what: str) -> None:
        self._counts[where, what] += 1
        self._first.setdefault((where, what), index)

    def say(self, text: str) -> None:
        self._lines.append(f"{self._file} {text}")

    def lines(self) -> tuple[str, ...]:
        for (where, what), count in self._counts.items():
            self.say(f"has {count} {where} {what}, such as {where}[{self._first[where, what]}].")
        return tuple(self._lines)


def _number_categories(
    categories: list[_Category], notes: _Notes
) -> tuple[dict[Key, int], tuple[str, ...]]:
    """Mask ids of the categories' ids, 0 for one called background; and the classes' names."""
    names: dict[Key, str] = {}
    for index, (key, name) in enumerate(categories):
        if key is None or not name or names.setdefault(key, name) != name:
            notes.add("categories", index, "without a name and an id of their own")
    ordered = sorted(names, key=lambda key: (isinstance(key, str), key))
    classes = tuple(dict.fromkeys(n for k in ordered if (n := names[k]).casefold() != _NOTHING))
    ids = {name: index for index, name in enumerate(classes, start=1)}
    return {key: ids.get(name, 0) for key, name in names.items()}, classes


def _name_images(images: list[_Image], notes: _Notes) -> dict[Key, _Image]:
    found: dict[Key, _Image] = {}
    for image in images:
        if image.key is None or image.key in found:
            notes.add("images", image.place, "without an id of their own")
            continue
        if not image.name:
            notes.add("images", image.place, "without a file_name that can be a photo's")
        found[image.key] = image
    return found


def _read_lists(path: Path) -> _Lists:
    """Decode a file an entry at a time: the whole of it would take many times its size.

    Raises:
        ValueError: if it is no UTF-8 or no JSON.
    """
    lists = _Lists()
    scanner = Scanner(path.read_bytes())
    for key in scanner.keys():  # noqa: SIM118
        if key not in _LISTS or not scanner.starts_list():
            scanner.value()
        elif key == "images":
            lists.images = [_image(i, entry[0]) for i, entry in enumerate(scanner.entries())]
        elif key == "categories":
            lists.categories = [_category(entry) for entry, _, _ in scanner.entries()]
        else:
            lists.annotations = [_annotation(*entry) for entry in scanner.entries()]
    return lists


class Scanner:
    """Goes through the text of a JSON object."""

    def __init__(self, content: bytes) -> None:
        self._text = content.decode("utf-8-sig")
        self._at = 0
        self._counted = 0, 3 if content.startswith(codecs.BOM_UTF8) else 0
        self._decode = json.JSONDecoder().raw_decode

    def keys(self) -> Iterator[str]:
        """Each key; the value after it must be taken before the next."""
        if self._next() != "{":
            self.value()
            return
        for _ in self._items("{", "}"):
            key = str(self.value())
            self._take(":")
            yield key

    def value(self) -> Any:
        self._next()
        found, self._at = self._decode(self._text, self._at)
        return found

    def starts_list(self) -> bool:
        return self._next() == "["

    def entries(self) -> Iterator[tuple[Any, int, int]]:
        """Each entry of a list, its first byte in the file, and the one after its last."""
        for _ in self._items("[", "]"):
            first = self._bytes_before()
            entry = self.value()
            yield entry, first, self._bytes_before()

    def _items(self, opening: str, closing: str) -> Iterator[None]:
        """Stops where each item begins, which must be taken before the next."""
        mark = self._take(opening)
        if self._next() == closing:
            mark = self._take(closing)
        while mark != closing:
            self._next()
            yield
            mark = self._take(",", closing)

    def _next(self) -> str:
        space = _SPACE.match(self._text, self._at)
        assert space
        self._at = space.end()
        return self._text[self._at : self._at + 1]

    def _take(self, *marks: str) -> str:
        if (found := self._next()) not in marks:
            raise json.JSONDecodeError(f"Expecting {' or '.join(marks)}", self._text, self._at)
        self._at += 1
        return found

    def _bytes_before(self) -> int:
        """Characters may take several bytes; those up to the last place asked for are counted."""
        at, count = self._counted
        self._counted = self._at, count + len(self._text[at : self._at].encode())
        return self._counted[1]


def _image(index: int, entry: Any) -> _Image:
    if not isinstance(entry, dict):
        return _Image(index, None, "", None)
    name, height, width = (entry.get(name) for name in ("file_name", "height", "width"))
    rows, columns = _key(height), _key(width)
    size = None
    if isinstance(rows, int) and isinstance(columns, int) and rows > 0 and columns > 0:
        size = rows, columns
    base = photo_name(name) if isinstance(name, str) else ""
    return _Image(index, _key(entry.get("id")), base, size)


def _category(entry: Any) -> _Category:
    match entry:
        case {"id": key, "name": str(name)} if is_printable(name):
            return _Category(_key(key), normal(name.strip()))
        case _:
            return _Category(None, "")


def _annotation(entry: Any, first: int, end: int) -> _Annotation:
    if not isinstance(entry, dict):
        return _Annotation(None, None, False, first, end)
    image, category = _key(entry.get("image_id")), _key(entry.get("category_id"))
    return _Annotation(image, category, bool(entry.get("segmentation")), first, end)


def _is_crowd(annotation: dict[str, Any]) -> bool:
    return annotation.get("iscrowd") not in (None, 0, "0", "")


def _key(value: Any) -> Key | None:
    """An id, the same whether it is written as a number or as text; None if it is none."""
    match value:
        case bool():
            return None
        case int():
            return value
        case float() if value.is_integer():
            return int(value)
        case str() if text := value.strip():
            number = _NUMBER.fullmatch(text)
            return int(number[1]) if number else text
        case _:
            return None


def photo_name(file_name: str) -> str:
    """The photo's name at the end of a path, Windows' or another, or of a web address; or "".

    Only that counts, whatever folders come before it: the photo is sought in the data set alone.
    """
    place, mark, query = file_name.partition("?")
    if mark and place.endswith("/"):  # Label Studio: /data/local-files/?d=folder/1.jpg
        file_name = unquote(query.removeprefix("d="))
    elif mark and is_photo(Path(place)):  # else ? belongs to the name
        file_name = place
    name = normal(base_name(file_name))
    return "" if name_fault(name) else name


def _short(key: Any) -> str:
    return str(key)[:40]
