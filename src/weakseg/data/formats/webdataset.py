"""WebDataset: shards, tar files of photos with what is known of them."""

import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from itertools import islice
from pathlib import Path

from weakseg.data.formats.base import (
    Format,
    Masks,
    Photos,
    Split,
    TagRow,
    TagTable,
    find_folder,
    is_photo,
    normal,
    photos_of,
)
from weakseg.data.formats.tags_csv import find_tags_csv, read_tags_csv
from weakseg.data.masks import MaskFile
from weakseg.errors import WeaksegError
from weakseg.shards import SUFFIX, content, member_of, members

_MASK = ".mask.png"
_LOOKED_AT = 10  # files at a shard's start, of which one is a photo
_MOST = 2**20  # bytes that what is said of a photo may have


class WebDataset(Format):
    """`SPLIT-000000.tar`, ...: of a photo KEY.jpg, KEY.json and, where there is one, KEY.mask.png.

    The tags are the list `tags` of KEY.json (null: nobody tagged it), or in `tags.csv` beside the
    shards. A key, without the folders before it, is of one photo. The content stays in the shards
    (`weakseg.shards`). A split are the shards called after it.
    """

    name = "webdataset"
    summary = 'SPLIT-000000.tar, ... of KEY.jpg, KEY.json ("tags") and KEY.mask.png; or tags.csv'

    def matches(self, root: Path) -> bool:
        if find_folder(root, "images", "photos"):
            return False
        first = next(iter(_shards(root)), None)
        return first is not None and _has_photos(first)

    def photos(self, root: Path) -> Photos:
        found = photos_of(root, (path for path in _members(root) if not _is_known(path)))
        several = f"{len(_shards(root))} shards"
        return replace(found, notes=(several, *found.notes))

    def tags(self, root: Path, ids: Collection[str]) -> TagTable:
        if table := find_tags_csv(root):
            return read_tags_csv(table, ids)
        rows, faults = [], []
        for path in _members(root):
            if path.suffix != ".json":
                continue
            where = f"{path.parents[1].name}, {path.name}"
            try:
                tags = _tags_in(path)
                if tags is not None:
                    rows.append(TagRow(normal(path.stem), tags, where))
            except ValueError as error:
                faults.append(f"{where} can't be used: {error}.")
        return TagTable(tuple(rows), tuple(faults))

    def masks(self, root: Path, photos: Photos) -> Masks:
        found = {
            image: MaskFile.of(path)
            for path in _members(root)
            if path.name.endswith(_MASK)
            and (image := normal(path.name.removesuffix(_MASK))) in photos.paths
        }
        return Masks(found)

    def splits(self, root: Path) -> Mapping[str, Path]:
        named = (path.stem.rpartition("-") for path in _shards(root))
        return {split: root / split for split, _, number in named if split and number.isdecimal()}

    def read_split(self, path: Path) -> Split:
        shards = (shard for shard in _shards(path.parent) if _is_of(path.name, shard))
        files = (file for shard in shards for file in members(shard))
        names = (normal(file.stem) for file in files if is_photo(file) and not _is_known(file))
        return Split(tuple(dict.fromkeys(names)), ())


def _shards(root: Path) -> list[Path]:
    return sorted(path for path in root.glob(f"[!.]*{SUFFIX}") if path.is_file())


def _is_of(split: str, shard: Path) -> bool:
    name, _, number = shard.stem.rpartition("-")
    return name == split and number.isdecimal()


def _members(root: Path) -> Iterator[Path]:
    for shard in _shards(root):
        yield from members(shard)


def _has_photos(shard: Path) -> bool:
    try:
        return any(map(is_photo, islice(members(shard), _LOOKED_AT)))
    except WeaksegError:
        return False


def _is_known(path: Path) -> bool:
    return path.suffix == ".json" or path.name.endswith(_MASK)


def _tags_in(path: Path) -> tuple[str, ...] | None:
    """The tags that a photo's JSON file has; None if it says that nobody tagged it."""
    member = member_of(path)
    assert member is not None
    if member.size > _MOST:
        raise ValueError(f"it has {member.size:,} bytes")
    found = json.loads(content(member))
    tags = found.get("tags", ...) if isinstance(found, dict) else ...
    if tags is None:
        return None
    if not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags):
        raise ValueError('it has no list "tags" of names')
    return tuple(normal(tag.strip()) for tag in tags if tag.strip())
