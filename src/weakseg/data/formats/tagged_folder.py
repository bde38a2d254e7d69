"""A folder of photos with a table of tags."""

from collections.abc import Collection
from pathlib import Path

from weakseg.data.formats.base import Format, Photos, TagTable, list_photos
from weakseg.data.formats.tags_csv import TAGS_CSV, read_tags_csv


class TaggedFolder(Format):
    name = "tagged-folder"
    summary = "images/ and tags.csv (image,tags); optional classes.txt, masks/, splits/"

    def matches(self, root: Path) -> bool:
        return (root / "images").is_dir()

    def photos(self, root: Path) -> Photos:
        return list_photos(root / "images")

    def tags(self, root: Path, ids: Collection[str]) -> TagTable:
        return read_tags_csv(root / TAGS_CSV)
