"""A folder of COCO: instances in JSON files, whose categories are the tags."""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

from weakseg.data.formats.base import (
    Format,
    Photos,
    Split,
    TagRow,
    TagTable,
    is_printable,
    list_by_stem,
    list_photos,
    name_fault,
    normal,
    read_text,
)
from weakseg.errors import WeaksegError

_PREFIX = "instances_"
_LISTS = ("images", "annotations", "categories")
_USED = frozenset({*_LISTS, "id", "name", "file_name", "image_id", "category_id"})


class Coco(Format):
    """COCO's object detection task, or a set laid out like it.

    - `annotations/instances_NAME.json`: the lists `images` (`id`, `file_name`), `annotations`
      (`image_id`, `category_id`) and `categories` (`id`, `name`); nothing else of them is read.
      An image is tagged with the categories that have an annotation in it, crowds included; one
      without annotations is tagged with nothing. Each file is a split of its NAME.
    - `NAME/` or `images/`, and the folders in them: the photos. The id is the file's name without
      suffix, whatever folder `file_name` puts before it.
    - `masks/ID.png`: for evaluation. Category ids may have gaps, mask ids have none: a class has
      its place, from 1, among the categories in the order of their ids. The annotations' own
      outlines are not read.
    """

    name = "coco"
    summary = "annotations/instances_NAME.json, and the photos in NAME/ or images/; optional masks/"

    def matches(self, root: Path) -> bool:
        return bool(self.splits(root))

    def photos(self, root: Path) -> Photos:
        folders = [name for name in ("images", *self.splits(root)) if (root / name).is_dir()]
        if not folders:
            expected = " or ".join(f"{name}/" for name in ("images", *self.splits(root)))
            raise WeaksegError(f"{root} has no photos. Put them into {expected}.")
        return list_photos(root, dict.fromkeys(folders), depth=1)

    def tags(self, root: Path, ids: Collection[str]) -> TagTable:
        files = [_read(path) for path in self.splits(root).values()]
        return TagTable(
            tuple(row for file in files for row in file.rows),
            tuple(fault for file in files for fault in file.faults),
        )

    def classes(self, root: Path) -> tuple[str, ...]:
        first, *others = self.splits(root).values()
        classes = _read(first).classes
        for other in others:
            if _read(other).classes != classes:
                raise WeaksegError(
                    f"{first} and {other} have different categories. Give both the same."
                )
        return classes

    def splits(self, root: Path) -> Mapping[str, Path]:
        files = list_by_stem(root / "annotations", ".json").items()
        named = {s.removeprefix(_PREFIX): path for s, path in files if s.startswith(_PREFIX)}
        return {name: path for name, path in named.items() if not name_fault(name)}

    def read_split(self, path: Path) -> Split:
        """The images of one of the files; its faults are among those of the tags."""
        return Split(tuple(dict.fromkeys(row.image for row in _read(path).rows)), ())


@dataclass(frozen=True, slots=True)
class _Instances:
    """What is used of a file.

    Attributes:
        classes: the categories' names, in the order of their ids.
        rows: the images with their categories.
        faults: entries that can't be used, one line each.
    """

    classes: tuple[str, ...]
    rows: tuple[TagRow, ...]
    faults: tuple[str, ...]


def _read(path: Path) -> _Instances:
    status = path.stat()
    return _read_once(path, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=8)
def _read_once(path: Path, changed: int, size: int) -> _Instances:
    lists = _parse(path)
    faults = []
    categories: dict[int, str] = {}
    for index, category in enumerate(lists["categories"]):
        match category:
            case {"id": int(key), "name": str(name)} if (
                name.strip() and is_printable(name) and key not in categories
            ):
                categories[key] = normal(name.strip())
            case _:
                faults.append(f"categories[{index}] needs a name, and an id of its own")
    images: dict[int, str] = {}
    tags: dict[int, dict[str, None]] = {}
    for index, image in enumerate(lists["images"]):
        match image:
            case {"id": int(key), "file_name": str(name)} if key not in tags:
                tags[key] = {}
                if fault := _file_name_fault(name):
                    faults.append(f"images[{index}] {fault}")
                else:
                    images[key] = normal(PurePosixPath(name).name)
            case _:
                faults.append(f"images[{index}] needs a file_name, and an id of its own")
    for index, annotation in enumerate(lists["annotations"]):
        match annotation:
            case {"image_id": int(image), "category_id": int(category)} if (
                image in tags and category in categories
            ):
                tags[image][categories[category]] = None
            case _:
                faults.append(f"annotations[{index}] names no image and category of the file")
    return _Instances(
        tuple(categories[key] for key in sorted(categories)),
        tuple(TagRow(images[k], tuple(tags[k]), f"{path.name} image {k}") for k in images),
        tuple(f"{path.name} {fault}." for fault in faults),
    )


def _file_name_fault(name: str) -> str | None:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:
        return f"names {name!r}, which may lie outside the folder; write a path below it"
    return name_fault(path.name)


def _parse(path: Path) -> dict[str, list[Any]]:
    """The lists of a file, with no more of their entries than is used.

    What isn't used, most of a file, is dropped while parsing: that takes a third of the memory.
    """
    try:
        content = json.loads(
            read_text(path), object_hook=lambda o: {k: v for k, v in o.items() if k in _USED}
        )
    except (ValueError, RecursionError) as error:
        raise WeaksegError(f"{path} can't be read as JSON: {error}. Save it anew.") from error
    if not isinstance(content, dict) or not all(
        isinstance(content.get(name), list) for name in _LISTS
    ):
        raise WeaksegError(
            f"{path} has no lists {', '.join(_LISTS)}. Write it as COCO's instances files are."
        )
    return content
