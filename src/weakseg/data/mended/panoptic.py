"""COCO's panoptic task: PNG files of segments beside their JSON file."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from weakseg.data.formats.base import normal
from weakseg.data.formats.coco_file import Scanner
from weakseg.data.images import open_image
from weakseg.data.masks import IGNORE, UnreadableMask, usable_mask
from weakseg.data.mended.base import Find, Tool, by_stem, class_ids
from weakseg.files import stamp, usable

_LOOKED_AT = 2**16  # bytes
_REMEDY = "Write it as COCO's panoptic files are."


@dataclass(frozen=True, slots=True)
class SegmentedMask:
    """A mask of segments; what is of none is 255.

    Attributes:
        path: the segments, a PNG file whose colours are their ids.
        file: what they are.
        place: where in the file.
        ids: mask ids of the categories there.
    """

    path: Path
    file: Path
    place: tuple[int, int]
    ids: tuple[tuple[int, int], ...]

    def __str__(self) -> str:
        return str(self.path)

    def stamp(self) -> list[int]:
        return [*stamp(self.path), *stamp(self.file)]

    def read(self) -> NDArray[np.uint8]:
        with open_image(self.path, ("PNG",), UnreadableMask) as image:
            colours = np.array(image.convert("RGB"), np.int64)
        numbers = colours @ (1, 2**8, 2**16)
        mask = np.full(numbers.shape, IGNORE, np.uint8)
        ids = dict(self.ids)
        with usable_mask(self), self.file.open("rb") as file:
            file.seek(self.place[0])
            entry = json.loads(file.read(self.place[1] - self.place[0]))
            for segment in entry["segments_info"]:
                mask[numbers == segment["id"]] = ids.get(segment["category_id"], IGNORE)
        return mask


def matches(path: Path) -> bool:
    if not path.is_file() or path.suffix != ".json":
        return False
    with path.open("rb") as file:
        start = file.read(_LOOKED_AT)
        file.seek(max(_LOOKED_AT, path.stat().st_size - _LOOKED_AT))
        return b'"segments_info"' in start + file.read()


def open_masks(path: Path, classes: Sequence[str]) -> Find:
    """PNG files are in the folder of the file's own name, beside it."""
    categories: dict[int, str] = {}
    places: dict[str, tuple[int, int]] = {}
    with usable(path, _REMEDY):
        scanner = Scanner(path.read_bytes())
        for key in scanner.keys():  # noqa: SIM118
            if key == "categories":
                categories = {one["id"]: normal(one["name"]) for one, _, _ in scanner.entries()}
            elif key == "annotations":
                for entry, first, end in scanner.entries():
                    places[normal(Path(entry["file_name"]).stem)] = (first, end)
            else:
                scanner.value()
    known = class_ids(path, categories.values(), classes)
    ids = tuple((number, known[name]) for number, name in categories.items())
    folder = path.with_suffix("")
    return by_stem(
        {
            stem: SegmentedMask(folder / f"{stem}.png", path, place, ids)
            for stem, place in places.items()
        }
    )


TOOL = Tool("a JSON file of COCO's panoptic task", matches, open_masks)
