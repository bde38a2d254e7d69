"""YOLO segmentation: a text file of polygons for each photo."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from weakseg.data.dataset import Sample
from weakseg.data.formats.base import normal, read_lines
from weakseg.data.images import photo_size
from weakseg.data.masks import UnreadableMask
from weakseg.data.mended.base import Find, Tool, class_ids
from weakseg.data.outlines import paint, pixels, region
from weakseg.data.places import stems
from weakseg.files import describe, stamp, usable
from weakseg.safe_yaml import parse

_NAMES, _LABELS = "data.yaml", "labels"


@dataclass(frozen=True, slots=True)
class PolygonMask:
    """A mask that is painted from polygons; the smaller lie over the larger.

    Attributes:
        path: a text file.
        image: the photo, of whose size coordinates are shares.
        ids: mask ids of classes 0, 1, 2, ... there.
    """

    path: Path
    image: Path = field(compare=False)
    ids: tuple[int, ...]

    def __str__(self) -> str:
        return str(self.path)

    def stamp(self) -> list[int]:
        return stamp(self.path)

    def read(self) -> NDArray[np.uint8]:
        height, width = photo_size(self.image)
        regions = []
        for number, line in read_lines(self.path):
            try:
                first, *shares = line.split()
                if len(shares) < 6:
                    raise ValueError("expected a class and three points or more")
                points = np.array(shares, float).reshape(-1, 2) * (width, height)
                parts = region([points.ravel().tolist()], height, width)
                regions.append((self.ids[range(len(self.ids)).index(int(first))], parts))
            except (ValueError, IndexError) as error:
                raise UnreadableMask(
                    f"{self} line {number} can't be used: {describe(error)}."
                ) from None
        regions.sort(key=lambda one: -pixels(one[1]))
        return paint(regions, height, width)


def matches(path: Path) -> bool:
    return (path / _NAMES).is_file() and (path / _LABELS).is_dir()


def open_masks(path: Path, classes: Sequence[str]) -> Find:
    """Labels are in `labels/`, or the folders in it."""
    with usable(path / _NAMES, "Write it as YOLO's is: names: {0: ..., 1: ...}."):
        names = _names(parse((path / _NAMES).read_text(encoding="utf-8")))
    known = class_ids(path / _NAMES, names, classes)
    ids = tuple(known[name] for name in names)
    labels = path / _LABELS
    folders = [labels, *sorted(inner for inner in labels.iterdir() if inner.is_dir())]

    def find(sample: Sample) -> list[PolygonMask]:
        paths = (folder / f"{stem}.txt" for stem in stems(sample) for folder in folders)
        return [PolygonMask(one, sample.image, ids) for one in paths if one.is_file()][:1]

    return find


def _names(content: Any) -> list[str]:
    names = content["names"]
    if isinstance(names, dict):
        names = [names[number] for number in range(len(names))]
    return [normal(str(name)) for name in names]


TOOL = Tool(f"a folder with YOLO's {_NAMES} and {_LABELS}/", matches, open_masks)
