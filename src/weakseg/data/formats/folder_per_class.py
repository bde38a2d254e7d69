"""A folder of photos for each class."""

import filecmp
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from weakseg.data.formats.base import (
    Format,
    Photos,
    TagRow,
    TagTable,
    find_photos,
    is_of_the_system,
    is_photo,
    name_fault,
    normal,
)
from weakseg.errors import WeaksegError, listed, quoted

_NO_CLASSES = frozenset({"masks", "splits"})
_PARTS = re.compile("train(ing)?|val(id|idation)?|test(ing)?|dev|data|images?|imgs?|photos?")
_LISTS = frozenset({".csv", ".json", ".tsv", ".xml"})
_NOTHING = "background"


class FolderPerClass(Format):
    """`CLASS/*.jpg`: a photo is tagged with the name of its folder.

    The id of `cat/001.jpg` is `cat_001`, as cameras and scripts number the photos of every folder
    anew. A photo that was copied into several folders under one name, byte for byte, is one photo
    with several tags; its id begins with the first of them by name. The photos of a folder
    `background` have none of the classes. Folders of a system or a tool are passed over.
    """

    name = "folder-per-class"
    summary = "CLASS/*.jpg; photos of nothing in background/; optional classes.txt, masks/, splits/"

    def matches(self, root: Path) -> bool:
        return bool(_with_photos(root))

    def doubt(self, root: Path) -> str | None:
        """Nearly any folder of folders looks like this: what hardly is one is not guessed to be."""
        folders = _with_photos(root)
        found = f"photos in {listed([quoted(folder.name) for folder in folders], 5)}"
        if lists := [path for folder in folders for path in _files(folder) if _is_list(path)]:
            return f"{found} with {quoted(str(lists[0].relative_to(root)))}"
        if all(_PARTS.fullmatch(folder.name.casefold()) for folder in folders):
            return f"{found}, which sounds like no class"
        if len(folders) == 1:
            return f"{found} alone, and none without that class in background/"
        return None

    def photos(self, root: Path) -> Photos:
        return _read(root)[0]

    def tags(self, root: Path, ids: Collection[str]) -> TagTable:
        photos, tags = _read(root)
        rows = (
            TagRow(image, of_image, f"{photos.paths[image].relative_to(root).parts[0]}/")
            for image, of_image in tags.items()
        )
        return TagTable(tuple(rows), ())


def _with_photos(root: Path) -> list[Path]:
    return [folder for folder in _folders(root) if any(map(is_photo, _files(folder)))]


def _is_list(path: Path) -> bool:
    """Whether a file may say more of the photos beside it than their folder does."""
    return path.suffix.lower() in _LISTS


def _read(root: Path) -> tuple[Photos, dict[str, tuple[str, ...]]]:
    """The photos, each once, and their tags."""
    paths: dict[str, Path] = {}
    tags: dict[str, tuple[str, ...]] = {}
    ignored: Counter[str] = Counter()
    faults: list[str] = []
    alike: dict[tuple[str, int], list[str]] = {}
    for folder in _folders(root):
        tag = normal(folder.name)
        found = find_photos(folder)
        faults.extend(found.faults)
        ignored.update(found.ignored)
        for stem, path in found.paths.items():
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
    photos = Photos(
        dict(sorted(paths.items())),
        dict(sorted(ignored.items())),
        tuple(faults),
        tuple(_notes(root, paths.values())),
    )
    return photos, tags


def _notes(root: Path, photos: Iterable[Path]) -> Iterator[str]:
    if deeper := [path for path in photos if path.parent.parent != root]:
        inner = quoted(str(deeper[0].parent.relative_to(root)))
        yield f"photos in folders below their class's: {len(deeper)}, such as in {inner}"
    tools = (f.name for f in _entries(root) if f.is_dir() and is_of_the_system(f.name))
    if visible := [quoted(name) for name in tools if not name.startswith(".")]:
        yield f"folders of a system or a tool, and no classes: {listed(visible, 5)}"


def _folders(root: Path) -> list[Path]:
    """The folders that may be classes."""
    return [
        path
        for path in _entries(root)
        if path.is_dir() and path.name not in _NO_CLASSES and not is_of_the_system(path.name)
    ]


def _files(folder: Path) -> list[Path]:
    return [path for path in _entries(folder) if path.is_file()]


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        raise WeaksegError(f"Can't list {folder}: {error.strerror or error}.") from error


def _id_fault(image: str, path: Path, paths: dict[str, Path]) -> str | None:
    if image in paths:
        both = f"{paths[image]} and {path}"
        return f"{both} would both have the id {image!r}; rename one of them."
    fault = name_fault(image)
    return f"{path.parent.name!r} {fault}." if fault else None
