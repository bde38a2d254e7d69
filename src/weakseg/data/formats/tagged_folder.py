"""A folder of photos with a table of tags."""

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

from weakseg.data.formats.base import Format, Photos, TagTable, find_folder, find_photos
from weakseg.data.formats.tags_csv import TAGS_CSV, find_tags_csv, no_tags_csv, read_tags_csv

_NO_PHOTOS = frozenset({"masks", "splits"})
_LISTS = frozenset({".csv", ".tsv", ".txt"})


class TaggedFolder(Format):
    """`tags.csv`, and photos in `images/` or `photos/`, in whatever case, or else beside it."""

    name = "tagged-folder"
    summary = "images/ and tags.csv (image,tags); optional classes.txt, masks/, splits/"

    def matches(self, root: Path) -> bool:
        return _photos_folder(root) is not None or find_tags_csv(root) is not None

    def photos(self, root: Path) -> Photos:
        folder = _photos_folder(root)
        if folder is None:
            photos = find_photos(root, _NO_PHOTOS)
            ignored = {s: count for s, count in photos.ignored.items() if s not in _LISTS}
            return replace(
                photos, ignored=ignored, notes=(f"photos beside {TAGS_CSV}", *photos.notes)
            )
        photos = find_photos(folder)
        if folder.name == "images":
            return photos
        return replace(photos, notes=(f"photos in {folder.name}/", *photos.notes))

    def tags(self, root: Path, ids: Collection[str]) -> TagTable:
        table = find_tags_csv(root)
        if table is None:
            raise no_tags_csv(root)
        return read_tags_csv(table, ids)


def _photos_folder(root: Path) -> Path | None:
    return find_folder(root, "images", "photos")
