"""A folder of photos for each class."""

import filecmp
from collections import Counter
from collections.abc import Collection
from pathlib import Path

from weakseg.data.formats.base import (
    Format,
    Photos,
    TagRow,
    TagTable,
    is_photo,
    list_photos,
    name_fault,
    normal,
)
from weakseg.errors import WeaksegError

_NO_CLASSES = frozenset({"masks", "splits"})
_NOTHING = "background"


class FolderPerClass(Format):
    """`CLASS/*.jpg`: a photo is tagged with the name of its folder.

    The id of `cat/001.jpg` is `cat_001`, as cameras and scripts number the photos of every folder
    anew. A photo that was copied into several folders under one name, byte for byte, is one photo
    with several tags; its id begins with the first of them by name. The photos of a folder
    `background` have none of the classes.
    """

    name = "folder-per-class"
    summary = "CLASS/*.jpg; photos of nothing in background/; optional classes.txt, masks/, splits/"

    def matches(self, root: Path) -> bool:
        return any(is_photo(path) and _is_class(path.parent) for path in root.glob("*/*"))

    def photos(self, root: Path) -> Photos:
        return _read(root)[0]

    def tags(self, root: Path, ids: Collection[str]) -> TagTable:
        photos, tags = _read(root)
        rows = (
            TagRow(image, of_image, f"{photos.paths[image].parent.name}/")
            for image, of_image in tags.items()
        )
        return TagTable(tuple(rows), ())


def _is_class(folder: Path) -> bool:
    return folder.name not in _NO_CLASSES and not folder.name.startswith(".")


def _read(root: Path) -> tuple[Photos, dict[str, tuple[str, ...]]]:
    """The photos, each once, and their tags."""
    paths: dict[str, Path] = {}
    tags: dict[str, tuple[str, ...]] = {}
    ignored: Counter[str] = Counter()
    faults: list[str] = []
    alike: dict[tuple[str, int], list[str]] = {}
    for folder in filter(_is_class, _folders(root)):
        tag = normal(folder.name)
        listed = list_photos(root, [folder.name])
        faults.extend(listed.faults)
        ignored.update(listed.ignored)
        for stem, path in listed.paths.items():
            candidates = alike.setdefault((path.name, path.stat().st_size), [])
            image = next((i for i in candidates if filecmp.cmp(paths[i], path, False)), None)
            if image is None:
                image = f"{tag}_{stem}"
                if fault := _id_fault(image, path, paths):
                    faults.append(fault)
                    continue
                candidates.append(image)
                paths[image] = path
            tags[image] = (*tags.get(image, ()), *([] if tag.casefold() == _NOTHING else [tag]))
    return Photos(dict(sorted(paths.items())), dict(sorted(ignored.items())), tuple(faults)), tags


def _folders(root: Path) -> list[Path]:
    try:
        return sorted(path for path in root.iterdir() if path.is_dir())
    except OSError as error:
        raise WeaksegError(f"Can't list {root}: {error.strerror or error}.") from error


def _id_fault(image: str, path: Path, paths: dict[str, Path]) -> str | None:
    if image in paths:
        both = f"{paths[image]} and {path}"
        return f"{both} would both have the id {image!r}; rename one of them."
    fault = name_fault(image)
    return f"{path.parent.name!r} {fault}." if fault else None
