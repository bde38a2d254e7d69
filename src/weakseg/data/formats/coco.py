"""A folder of COCO: instances in JSON files, whose categories are the tags."""

from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path

from weakseg.data.formats.base import (
    Format,
    Masks,
    Photos,
    Split,
    TagTable,
    find_folder,
    list_by_stem,
    list_photos,
    name_fault,
)
from weakseg.data.formats.coco_file import CocoFile, OutlinedMask, looks_like_coco, read_coco_file
from weakseg.data.formats.tags_csv import find_tags_csv
from weakseg.data.masks import TrueMask
from weakseg.data.names import match_names
from weakseg.errors import WeaksegError

_INSTANCES = "instances_"
_OF_OTHER_TASKS = ("captions_", "image_info_", "panoptic_", "person_keypoints_", "stuff_")
_BESIDE_PHOTOS = "_annotations.coco.json"
_DEPTH = 3  # images / default / sequence / part, as CVAT nests them
_MOST_FILES = 50  # in one folder: more are a file a photo, of another format


class Coco(Format):
    """COCO's object detection task, or a set laid out like it.

    - `annotations/instances_NAME.json`: the lists `images` (`id`, `file_name`, `height`, `width`),
      `annotations` (`image_id`, `category_id`, `segmentation`, `iscrowd`) and `categories` (`id`,
      `name`). An image is tagged with the categories that have an annotation in it, crowds
      included; one without annotations is tagged with nothing, unless the file has none at all.
      Each file is a split of its NAME.
    - Where there are none of that name, and no `tags.csv`: `annotations/NAME.json`, else
      `NAME/_annotations.coco.json`, as Roboflow has them, else `NAME.json`, such as Label Studio's
      `result.json`.
    - `NAME/` or `images/`, and the folders in them, else the folder itself: the photos. The id is
      the file's name without suffix, whatever folder or address `file_name` puts before it.
    - Outlines are the masks, for evaluation; see `OutlinedMask`. `masks/ID.png` takes their place.
      Category ids may have gaps, mask ids have none: a class has its place, from 1, among the
      categories in the order of their ids.
    """

    name = "coco"
    summary = (
        "annotations/instances_NAME.json or the like, and the photos in NAME/ or images/; optional"
        " masks/"
    )

    def matches(self, root: Path) -> bool:
        return bool(self.splits(root))

    def photos(self, root: Path) -> Photos:
        splits = self.splits(root)
        found = (find_folder(root, name) for name in ("images", *splits))
        folders = [folder.name for folder in found if folder]
        if folders:
            return list_photos(root, dict.fromkeys(folders), _DEPTH)
        if any(path.parent == root for path in splits.values()):
            return list_photos(root)
        expected = " or ".join(f"{name}/" for name in ("images", *splits))
        raise WeaksegError(f"{root} has no photos. Put them into {expected}.")

    def tags(self, root: Path, ids: Collection[str]) -> TagTable:
        files = self._files(root)
        return TagTable(
            tuple(row for file in files for row in file.rows),
            (),
            tuple(note for file in files for note in file.notes),
        )

    def classes(self, root: Path) -> tuple[str, ...]:
        declaring = [
            (path, classes)
            for path in self.splits(root).values()
            if (classes := read_coco_file(path).classes)
        ]
        for path, classes in declaring:
            if classes != declaring[0][1]:
                raise WeaksegError(
                    f"{declaring[0][0]} and {path} have different categories. Give both the same."
                )
        return declaring[0][1] if declaring else ()

    def masks(self, root: Path, photos: Photos) -> Masks:
        own = super().masks(root, photos)
        return replace(own, of={**self._outlined(root, photos), **own.of})

    def objects(self, root: Path, photos: Photos) -> Mapping[str, TrueMask]:
        outlined = self._outlined(root, photos)
        return {image: replace(mask, objects=True) for image, mask in outlined.items()}

    def splits(self, root: Path) -> Mapping[str, Path]:
        annotations = _json_files(find_folder(root, "annotations") or root / "annotations")
        files = {
            name.removeprefix(_INSTANCES): path
            for name, path in annotations.items()
            if name.startswith(_INSTANCES)
        }
        named = {name: path for name, path in files.items() if not name_fault(name)}
        if named or find_tags_csv(root):
            return named
        others = {n: p for n, p in annotations.items() if not n.startswith(_OF_OTHER_TASKS)}
        beside = {path.parent.name: path for path in sorted(root.glob(f"*/{_BESIDE_PHOTOS}"))}
        for files in (others, beside, _json_files(root)):
            if found := {name: path for name, path in files.items() if looks_like_coco(path)}:
                return found
        return {}

    def read_split(self, path: Path) -> Split:
        """The images of one of the files."""
        return Split(read_coco_file(path).images, ())

    def _files(self, root: Path) -> list[CocoFile]:
        return [read_coco_file(path) for path in self.splits(root).values()]

    def _outlined(self, root: Path, photos: Photos) -> dict[str, OutlinedMask]:
        outlined: dict[str, OutlinedMask] = {}
        for file in self._files(root):
            ids = match_names(file.masks, photos.paths).ids
            for name, mask in file.masks.items():
                outlined.setdefault(ids[name], mask)
        return outlined


def _json_files(folder: Path) -> dict[str, Path]:
    files = list_by_stem(folder, ".json")
    return files if len(files) <= _MOST_FILES else {}
