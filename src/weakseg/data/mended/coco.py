"""COCO's instances, whatever tool wrote them."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from weakseg.data.formats.coco_file import looks_like_coco, read_coco_file
from weakseg.data.masks import IGNORE
from weakseg.data.mended.base import Find, Tool, by_stem, class_ids


def matches(path: Path) -> bool:
    return path.is_file() and looks_like_coco(path)


def open_masks(path: Path, classes: Sequence[str]) -> Find:
    """Classes have the ids of the data set, in whatever order the file has them.

    Crowds are of their class: CVAT and Datumaro write every mask as one.
    """
    file = read_coco_file(path)
    known = class_ids(path, {tag for row in file.rows for tag in row.tags}, classes)
    ids = {0: 0, IGNORE: IGNORE}
    ids |= {number: known.get(name, IGNORE) for number, name in enumerate(file.classes, start=1)}
    return by_stem(
        {
            Path(name).stem: replace(
                mask,
                crowds=True,
                outlines=tuple(one._replace(mask_id=ids[one.mask_id]) for one in mask.outlines),
            )
            for name, mask in file.masks.items()
        }
    )


TOOL = Tool("a JSON file of COCO's instances", matches, open_masks)
