"""A folder of ILSVRC's detection task (DET), which the LID challenge of 2020 builds upon."""

import re
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path

from weakseg.data.formats.annotations import read_tags
from weakseg.data.formats.base import (
    Format,
    Masks,
    Photos,
    TagTable,
    list_by_stem,
    list_masks,
    list_photos,
    read_classes,
    read_lines,
)
from weakseg.errors import WeaksegError, quoted

_DEPTH = 3  # train / ILSVRC2013_train / n00007846
_LIST_OF_ONE_CLASS = re.compile(r"train_\d+")


class Ilsvrc(Format):
    """ILSVRC DET as it is packed since 2015.

    - `Data/DET/train/BATCH/ID.JPEG`, `Data/DET/train/BATCH/WNID/ID.JPEG`, `Data/DET/val/ID.JPEG`:
      the photos. File names are unique over all of them, so the id is the file's name without
      suffix.
    - `Annotations/DET/`, the same folders: `ID.xml` with an `object/name` for each object, a
      WordNet id such as n02084071. A photo without one was looked at for a single class at most:
      it has no row of tags. `tags.csv` takes the annotations' place where there is one; one file
      is read sooner than hundreds of thousands.
    - `ImageSets/DET/NAME.txt`: the splits, with lines `train/BATCH/ID INDEX` or `ID INDEX`, of
      which the last part of the path counts. The lists `train_1.txt` to `train_200.txt` are no
      splits: they say in which photos one class was sought and found, or not found.
    - `map_det.txt`, there or in `devkit/data/`: lines `WNID INDEX NAME`, which give the classes
      names, and their masks ids. Without it the names are WordNet ids, in the order of
      `classes.txt` if there is one.
    - `masks/ID.png`, or LID's `LID_track1_annotations/track1_val_annotations_raw/ID.png` with ids
      in the order of `map_det.txt`: for evaluation.

    The devkit's readme (ILSVRC2015, section 2.2) says so of photos, annotations and lists; the
    folder of LID's masks is the one that public code for the challenge reads.
    """

    name = "ilsvrc"
    summary = "Data/DET/, with tags.csv or Annotations/DET/, as in ILSVRC's detection task and LID"

    def matches(self, root: Path) -> bool:
        return (root / "Data" / "DET").is_dir()

    def photos(self, root: Path) -> Photos:
        return list_photos(root / "Data" / "DET", depth=_DEPTH)

    def tags(self, root: Path, ids: Collection[str]) -> TagTable:
        table = read_tags(root, "Annotations/DET", ids, _DEPTH)
        names = _class_names(root)
        rows = (replace(r, tags=tuple(names.get(tag, tag) for tag in r.tags)) for r in table.rows)
        return replace(table, rows=tuple(rows))

    def classes(self, root: Path) -> tuple[str, ...] | None:
        return tuple(_class_names(root).values()) or read_classes(root / "classes.txt")

    def masks(self, root: Path, photos: Photos) -> Masks:
        of_lid = list_masks(root / "LID_track1_annotations" / "track1_val_annotations_raw", photos)
        own = list_masks(root / "masks", photos)
        return Masks({**of_lid.of, **own.of}, of_lid.notes + own.notes)

    def splits(self, root: Path) -> Mapping[str, Path]:
        lists = list_by_stem(root / "ImageSets" / "DET", ".txt")
        return {n: path for n, path in lists.items() if not _LIST_OF_ONE_CLASS.fullmatch(n)}

    def image_name(self, line: str) -> str:
        return line.split()[0].rpartition("/")[2]


def _class_names(root: Path) -> dict[str, str]:
    """WordNet id -> name, in the order of the mask ids; empty without `map_det.txt`.

    Raises:
        WeaksegError: if a line is none of `WNID INDEX NAME`, or the indices aren't 1, 2, 3, ...
    """
    files = (root / "map_det.txt", root / "devkit" / "data" / "map_det.txt")
    path = next((path for path in files if path.is_file()), None)
    names: dict[str, str] = {}
    for number, line in read_lines(path) if path else ():
        match line.split(maxsplit=2):
            case [wordnet_id, index, name] if index == str(len(names) + 1):
                names[wordnet_id] = name
            case _:
                raise WeaksegError(
                    f"{path} line {number} is {quoted(line)}, where {len(names) + 1} is expected"
                    " between a WordNet id and a name. Take the file from ILSVRC's devkit."
                )
    return names
