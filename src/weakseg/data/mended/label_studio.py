"""Label Studio's JSON export: tasks with the regions of its brush."""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from weakseg.data.brush import decode_brush
from weakseg.data.dataset import Sample
from weakseg.data.formats.base import is_photo, normal
from weakseg.data.formats.coco_file import Scanner, photo_name
from weakseg.data.images import photo_size
from weakseg.data.masks import UnreadableMask, usable_mask
from weakseg.data.mended.base import Find, Tool, class_ids
from weakseg.data.places import stems
from weakseg.errors import WeaksegError, quoted
from weakseg.files import stamp, usable

_BRUSH = "brushlabels"
_OTHER_REGIONS = frozenset({"polygonlabels", "rectanglelabels", "ellipselabels"})
_UPLOADED = re.compile("[0-9a-f]{8}-(.+)")  # what uploading puts before a name
_REMEDY = 'Export it from Label Studio as "JSON".'

_Place = tuple[int, int]
"""A task's first byte in the file, and the one after its last."""


@dataclass(frozen=True, slots=True)
class BrushMask:
    """A mask of a task's last annotation; where regions overlap the later lies over the earlier.

    Attributes:
        file: the tasks.
        place: where the task is in it.
        image: the photo, which says the size where there is no region.
        ids: classes' names and mask ids.
    """

    file: Path
    place: _Place
    image: Path = field(compare=False)
    ids: tuple[tuple[str, int], ...]

    def __str__(self) -> str:
        return f"{self.file} (task of {self.image.name})"

    def stamp(self) -> list[int]:
        return stamp(self.file)

    def read(self) -> NDArray[np.uint8]:
        mask = np.zeros(photo_size(self.image), np.uint8)
        ids = dict(self.ids)
        with usable_mask(self):
            for name, region in _brushed(self._task()):
                size = region["original_height"], region["original_width"]
                if size != mask.shape:
                    raise UnreadableMask(
                        f"{self} has height and width {size}, its photo {mask.shape}."
                    )
                mask[decode_brush(region["value"]["rle"], *mask.shape)] = ids[name]
        return mask

    def _task(self) -> Any:
        with self.file.open("rb") as file:
            file.seek(self.place[0])
            return json.loads(file.read(self.place[1] - self.place[0]))


def matches(path: Path) -> bool:
    if not path.is_file() or path.suffix != ".json":
        return False
    with path.open("rb") as file:
        return file.read(16).lstrip(b"\xef\xbb\xbf \r\n\t").startswith(b"[")


def open_masks(path: Path, classes: Sequence[str]) -> Find:
    """Tasks are known by their photo's name; those that nobody annotated have no mask."""
    places: dict[str, _Place] = {}
    names: set[str] = set()
    with usable(path, _REMEDY):
        for task, first, end in Scanner(path.read_bytes()).entries():
            if not isinstance(task, dict) or "data" not in task:
                raise ValueError("it has entries that are no tasks")
            if _last_annotation(task) is None:
                continue
            names.update(name for name, _ in _brushed(task))
            stem = _stem_of(task)
            places[stem] = (first, end)
            if uploaded := _UPLOADED.fullmatch(stem):
                places.setdefault(uploaded[1], (first, end))
    ids = tuple(class_ids(path, names, classes).items())

    def find(sample: Sample) -> list[BrushMask]:
        found = (places[stem] for stem in stems(sample) if stem in places)
        return [BrushMask(path, place, sample.image, ids) for place in found][:1]

    return find


def _stem_of(task: dict[str, Any]) -> str:
    for value in task["data"].values():
        name = photo_name(value) if isinstance(value, str) else ""
        if is_photo(Path(name)):
            return Path(name).stem
    raise ValueError(f"task {quoted(str(task.get('id')))} names no photo")


def _last_annotation(task: dict[str, Any]) -> dict[str, Any] | None:
    made = [one for one in task.get("annotations", []) if not one.get("was_cancelled")]
    return made[-1] if made else None


def _brushed(task: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Class and region of what was brushed, in order."""
    annotation = _last_annotation(task)
    for region in annotation["result"] if annotation else ():
        if region["type"] in _OTHER_REGIONS:
            raise WeaksegError(
                f"Label Studio's task {quoted(str(task.get('id')))} has a region of "
                f"{region['type']}, where only the brush makes masks. Draw it with the brush."
            )
        if region["type"] == _BRUSH:
            yield normal(region["value"][_BRUSH][0]), region


TOOL = Tool("a JSON export of Label Studio", matches, open_masks)
