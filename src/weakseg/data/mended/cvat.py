"""CVAT's "Segmentation mask 1.1", unpacked: masks in the colours of `labelmap.txt`."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from weakseg.data.dataset import Sample
from weakseg.data.formats.base import normal, read_lines
from weakseg.data.images import open_image
from weakseg.data.masks import UnreadableMask
from weakseg.data.mended.base import Find, Tool, class_ids
from weakseg.data.places import mask_files
from weakseg.errors import WeaksegError
from weakseg.files import stamp

LABEL_MAP, MASKS = "labelmap.txt", "SegmentationClass"


@dataclass(frozen=True, slots=True)
class ColouredMask:
    """A mask whose colours stand for classes.

    Attributes:
        path: a PNG file.
        ids: colour (R + 256 G + 65536 B) and mask id, ascending.
    """

    path: Path
    ids: tuple[tuple[int, int], ...]

    def __str__(self) -> str:
        return str(self.path)

    def stamp(self) -> list[int]:
        return stamp(self.path)

    def read(self) -> NDArray[np.uint8]:
        with open_image(self.path, ("PNG",), UnreadableMask) as image:
            colours = np.array(image.convert("RGB"), np.int64) @ (1, 2**8, 2**16)
        known = np.array([colour for colour, _ in self.ids])
        ids = np.array([mask_id for _, mask_id in self.ids], np.uint8)
        place = np.minimum(np.searchsorted(known, colours), len(known) - 1)
        if (strange := known[place] != colours).any():
            red, green, blue = (int(colours[strange][0]) >> shift & 255 for shift in (0, 8, 16))
            raise UnreadableMask(
                f"{self} has the colour {red},{green},{blue}, which {LABEL_MAP} gives no label."
            )
        found: NDArray[np.uint8] = ids[place]
        return found


def matches(path: Path) -> bool:
    return (path / LABEL_MAP).is_file() and (path / MASKS).is_dir()


def open_masks(path: Path, classes: Sequence[str]) -> Find:
    colours = _read_label_map(path / LABEL_MAP)
    known = class_ids(path / LABEL_MAP, colours.values(), classes)
    ids = tuple(sorted((colour, known[name]) for colour, name in colours.items()))
    return partial(_find, path / MASKS, ids)


def _find(folder: Path, ids: tuple[tuple[int, int], ...], sample: Sample) -> list[ColouredMask]:
    return [ColouredMask(path, ids) for path in mask_files(folder, sample)]


def _read_label_map(path: Path) -> dict[int, str]:
    """Colour -> name, of lines `NAME:R,G,B:PARTS:ACTIONS`."""
    colours = {}
    for number, line in read_lines(path):
        if line.startswith("#"):
            continue
        try:
            name, colour, _, _ = line.rsplit(":", 3)
            red, green, blue = (int(part) for part in colour.split(","))
        except ValueError:
            raise WeaksegError(
                f"{path} line {number} can't be used; expected NAME:R,G,B::, as CVAT writes it."
            ) from None
        colours[red | green << 8 | blue << 16] = normal(name)
    if not colours:
        raise WeaksegError(f"{path} has no labels. Export the masks from CVAT again.")
    return colours


TOOL = Tool(f"a folder with CVAT's {LABEL_MAP} and {MASKS}/", matches, open_masks)
